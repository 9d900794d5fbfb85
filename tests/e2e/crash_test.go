package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// events collects what becomes of registrations.
type events struct {
	mu  sync.Mutex // guards all
	all []sdk.Event
}

func (e *events) add(ev sdk.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// losses are the events that tell of a lease that did not live on.
func (e *events) losses() (out []sdk.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		switch ev.Kind {
		case sdk.EventLost, sdk.EventReregistered, sdk.EventEnded:
			out = append(out, ev)
		}
	}
	return out
}

// service registers a member that beats until the test ends.
func service(t *testing.T, client *sdk.Client, group, id string, ttl time.Duration, told *events) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := client.Register(ctx, sdk.Service{Group: group, ID: id, Addr: "127.0.0.1:8080", TTL: ttl, OnEvent: told.add})
	if err != nil {
		t.Fatal(err)
	}
}

// rings waits until all nodes have built the group's ring of one revision, and
// returns that and the ring's fingerprint, which must be the same on all.
func rings(t *testing.T, addr, group string) (revision, fingerprint uint64) {
	t.Helper()
	var st *registrypb.StatusResponse
	eventually(t, patience, "rings of one revision", func() (err error) {
		if st, err = statusWithRing(t, addr, group); err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if n.Revision == 0 || n.Revision != st.Nodes[0].Revision {
				return fmt.Errorf("%v", st)
			}
		}
		return nil
	})
	for _, n := range st.Nodes {
		if n.Fingerprint != st.Nodes[0].Fingerprint || n.Fingerprint == 0 {
			t.Errorf("rings of revision %d differ: %v", n.Revision, st)
		}
	}
	return st.Nodes[0].Revision, st.Nodes[0].Fingerprint
}

// writer registers members one after the other until it is stopped, and keeps
// those that were acknowledged with the index of the answer.
type writer struct {
	acked map[string]uint64 // its goroutine's until it has ended
	stop  context.CancelFunc
	ended chan struct{}
}

func startWriter(t *testing.T, addr, group string) *writer {
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{acked: map[string]uint64{}, stop: cancel, ended: make(chan struct{})}
	client := registrypb.NewRegistryClient(connect(t, addr))
	go func() {
		defer close(w.ended)
		for i := 0; ctx.Err() == nil; i++ {
			id := fmt.Sprintf("member-%d", i)
			resp, err := client.Register(ctx, &registrypb.RegisterRequest{
				Group: group, Id: id, Addr: "127.0.0.1:8080", Ttl: durationpb.New(time.Hour),
			})
			if err != nil {
				return // the nodes are gone
			}
			w.acked[id] = resp.Index
		}
	}()
	t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

// TestKillAll: kill -9 of all nodes in the middle of registrations, and a
// restart on the same directories.
func TestKillAll(t *testing.T) {
	t.Parallel()
	const beating, ttl = 50, 4 * time.Second
	c := startCluster(t, 3)
	told := &events{}
	created := map[string]uint64{}
	clients := []*sdk.Client{dial(t, c.addrs()), dial(t, c.nodes[1].addr), dial(t, c.nodes[2].addr)}
	for i := range beating {
		service(t, clients[i%3], "steady", fmt.Sprintf("web-%d", i), ttl, told)
	}
	for _, m := range membersOf(t, c.nodes[0].addr, "steady") {
		created[m.Id] = m.CreatedIndex
	}
	c.settled(3)
	revision, fingerprint := rings(t, c.nodes[0].addr, "steady")
	writers := []*writer{startWriter(t, c.nodes[0].addr, "busy-1"), startWriter(t, c.nodes[1].addr, "busy-2"), startWriter(t, c.nodes[2].addr, "busy-3")}
	eventually(t, patience, "registrations", func() error { // the rest is written while the nodes die
		for i, n := range c.nodes {
			if got := len(membersOf(t, n.addr, fmt.Sprintf("busy-%d", i+1))); got < 20 {
				return fmt.Errorf("%d at %s", got, n.id)
			}
		}
		return nil
	})
	for _, n := range c.nodes {
		if err := n.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		n.ends(10 * time.Second)
	}
	acked := 0
	for _, w := range writers {
		<-w.ended
		acked += len(w.acked)
	}

	began := time.Now()
	for _, n := range c.nodes {
		n.start()
	}
	c.settled(3)
	t.Logf("all three settled %v after the restart; %d registrations were acknowledged before the kill", ms(time.Since(began)), acked+beating)
	for i, n := range c.nodes {
		have := map[string]*registrypb.Member{}
		for _, m := range membersOf(t, n.addr, fmt.Sprintf("busy-%d", i+1)) {
			have[m.Id] = m
		}
		for id, index := range writers[i].acked {
			if m := have[id]; m == nil || m.CreatedIndex != index {
				t.Errorf("acknowledged registration %s at index %d is %v", id, index, m)
			}
		}
	}
	// Leases outlive their TTL because their owners beat: none was registered anew.
	throughout(t, ttl+ttl/2, "members that beat", func() error {
		if lost := told.losses(); len(lost) > 0 {
			return fmt.Errorf("%+v", lost)
		}
		return nil
	})
	members := membersOf(t, c.nodes[1].addr, "steady")
	if len(members) != beating {
		t.Errorf("%d members, want %d", len(members), beating)
	}
	for _, m := range members {
		if m.CreatedIndex != created[m.Id] {
			t.Errorf("%s was created at %d, before the kill at %d", m.Id, m.CreatedIndex, created[m.Id])
		}
	}
	if r, f := rings(t, c.nodes[2].addr, "steady"); r != revision || f != fingerprint {
		t.Errorf("ring %016x of revision %d, before the kill %016x of %d", f, r, fingerprint, revision)
	}
	for _, client := range clients { // they are still registered
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := membersOf(t, c.nodes[0].addr, "steady"); len(left) > 0 {
		t.Errorf("still registered after Close: %v", left)
	}
}
