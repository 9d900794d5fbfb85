package watch

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a machine that a hub observes, driven as raft does.
type cluster struct {
	tb    testing.TB
	m     *fsm.Machine
	hub   *Hub
	index uint64
}

func newCluster(tb testing.TB, before ...fsm.Observer) *cluster {
	c := &cluster{tb: tb, hub: NewHub(fsm.New().State())}
	c.m = fsm.New(append(before, c.hub)...)
	tb.Cleanup(c.hub.Close)
	return c
}

// apply applies commands together; all have to work.
func (c *cluster) apply(cmds ...*fsmpb.Command) {
	c.tb.Helper()
	entries := make([]fsm.Entry, len(cmds))
	for i, cmd := range cmds {
		data, err := fsm.Encode(cmd)
		if err != nil {
			c.tb.Fatal(err)
		}
		c.index++
		entries[i] = fsm.Entry{Index: c.index, Term: 1, Data: data}
	}
	for _, r := range c.m.Apply(entries) {
		if r.Err != nil {
			c.tb.Fatal(r.Err)
		}
	}
}

// known is the group's current position.
func (c *cluster) known(group string) Known {
	g := c.m.State().Group(group)
	return Known{Group: group, Revision: g.Revision, Fingerprint: g.Fingerprint()}
}

func put(group, id string) *fsmpb.Command { return putAt(group, id, "10.0.0.1:80") }

func putAt(group, id, addr string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: group, Id: id, Addr: addr, Weight: 1, TtlMs: 10_000, Instance: []byte(addr), TakeOver: true,
	}}}
}

func remove(group, id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{Group: group, Id: id}}}
}

func deleteGroup(group string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{Group: group, Force: true}}}
}

// check is an entry without a visible change.
func check() *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Check{Check: &fsmpb.Check{}}}
}

func itoa(n int) string { return strconv.Itoa(n) }

// took checks all steps that are due for a watcher.
func took(t *testing.T, w *GroupWatch, want string) {
	t.Helper()
	var got []string
	for {
		step, wake := w.Poll()
		if wake != nil {
			break
		}
		got = append(got, words(step))
	}
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("%q, want %q", s, want)
	}
}

// tookPrefix is took for a watcher of a prefix.
func tookPrefix(t *testing.T, w *PrefixWatch, want string) {
	t.Helper()
	var got []string
	for {
		steps, wake := w.Poll()
		if wake != nil {
			break
		}
		for _, s := range steps {
			got = append(got, words(s))
		}
	}
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("%q, want %q", s, want)
	}
}

// words describes a step: web unknown, web at 3: a b, web 3→4 +c -a.
func words(s Step) string {
	switch {
	case s.Unknown:
		return s.Group + " unknown"
	case s.Snapshot != nil:
		word := fmt.Sprintf("%s at %d:", s.Group, s.Snapshot.Group.Revision)
		for m := range s.Snapshot.Group.Members {
			word += " " + m.ID
		}
		return word
	}
	var all []string
	for _, c := range s.Changes {
		word := fmt.Sprintf("%s %d→%d", c.Group, c.From, c.Revision)
		for _, m := range c.Put {
			word += " +" + m.ID
		}
		for _, id := range c.Removed {
			word += " -" + id
		}
		all = append(all, word)
	}
	return strings.Join(all, "; ")
}

// woken waits for a channel to be closed.
func woken(t *testing.T, wake <-chan struct{}) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Fatal("the watcher was not woken")
	}
}

// asleep checks that no step is due, and returns the channel that wakes the watcher.
func asleep[T any](t *testing.T, poll func() (T, <-chan struct{})) <-chan struct{} {
	t.Helper()
	step, wake := poll()
	if wake == nil {
		t.Fatalf("got %+v", step)
	}
	select {
	case <-wake:
		t.Fatal("woken without a step")
	default:
	}
	return wake
}
