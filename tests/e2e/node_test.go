package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// node is a registry node and how it is started.
type node struct {
	t              *testing.T
	id, bind, addr string
	dir            string
	*process       // the last one
}

func newNode(t *testing.T, id string) *node {
	p := freePorts(t, 2)
	return &node{t: t, id: id, bind: local(p[0]), addr: local(p[1]), dir: filepath.Join(t.TempDir(), id)}
}

// args are the flags of serve.
func (n *node) args(more ...string) []string {
	return append([]string{
		"serve", "-id", n.id, "-bind", n.bind, "-bind-advertise", n.bind, "-addr", n.addr, "-advertise", n.addr,
		"-data-dir", n.dir,
	}, more...)
}

// start starts the node, for the first time or again.
func (n *node) start(more ...string) {
	n.t.Helper()
	n.process = start(n.t, command{name: n.id, args: n.args(more...)})
}

// startRefused starts the node and expects it to end by itself.
func (n *node) startRefused(t *testing.T, code int, says ...string) {
	t.Helper()
	p := start(t, command{name: n.id + "-refused", args: n.args()})
	p.refused(code, says...)
}

// refused expects the process to end by itself with that code and text.
func (p *process) refused(code int, says ...string) {
	p.t.Helper()
	if got := p.ends(20 * time.Second); got != code {
		p.t.Errorf("exit code %d, want %d:\n%s", got, code, p.log.tail(10))
	}
	for _, s := range says {
		if !strings.Contains(p.log.text(), s) {
			p.t.Errorf("does not say %q:\n%s", s, p.log.tail(10))
		}
	}
	lines := strings.Split(strings.TrimSpace(p.log.text()), "\n")
	p.t.Logf("exit code %d: %s", p.code, strings.Join(lines[max(0, len(lines)-2):], " | "))
}

// cluster is three nodes, or as many as were asked for.
type cluster struct {
	t     *testing.T
	nodes []*node
}

// startCluster starts a locked cluster, each node after the first joining it, and
// returns when all are voters and ready, and tokens are on.
func startCluster(t *testing.T, size int, more ...string) *cluster {
	t.Helper()
	lock(t)
	c := startNodes(t, size, more...)
	initTokens(t, nil, c.nodes[0].addr)
	c.settled(size)
	return c
}

// startNodes is startCluster without tokens, and without TLS unless lock was called.
func startNodes(t *testing.T, size int, more ...string) *cluster {
	t.Helper()
	c := newNodes(t, size)
	c.form(more...)
	return c
}

// newNodes is a cluster of nodes that do not run yet.
func newNodes(t *testing.T, size int) *cluster {
	c := &cluster{t: t}
	for i := range size {
		c.nodes = append(c.nodes, newNode(t, fmt.Sprintf("node-%d", i+1)))
	}
	return c
}

// form starts all nodes, each after the first joining it, and returns when all are
// voters and ready.
func (c *cluster) form(more ...string) {
	c.t.Helper()
	for i, n := range c.nodes {
		args := more
		if i > 0 {
			args = append([]string{"-registries", c.nodes[0].bind}, more...)
		}
		n.start(args...)
	}
	c.settled(len(c.nodes))
}

// addrs are the client addresses, comma-separated.
func (c *cluster) addrs() string {
	all := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		all[i] = n.addr
	}
	return strings.Join(all, ",")
}

// settled waits until every running node sees that many voters, all ready and
// at one index, and fails when their digests differ. It returns the status.
func (c *cluster) settled(voters int) (st *registrypb.StatusResponse) {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.process == nil || n.hasEnded() {
			continue
		}
		eventually(c.t, patience, fmt.Sprintf("%d voters seen by %s", voters, n.id), func() (err error) {
			st, err = statusOf(c.t, n.addr)
			if err != nil {
				return err
			}
			return allAgree(st, voters)
		})
	}
	checkDigests(c.t, st)
	return st
}

// quiet is settled, and waits until the nodes have told each other all about
// themselves and no entry has come for longer than they take between two words.
func (c *cluster) quiet(voters int) (st *registrypb.StatusResponse) {
	c.t.Helper()
	const still = 3 * time.Second // a check entry follows the last other one by 2 s, and one more
	var index uint64
	var since time.Time
	eventually(c.t, patience, "a log that stays as it is", func() error {
		st = c.settled(voters)
		if at := st.Nodes[0].AppliedIndex; at != index || since.IsZero() {
			index, since = at, time.Now()
		}
		if time.Since(since) < still {
			return fmt.Errorf("index %d", index)
		}
		return nil
	})
	return st
}

func (p *process) hasEnded() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// allAgree says what keeps a cluster from being settled.
func allAgree(st *registrypb.StatusResponse, voters int) error {
	if st.Leader == "" || len(st.Nodes) != voters {
		return fmt.Errorf("leader %q, %d nodes", st.Leader, len(st.Nodes))
	}
	for _, n := range st.Nodes {
		if !n.Voter || !n.Ready || n.Error != "" || n.AppliedIndex != st.Nodes[0].AppliedIndex {
			return fmt.Errorf("%v", n)
		}
	}
	return nil
}

// checkDigests: at an equal applied index the states are equal.
func checkDigests(t *testing.T, st *registrypb.StatusResponse) {
	t.Helper()
	byIndex := map[uint64]uint64{}
	for _, n := range st.Nodes {
		if n.Role == "" {
			continue
		}
		if d, known := byIndex[n.AppliedIndex]; known && d != n.Digest {
			t.Errorf("digests differ at index %d: %v", n.AppliedIndex, st.Nodes)
		}
		byIndex[n.AppliedIndex] = n.Digest
	}
}

// leader returns the node that leads and the others.
func (c *cluster) leader() (leader *node, others []*node) {
	c.t.Helper()
	st := c.settled(len(c.nodes))
	for _, n := range c.nodes {
		if n.id == st.Leader {
			leader = n
		} else {
			others = append(others, n)
		}
	}
	return leader, others
}

// newLeader waits for a leader other than the old one, asking that node.
func newLeader(t *testing.T, ask *node, old string) (id string, took time.Duration) {
	t.Helper()
	took = eventually(t, patience, "a new leader", func() error {
		st, err := statusOf(t, ask.addr)
		if err != nil {
			return err
		}
		if id = st.Leader; id == "" || id == old {
			return fmt.Errorf("leader %q", id)
		}
		return nil
	})
	return id, took
}

// tellsOfLeader waits until a program has told of the leader that a node knows, which is
// not the old one and may change again.
func tellsOfLeader(t *testing.T, ask *node, old, before string, told func() string) {
	t.Helper()
	eventually(t, patience, "told of the new leader", func() error {
		st, err := statusOf(t, ask.addr)
		if err == nil && (st.Leader == "" || st.Leader == old || !strings.Contains(told(), before+st.Leader+" ")) {
			err = fmt.Errorf("leader %q", st.Leader)
		}
		return err
	})
}

// statusOf asks one node once.
func statusOf(t *testing.T, addr string) (*registrypb.StatusResponse, error) {
	return statusWithRing(t, addr, "")
}

// statusWithRing also asks for the fingerprint of a group's ring.
func statusWithRing(t *testing.T, addr, group string) (*registrypb.StatusResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn := newConn(t, addr)
	defer conn.Close()
	return registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{Group: group})
}

// dial makes an SDK client, which is closed when the test ends.
func dial(t *testing.T, addrs string, opts ...sdk.Option) *sdk.Client {
	t.Helper()
	opts = slices.Concat([]sdk.Option{sdk.WithCloseTimeout(2 * time.Second)}, lockOptions(t), opts)
	client, err := sdk.Dial(addrs, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() }) // the nodes may be gone
	return client
}
