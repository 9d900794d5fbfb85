package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// survivorOf is what "recover -json" says.
type survivorOf struct {
	Recovered      bool
	NewClusterID   string `json:"new_cluster_id"`
	ClusterID      string `json:"cluster_id"`
	LastIndex      uint64 `json:"last_index"`
	Groups         int
	Members        int
	Nodes          []struct{ ID string }
	CommittedIndex uint64 `json:"committed_index"`
}

func survivor(t *testing.T, a answer) (s survivorOf) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.stdout), &s); err != nil {
		t.Fatalf("%v in %+v", err, a)
	}
	return s
}

// TestLostQuorum: two of three machines are lost for good. The survivor is recovered, two
// empty nodes join it, and no registration is missing that it had. A lost node that comes
// back with its old directory is refused.
func TestLostQuorum(t *testing.T) {
	t.Parallel()
	c := startNodes(t, 3)
	created := keptMember(t, c.nodes[0].addr)
	n1, n2, n3 := c.nodes[0], c.nodes[1], c.nodes[2]
	before := c.settled(3)
	_, fingerprint := rings(t, n1.addr, "kept")
	if a := cli(t, "recover", "-yes", "-data-dir", n1.dir); a.code != 1 || !strings.Contains(a.stderr, "stop the node first") {
		t.Errorf("while it runs: %+v", a)
	}
	old := filepath.Join(t.TempDir(), "old")
	n2.kill()
	n3.kill()
	if err := os.Rename(n2.dir, old); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n3.dir); err != nil {
		t.Fatal(err)
	}
	n1.kill()

	a := cli(t, "recover", "-data-dir", n1.dir)
	if a.code != 7 || !strings.Contains(a.stdout, "1 group, 1 member, 0 tokens") || !strings.Contains(a.stdout, "node-3") || !strings.Contains(a.stdout, "lost: ") ||
		!strings.Contains(a.stderr, "node-2, node-3 given up for good") || !strings.Contains(a.stderr, "-yes does it") {
		t.Errorf("without -yes: %+v", a)
	}
	if s := survivor(t, cli(t, "recover", "-json", "-data-dir", n1.dir)); s.Recovered || s.ClusterID != before.ClusterId || s.Members != 1 || len(s.Nodes) != 3 {
		t.Errorf("without -yes: %+v", s)
	}
	killRecoveries(t, n1)
	ok(t, "recover", "-yes", "-data-dir", n1.dir)
	if out := ok(t, "recover", "-yes", "-data-dir", n1.dir); !strings.Contains(out, "recovered before") {
		t.Errorf("again: %s", out)
	}
	n1.start()
	(&cluster{t, []*node{n1}}).settled(1)

	// The old node is asked nothing: it finds out by itself.
	kept := n2.dir
	n2.dir = old
	n2.startRefused(t, 4, "recovered without this node", "start this node with an empty -data-dir and -registries "+n1.bind)
	n2.dir = kept
	n2.start("-registries", n1.bind)
	n3.start("-registries", n1.bind)
	st := c.settled(3)
	if st.ClusterId == before.ClusterId || st.Term < before.Term || st.Nodes[0].AppliedIndex < before.Nodes[0].AppliedIndex+1<<32 {
		t.Errorf("%v, was %v", st, before)
	}
	for _, n := range c.nodes {
		if m := memberOf(t, n.addr, "kept", "web-1"); m == nil || m.CreatedIndex != created {
			t.Errorf("%s: %v, was created at %d", n.id, m, created)
		}
		if _, f := rings(t, n.addr, "kept"); f != fingerprint {
			t.Errorf("%s: fingerprint %016x, was %016x", n.id, f, fingerprint)
		}
	}
	keptMember(t, n3.addr) // and it registers
}

// killRecoveries kills recoveries of copies of a directory at random moments. The next
// one ends them, and the node starts with what it had.
func killRecoveries(t *testing.T, n *node) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	copyOf := func(i int) string {
		dir := filepath.Join(t.TempDir(), fmt.Sprint("copy-", i))
		if err := os.CopyFS(dir, os.DirFS(n.dir)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	began := time.Now()
	ok(t, "recover", "-yes", "-data-dir", copyOf(0))
	takes := time.Since(began)
	for i := range 4 {
		dir := copyOf(i + 1)
		p := start(t, command{name: fmt.Sprint("recover-", i), args: []string{"recover", "-yes", "-data-dir", dir}})
		timer := time.NewTimer(time.Duration(r.Int64N(int64(takes) * 5 / 4)))
		<-timer.C
		if !p.hasEnded() {
			_ = p.cmd.Process.Kill() // it may end at this moment
		}
		p.ends(patience)
		ok(t, "recover", "-yes", "-data-dir", dir)
		if i%2 > 0 {
			continue
		}
		alone := *n
		alone.dir = dir
		alone.start()
		(&cluster{t, []*node{&alone}}).settled(1)
		if memberOf(t, n.addr, "kept", "web-1") == nil {
			t.Errorf("recovery %d: the member is lost", i)
		}
		alone.kill()
	}
}
