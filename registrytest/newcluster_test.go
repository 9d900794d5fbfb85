package registrytest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
)

// savedFile writes a cluster's snapshot to a file.
func savedFile(t *testing.T, client *sdk.Client) (path string, f *backup.File) {
	t.Helper()
	data, f := snapshotOf(t, client)
	path = filepath.Join(t.TempDir(), "state.snapshot")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, f
}

// TestRestoreIntoANewCluster: three empty nodes, of which the first has the file, have
// the file's state under a new cluster id. A node of the old cluster stays out, and a
// client of the old cluster is refused.
func TestRestoreIntoANewCluster(t *testing.T) {
	t.Parallel()
	var oldNode registry.Config // of the last one
	old := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithTokens(), registrytest.WithConfig(func(c *registry.Config) { oldNode = *c }))
	ctx, cancel := context.WithTimeout(t.Context(), 2*registrytest.Patience)
	defer cancel()
	token := old.Token(sdk.Grant{Rights: sdk.Discover | sdk.Register | sdk.Admin})
	if _, err := old.Client().Register(ctx, sdk.Service{Group: "web", ID: "silent", Addr: "127.0.0.1:80", TTL: time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Client().Register(ctx, sdk.Service{Group: "web", ID: "slow", Addr: "127.0.0.1:81", TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	path, saved := savedFile(t, ofFollower(t, old))

	first := startNode(t, "n1", func(c *registry.Config) { c.Restore = path })
	nodes := []*registry.Node{first}
	for _, id := range []string{"n2", "n3"} {
		nodes = append(nodes, startNode(t, id, func(c *registry.Config) { c.Registries = []string{first.BindAddr()} }))
	}
	for _, n := range nodes {
		waitReady(t, n)
		client, err := sdk.Dial(n.Addr(), sdk.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		var r sdk.Receipt
		_, err = client.Members(ctx, "web", sdk.WithReceipt(&r))
		if err != nil || r.ClusterID == saved.Header.ClusterId || r.ClusterID == "" || r.Index <= saved.Header.Index {
			t.Errorf("%s: %+v, %v", n.ID(), r, err)
		}
		if g := saved.State.Group("web"); r.Revision == g.Revision && r.Fingerprint != g.Fingerprint() || r.Revision < g.Revision {
			t.Errorf("%s: fingerprint %016x at revision %d, the file has %016x at %d", n.ID(), r.Fingerprint, r.Revision, g.Fingerprint(), g.Revision)
		}
		for id := ""; id != "silent"; { // its lease ends
			members, err := client.Members(ctx, "web", sdk.Linearizable())
			if err != nil {
				t.Fatal(err)
			}
			if id = "silent"; slices.ContainsFunc(members, func(m sdk.Member) bool { return m.ID == "silent" }) {
				id = ""
			} else if len(members) != 1 || members[0].ID != "slow" {
				t.Errorf("%s: %v", n.ID(), members)
			}
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	client, err := sdk.Dial(first.Addr(), sdk.WithToken(token))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Register(ctx, sdk.Service{Group: "web", ID: "new", Addr: "127.0.0.1:80", TTL: time.Minute}); err != nil {
		t.Error(err)
	}

	// A node of the old cluster that is sent to the new one stays in its own.
	old.Stop(2)
	oldNode.Registries = []string{first.BindAddr()}
	back, err := registry.Start(ctx, oldNode)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := client.Join(ctx, back.BindAddr(), false); !errors.Is(err, sdk.ErrMembership) {
		t.Errorf("the new cluster took an old node in: %v", err)
	}
	waitReady(t, back)
	status, err := client.Status(ctx, "")
	if err != nil || len(status.Nodes) != 3 || slices.ContainsFunc(status.Nodes, func(n sdk.NodeStatus) bool { return n.ID == back.ID() }) {
		t.Errorf("%+v, %v", status, err)
	}
	if st, err := old.Client().Status(ctx, ""); err != nil || st.ClusterID != saved.Header.ClusterId || st.ClusterID == status.ClusterID {
		t.Errorf("the old cluster is %+v, %v", st, err)
	}
	strays, err := sdk.Dial(first.Addr(), sdk.WithToken(token), sdk.WithCluster("/"+saved.Header.ClusterId), sdk.WithCallTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer strays.Close()
	if _, err := strays.Members(ctx, "web"); !errors.Is(err, sdk.ErrWrongCluster) {
		t.Errorf("a client of the old cluster: %v", err)
	}
}

// TestRestoredNodeRestarts with the flag that it was restored with, as a container does,
// and refuses it where it would have to replace something.
func TestRestoredNodeRestarts(t *testing.T) {
	t.Parallel()
	path, _ := savedFile(t, registrytest.Start(t).Client())
	other, _ := savedFile(t, registrytest.Start(t).Client())
	dir := t.TempDir()
	start := func(file string, change func(*registry.Config)) (*registry.Node, error) {
		cfg := registry.DefaultConfig()
		cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir, cfg.Restore = "n1", "127.0.0.1:0", "127.0.0.1:0", dir, file
		if change != nil {
			change(&cfg)
		}
		return registry.Start(t.Context(), cfg)
	}
	runs := func(what, file string) {
		n, err := start(file, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		waitReady(t, n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := start(path+".none", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, []byte("registry snapshot\nH"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := start(damaged, nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a damaged file: %v", err)
	}
	runs("the first time", path)
	runs("again", path)
	runs("without the flag", "")
	runs("without the file", path+".none")
	if _, err := start(other, nil); err == nil || !strings.Contains(err.Error(), "needs an empty directory") {
		t.Errorf("another file: %v", err)
	}
	for name, change := range map[string]func(*registry.Config){
		"-registries":       func(c *registry.Config) { c.Registries = []string{"127.0.0.1:1"} },
		"-bootstrap-expect": func(c *registry.Config) { c.BootstrapExpect, c.Registries = 2, []string{"127.0.0.1:1"} },
		"-wait":             func(c *registry.Config) { c.Wait = true },
	} {
		if _, err := start(path, change); !errors.Is(err, registry.ErrConfig) || !strings.Contains(err.Error(), "-restore: forms a new cluster") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
