package registrytest_test

import (
	"testing"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store"
)

// TestEmptyGroupGoes: a node's DeleteEmptyAfter is in force. The rules are tested in store.
func TestEmptyGroupGoes(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n1", func(cfg *registry.Config) { cfg.DeleteEmptyAfter = store.MinDeleteEmptyAfter })
	waitReady(t, n)
	client, err := sdk.Dial(n.Addr(), sdk.WithRefreshInterval(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	reg, err := client.Register(t.Context(), sdk.Service{Group: "idle", ID: "m", Addr: "10.0.0.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	awaitSample(t, n, "registry_empty_groups_deleted_total", exactly(1))
	if groups, err := client.Groups(t.Context(), sdk.Linearizable()); err != nil || len(groups) != 0 {
		t.Errorf("groups %+v, %v", groups, err)
	}
}
