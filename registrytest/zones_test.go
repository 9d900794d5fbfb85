package registrytest_test

import (
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
)

// TestZonesAreShown: every node shows the zones of all, also of one that is down, and the
// leader warns of a zone with two of three voters.
func TestZonesAreShown(t *testing.T) {
	t.Parallel()
	first := startNode(t, "n1", func(cfg *registry.Config) { cfg.Zone = "eu-1" })
	in := func(zone string) func(*registry.Config) {
		return func(cfg *registry.Config) { cfg.Zone, cfg.Registries = zone, []string{first.BindAddr()} }
	}
	second, third := startNode(t, "n2", in("eu-2")), startNode(t, "n3", in("eu-1"))
	waitReady(t, first, second, third)
	client, err := sdk.Dial(second.Addr(), sdk.WithRefreshInterval(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	watch, err := client.WatchNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"eu-1", "eu-2", "eu-1"}
	for zones := []string(nil); !slices.Equal(zones, want); {
		e, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		zones = zones[:0]
		for _, n := range e.Nodes {
			zones = append(zones, n.Zone)
		}
	}
	awaitSample(t, second, "registry_raft_voters", exactly(3))
	awaitSample(t, third, `registry_build_info{cluster="registry",go_version="`+runtime.Version()+`",node="n3",version="dev",zone="eu-1"}`, exactly(1))

	status, err := client.Status(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range status.Nodes {
		alarm := strings.Join(n.Alarms, "\n")
		if n.Zone != want[i] || (n.ID == status.Leader) != strings.Contains(alarm, `the loss of zone "eu-1" (2 of 3 voters) loses the quorum of 2`) {
			t.Errorf("%s: zone %q, alarms %q", n.ID, n.Zone, n.Alarms)
		}
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + second.Addr() + "/v1/cluster")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Nodes []struct{ Role, Zone string } }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || len(body.Nodes) != 3 || body.Nodes[2].Role != "" || body.Nodes[2].Zone != "eu-1" {
		t.Errorf("%+v: %v", body, err)
	}
}
