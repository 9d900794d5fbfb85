package registry_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// The tests of what a node does for its clients are those of package
// registrytest. Here are those that need what is not exported.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scrape reads what a node serves at /metrics.
func scrape(t *testing.T, n *registry.Node) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + n.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", n.ID(), resp.Status, err)
	}
	return string(body)
}

func wantReason(t *testing.T, err error, code codes.Code, want registrypb.ErrorDetail_Reason) {
	t.Helper()
	var reason registrypb.ErrorDetail_Reason
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*registrypb.ErrorDetail); ok {
			reason = detail.Reason
		}
	}
	if status.Code(err) != code || reason != want {
		t.Errorf("got %v, want %v and %v", err, code, want)
	}
}
