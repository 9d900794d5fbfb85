package rings

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a machine that a cache observes, driven as raft does.
type cluster struct {
	tb    testing.TB
	m     *fsm.Machine
	cache *Cache
	index uint64
}

func newCluster(tb testing.TB, memory int64, before ...fsm.Observer) *cluster {
	c := &cluster{tb: tb}
	c.cache = New(Config{State: func() *fsm.State { return c.m.State() }, Memory: memory})
	c.cache.start = c.cache.start.Add(-time.Second) // 0 would be no time of a change
	c.m = fsm.New(append(before, c.cache)...)
	tb.Cleanup(c.cache.Close)
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

// fill makes a group of so many members.
func (c *cluster) fill(group string, members int) {
	c.tb.Helper()
	for at := 0; at < members; {
		var cmds []*fsmpb.Command
		for ; at < members && len(cmds) < 1000; at++ {
			cmds = append(cmds, put(group, itoa(at)))
		}
		c.apply(cmds...)
	}
}

func (c *cluster) get(ctx context.Context, group string, fresh Freshness) (*View, time.Duration, error) {
	s := c.m.State()
	v, behind, err := c.cache.Get(ctx, s, s.Group(group), fresh)
	return v, behind.Delay, err
}

// must is get where it has to work.
func (c *cluster) must(group string, fresh Freshness) (*View, time.Duration) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), 20*time.Second)
	defer cancel()
	v, delay, err := c.get(ctx, group, fresh)
	if err != nil {
		c.tb.Fatal(err)
	}
	return v, delay
}

// newest gets a ring that has everything.
func (c *cluster) newest(group string) *View {
	c.tb.Helper()
	v, _ := c.must(group, Freshness{MinIndex: c.m.State().Index()})
	return v
}

// entry returns the group's entry, or nil.
func (c *cluster) entry(group string) *entry {
	if kept, ok := c.cache.entries.Load(group); ok {
		return kept.(*entry)
	}
	return nil
}

// hold keeps builds of the classes from beginning until the returned function is called.
func (c *cluster) hold(classes ...int) (release func()) {
	set := func(sign int) {
		c.cache.mu.Lock()
		defer c.cache.mu.Unlock()
		for _, k := range classes {
			c.cache.classes[k].running += sign * c.cache.classes[k].slots
			c.cache.pumpLocked(k)
		}
	}
	set(1)
	return sync.OnceFunc(func() { set(-1) })
}

// waiters waits until the group's ring has so many waiters.
func (c *cluster) waiters(group string, want int) {
	c.tb.Helper()
	c.until("so many wait", func() bool {
		e := c.entry(group)
		return e != nil && e.waiters == want
	})
}

// until waits for a condition, which it checks under the cache's mutex.
func (c *cluster) until(what string, is func() bool) {
	c.tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c.cache.mu.Lock()
		ok := is()
		c.cache.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.tb.Fatalf("not so: %s", what)
		}
		runtime.Gosched()
	}
}

// sums compares the cache's counts with its contents.
func (c *cluster) sums() {
	c.tb.Helper()
	c.until("no build runs", func() bool { return c.cache.reserved == 0 })
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	var used int64
	places := 0
	c.cache.entries.Range(func(_, kept any) bool {
		if v := kept.(*entry).view.Load(); v != nil {
			used += v.bytes()
			places++
		}
		return true
	})
	if used != c.cache.used || used != c.cache.evictable.bytes {
		c.tb.Errorf("rings take %d bytes, %d are counted and %d may be dropped", used, c.cache.used, c.cache.evictable.bytes)
	}
	if n := c.cache.evictable.probation.Len() + c.cache.evictable.protected.Len(); n != places || c.cache.queued[foreground] != 0 {
		c.tb.Errorf("%d rings are kept and %d may be dropped, %d wait", places, n, c.cache.queued[foreground])
	}
}

// right checks a view's ring and fingerprint against its members.
func right(tb testing.TB, v *View) {
	tb.Helper()
	members := make([]ring.Member, v.Ring.Len())
	for i := range members {
		m := v.Member(i)
		members[i] = ring.Member{ID: m.ID, Weight: int(m.Weight), State: m.State}
	}
	again, err := ring.New(v.Ring.Params(), members)
	if err != nil {
		tb.Error(err)
		return
	}
	if got := ring.InputsOf(v.Ring.Params(), members).Fingerprint(v.Ring.Params()); got != v.Fingerprint || v.Ring.Fingerprint() != v.Fingerprint {
		tb.Errorf("view names fingerprint %016x, its members have %016x, its ring %016x", v.Fingerprint, got, v.Ring.Fingerprint())
	}
	if again.Digest() != v.Ring.Digest() {
		tb.Errorf("ring at %d has digest %016x, rebuilt %016x", v.Revision, v.Ring.Digest(), again.Digest())
	}
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

func update(group, id string, weight uint32, state ring.State) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
		Group: group, Id: id, Weight: weight, StatePlusOne: uint32(state) + 1,
	}}}
}

func setGroup(group string, nodes, bound uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: group, VirtualNodes: nodes, Bound: bound}}}
}

func itoa(n int) string { return strconv.Itoa(n) }
