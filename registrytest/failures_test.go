package registrytest_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Too many wrong tokens from an address get another error, on gRPC and HTTP, and are
// counted. A valid token from there works meanwhile, and what is no guess is told what
// it lacks.
func TestWrongTokensAreLimited(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	index := func(header ...string) error {
		ctx := t.Context()
		for _, token := range header {
			ctx = with(ctx, token)
		}
		_, err := c.apis[0].Index(ctx, &registrypb.IndexRequest{})
		wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		return err
	}
	other, _, _ := registrypb.MakeToken()
	for i := range auth.MaxFailures {
		if err := index([]string{other, "rgt_short"}[i%2]); strings.Contains(err.Error(), "more than") {
			t.Fatalf("failure %d: %v", i+1, err)
		}
	}
	const says = "more than 20 wrong tokens within 1m0s from 127.0.0.1"
	for range 10 {
		if err := index(other); !strings.Contains(err.Error(), says) {
			t.Errorf("one too many: %v", err)
		}
	}
	if err := index(); !strings.Contains(err.Error(), "needs a token") {
		t.Errorf("without a token: %v", err)
	}
	c.wantTooMany(t, other)
	if _, err := c.apis[0].Index(with(t.Context(), c.admin), &registrypb.IndexRequest{}); err != nil {
		t.Errorf("a valid token from the same address: %v", err)
	}
	if code := c.get(t, 0, "/metrics", c.admin); code != http.StatusOK {
		t.Errorf("metrics with a valid token: %d", code)
	}
	c.wantFailures(t, map[auth.Reason]float64{auth.Unknown: 10, auth.Malformed: 10, auth.Limited: 11, auth.Missing: 1, auth.Expired: 0})
}

// wantTooMany expects HTTP's form of the limit.
func (c *tokenCluster) wantTooMany(t *testing.T, token string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.nodes[0].Addr()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != http.StatusTooManyRequests || err != nil || after < 1 || time.Duration(after)*time.Second > auth.FailureWindow+time.Second {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
}

func (c *tokenCluster) wantFailures(t *testing.T, want map[auth.Reason]float64) {
	t.Helper()
	_, text := c.page(t, 0, "/metrics", c.admin)
	got := samples(t, []byte(text))
	for why, n := range want {
		name := fmt.Sprintf("registry_auth_failures_total{port=\"client\",reason=%q}", why)
		if got[name] != n {
			t.Errorf("%s is %v, want %v", name, got[name], n)
		}
	}
}
