package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// resizeWriter registers members at any node that answers, until it is stopped.
type resizeWriter struct {
	acked map[string]uint64 // indexes; its goroutine's until it has ended
	count atomic.Int64      // of acked
	stop  context.CancelFunc
	ended chan struct{}
}

func startResizeWriter(t *testing.T, nodes []*node, group string) *resizeWriter {
	ctx, cancel := context.WithCancel(t.Context())
	w := &resizeWriter{acked: map[string]uint64{}, stop: cancel, ended: make(chan struct{})}
	var clients []registrypb.RegistryClient
	for _, n := range nodes {
		clients = append(clients, registrypb.NewRegistryClient(connect(t, n.addr)))
	}
	go func() {
		defer close(w.ended)
		at := 0
		for i := 0; ctx.Err() == nil; i++ {
			id := fmt.Sprintf("member-%d", i)
			call, done := context.WithTimeout(ctx, patience)
			resp, err := clients[at].Register(call, &registrypb.RegisterRequest{
				Group: group, Id: id, Addr: "127.0.0.1:8080", Ttl: durationpb.New(time.Hour),
			})
			done()
			if err != nil {
				at = (at + 1) % len(clients) // whatever became of this one; the next has another id
				continue
			}
			w.acked[id] = resp.Index
			w.count.Add(1)
		}
	}()
	t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

// more waits for registrations that begin after it was called.
func (w *resizeWriter) more(t *testing.T) {
	t.Helper()
	before := w.count.Load()
	eventually(t, patience, "registrations", func() error {
		if n := w.count.Load() - before; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
}

// becomes waits until a node sees those voters, all ready. Under load their indexes differ.
func (c *cluster) becomes(ids ...string) {
	c.t.Helper()
	slices.Sort(ids)
	eventually(c.t, patience, fmt.Sprintf("the voters %v", ids), func() error {
		st, err := statusOf(c.t, c.nodes[0].addr)
		if err != nil {
			return err
		}
		var voters []string
		for _, n := range st.Nodes {
			if n.Voter && n.Ready {
				voters = append(voters, n.Id)
			}
		}
		if slices.Sort(voters); !slices.Equal(voters, ids) || len(st.Nodes) != len(ids) {
			return fmt.Errorf("%v of %v", voters, st)
		}
		return nil
	})
}

// without takes nodes out of what the test knows.
func (c *cluster) without(gone ...*node) {
	c.nodes = slices.DeleteFunc(c.nodes, func(n *node) bool { return slices.Contains(gone, n) })
}

func (c *cluster) ids() (ids []string) {
	for _, n := range c.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

// join starts a node that joins the cluster.
func (c *cluster) join(id string) *node {
	c.t.Helper()
	n := newNode(c.t, id)
	n.start("-registries", c.nodes[0].bind)
	c.nodes = append(c.nodes, n)
	return n
}

// TestResizeUnderLoad: five nodes become three: the leader leaves, and another one is
// removed; three nodes join, and one of them replaces the leader. Members are registered and beat
// all the while.
func TestResizeUnderLoad(t *testing.T) {
	t.Parallel()
	began := time.Now()
	c := startCluster(t, 5)
	leader, others := c.leader()
	told := &events{}
	steady := dial(t, c.addrs())
	for i := range 20 {
		service(t, steady, "steady", fmt.Sprintf("web-%d", i), 5*time.Second, told)
	}
	load := startResizeWriter(t, c.nodes, "busy")
	// change runs a command until it has succeeded: a stalled machine may make it refuse,
	// or not know the outcome.
	change := func(args ...string) {
		t.Helper()
		load.more(t)
		eventually(t, patience, fmt.Sprint(args), func() error {
			if a := cli(t, append(slices.Concat([]string{"cluster"}, args), "-yes", "-registries", c.addrs())...); a.code != 0 && (a.code != 3 || args[0] == "replace") { // 3: it is gone
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
	}

	c.without(leader, others[0])
	change("leave", leader.id)
	change("remove", others[0].id)
	c.becomes(c.ids()...)
	load.more(t)
	t.Logf("three after %v", ms(time.Since(began)))

	var leads *node
	eventually(t, patience, "a leader", func() error {
		st, err := statusOf(t, c.nodes[0].addr)
		if i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.id == st.GetLeader() }); i >= 0 {
			leads = c.nodes[i]
			return nil
		}
		return fmt.Errorf("%v, %v", st, err)
	})
	for _, id := range []string{"node-6", "node-7", "node-8"} {
		c.join(id)
	}
	c.without(leads)
	for range 2 { // the second time as after an interruption
		change("replace", leads.id, "node-8")
	}
	c.becomes(c.ids()...)
	load.more(t)
	load.stop()
	<-load.ended
	t.Logf("five after %v", ms(time.Since(began)))

	c.settled(5)
	have := map[string]uint64{}
	for _, m := range membersOf(t, c.nodes[len(c.nodes)-1].addr, "busy") {
		have[m.Id] = m.CreatedIndex
	}
	for id, index := range load.acked {
		if have[id] != index {
			t.Errorf("%s was acknowledged at index %d, and is %d", id, index, have[id])
		}
	}
	if lost := told.losses(); len(lost) > 0 {
		t.Errorf("members that beat: %v", lost)
	}
	leader.refused(0, "left the cluster")
	for _, n := range []*node{others[0], leads} {
		n.refused(4, "was removed from the cluster")
	}
	t.Logf("%d registrations were acknowledged in %v", len(load.acked), ms(time.Since(began)))
}
