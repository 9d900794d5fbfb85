package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/werbenhu/registry"
)

// TestClusterOfAnotherName: every command that talks to a cluster refuses one that
// is not the one of -cluster, and changes nothing there.
func TestClusterOfAnotherName(t *testing.T) {
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Cluster, cfg.Bind, cfg.Addr, cfg.DataDir = "n1", "prod", "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	n, err := registry.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	<-n.Ready()
	t.Setenv("REGISTRY_ADDRS", n.Addr())
	for _, args := range []string{
		"members web", "match -json web user-1", "groups", "match web user-1", "ring show web", "watch web", "cluster status", "cluster join 127.0.0.1:1",
		"cluster transfer", "group set web -virtual-nodes 64 -yes", "deregister -group web -id w1 -yes", "register -group web -id w1 -addr 10.0.0.1:80",
		"health", "bench register -duration 10ms -groups 1", "bench match -duration 10ms -groups 1 -members 1",
	} {
		r := execute(t, t.Context(), "", append(strings.Fields(args), "-cluster", "wrong", "-timeout", "30s")...)
		if r.code != exitConflict || strings.Count(r.stderr, `is of cluster "prod/`) != 1 || !strings.Contains(r.stderr, `"wrong"`) ||
			!strings.HasSuffix(r.stderr, "\n  -cluster or REGISTRY_CLUSTER names the cluster whose nodes are asked\n") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if r := execute(t, t.Context(), "", "groups", "-cluster", "a/b/c"); r.code != exitUsage || !strings.Contains(r.stderr, "NAME/ID") {
		t.Errorf("%+v", r)
	}
	var status statusJSON
	if err := json.Unmarshal([]byte(ok(t, "cluster", "status", "-json", "-cluster", "prod")), &status); err != nil || len(status.ClusterID) != 32 {
		t.Fatalf("%+v, %v", status, err)
	}
	t.Setenv("REGISTRY_CLUSTER", "prod/"+status.ClusterID)
	if groups := ok(t, "groups", "-json"); strings.TrimSpace(groups) != "[]" {
		t.Errorf("groups: %s", groups)
	}
	ok(t, "health")
	ok(t, "bench", "register", "-duration", "10ms", "-groups", "1")
}
