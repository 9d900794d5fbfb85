package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/storetest"
)

func staleOnStart(cfg *store.Config) { cfg.StaleOnStart = true }

// steps is an observer that notes what a reader can see.
type steps struct {
	mu      sync.Mutex // guards the rest
	last    uint64
	back    bool
	members map[string]bool // of web, at any time
}

func (s *steps) observe(cfg *store.Config) { cfg.Observers = append(cfg.Observers, s) }

func (s *steps) Applied(u *fsm.Update) { s.Restored(u.State) }

func (s *steps) Restored(state *fsm.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = s.back || state.Index() < s.last
	s.last = state.Index()
	if g := state.Group("web"); g != nil {
		for m := range g.Members {
			if s.members == nil {
				s.members = make(map[string]bool)
			}
			s.members[m.ID] = true
		}
	}
}

// saw reports whether the node ever had the member, and fails the test if its state went
// back.
func (s *steps) saw(t *testing.T, id string) bool {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.back {
		t.Error("the state went back")
	}
	return s.members[id]
}

func killAll(c *storetest.Cluster) {
	for _, n := range c.Nodes() {
		n.Kill()
	}
}

// notServing lets a node have much more time than it waits for a leader.
func notServing(t *testing.T, n *storetest.Node) {
	t.Helper()
	select {
	case <-n.Failed():
		t.Fatal(n.Failure())
	case <-time.After(100 * storetest.ElectionTimeout):
	}
	if err := n.Serving(); !errors.Is(err, store.ErrNotReady) {
		t.Errorf("it answers, at index %d: %v", n.State().Index(), err)
	}
}

func awaitStale(t *testing.T, c *storetest.Cluster, n *storetest.Node) {
	t.Helper()
	c.Await("answers without a leader", func() bool { return n.Serving() == nil })
	if n.IsReady() || !n.Stale() || n.Lag() != store.UnknownLag {
		t.Errorf("ready %v, stale %v, lag %v", n.IsReady(), n.Stale(), n.Lag())
	}
	if st := n.Status(); st.Ready || len(st.Alarms) != 1 || n.Metrics().Ready {
		t.Errorf("the status does not say so: %+v", st)
	}
}

// A node that is alone after all were killed answers from all that it had applied, and
// from nothing else. It renews and writes nothing, no member expires, and when the others
// are back its state goes on from there.
func TestStaleStart(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, staleOnStart, kind)
		c.Three()
		lease := c.Write(register("web", "a", time.Second)).LeaseID
		leader, ctx := c.Leader(), c.Context()
		var all sync.WaitGroup
		for i := range 50 { // more entries than are applied at once
			all.Go(func() {
				for j := range 6 {
					if _, err := leader.Write(ctx, register("web", fmt.Sprintf("m%d-%d", i, j), time.Hour)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if _, _, err := leader.Renew(ctx, []uint64{lease}, nil); err != nil {
			t.Fatal(err)
		}
		n := c.Node("n1")
		killAll(c)
		had := n.State()
		var seen steps
		n = c.Open("n1", seen.observe)
		awaitStale(t, c, n)
		if s := n.State(); s.Index() != had.Index() || s.Digest() != had.Digest() || member(s, "web", "a") == nil {
			t.Errorf("index %d with digest %016x; it had applied %d with %016x", s.Index(), s.Digest(), had.Index(), had.Digest())
		}
		time.Sleep(time.Minute) // of the bubble: an hour would be no different
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := n.LinearizableIndex(short); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a linearizable read: %v", err)
		}
		if _, err := n.Write(short, setGroup("web", 64)); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a write: %v", err)
		}
		if _, _, err := n.Renew(short, []uint64{lease}, nil); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a renewal: %v", err)
		}
		if _, err := n.WaitIndex(short, had.Index()+1); err == nil {
			t.Error("it has applied more")
		}
		if member(n.State(), "web", "a") == nil {
			t.Error("a member expired without a leader")
		}
		c.Open("n2")
		c.Open("n3")
		for _, n := range c.Nodes() {
			c.AwaitReady(n)
		}
		c.Write(register("web", "later", time.Hour))
		c.AwaitSame()
		c.Await("a lag that is known", func() bool { return n.Lag() < time.Second }) // until then since the start
		if n.Stale() || len(n.Status().Alarms) > 0 || !n.Status().Ready || !seen.saw(t, "later") {
			t.Errorf("stale %v, lag %v, alarms %v", n.Stale(), n.Lag(), n.Status().Alarms)
		}
	})
}

// The end of the log of a deposed leader is not committed, and the others replace it.
func TestStaleStartShowsNothingUncommitted(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c, old, next := deposed(t, func(_ *storetest.Cluster, cfg *store.Config) { kind(cfg); staleOnStart(cfg) })
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := old.Write(short, register("web", "never", time.Hour)); !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		index := old.State().Index()
		old.Kill()
		if _, err := next.Write(c.Context(), register("web", "instead", time.Hour)); err != nil {
			t.Fatal(err)
		}
		killAll(c)
		c.Net.Heal()
		var seen steps
		n := c.Open("n1", seen.observe, func(cfg *store.Config) { cfg.ElectionTimeout = storetest.ElectionTimeout })
		awaitStale(t, c, n)
		if s := n.State(); s.Index() != index || member(s, "web", "a") == nil || member(s, "web", "never") != nil {
			t.Errorf("index %d, want %d", s.Index(), index)
		}
		c.Open("n2")
		c.Open("n3")
		c.AwaitReady(n)
		c.AwaitSame()
		if seen.saw(t, "never") || !seen.saw(t, "instead") {
			t.Error("it showed what was never committed, or lacks what was")
		}
	})
}

// A record of what came in the place of the log's end, of a later copy of the directory, says
// nothing of this log.
func TestStaleStartWithALaterRecord(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c, old, next := deposed(t, func(_ *storetest.Cluster, cfg *store.Config) { kind(cfg); staleOnStart(cfg) })
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for i := range 20 { // some reach the log
			all.Go(func() {
				if _, err := old.Write(short, register("web", fmt.Sprint("never", i), time.Hour)); !errors.Is(err, store.ErrOutcomeUnknown) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		last := old.State().Index() + 1
		killAll(c)
		data, err := os.ReadFile(filepath.Join(old.Dir, "node.json"))
		var ident struct{ Incarnation string }
		if err := errors.Join(err, json.Unmarshal(data, &ident)); err != nil {
			t.Fatal(err)
		}
		files, err := raftlog.Lock(old.Dir)
		if err != nil {
			t.Fatal(err)
		}
		commits, err := files.OpenCommits(ident.Incarnation, raftlog.Watchdog{MaxHang: time.Minute, Fatal: func(err error) { t.Error(err) }}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		commits.Note(last, next.Term())
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		notServing(t, c.Open("n1", func(cfg *store.Config) { cfg.ElectionTimeout = storetest.ElectionTimeout }))
	})
}

// Of a directory without the record, only a snapshot is known to be committed.
func TestStaleStartWithoutARecord(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind)
		nodes := c.Three()
		c.Write(register("web", "a", time.Hour))
		c.AwaitSame()
		killAll(c)
		n := c.Open("n2", staleOnStart)
		notServing(t, n)
		n.Kill()
		for _, n := range nodes {
			if _, err := os.Stat(filepath.Join(n.Dir, raftlog.CommitFile)); n.ID != "n2" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s has a record without the flag: %v", n.ID, err)
			}
			nodes[0] = c.Open(n.ID)
		}
		for _, n := range c.Nodes() {
			c.AwaitReady(n)
		}
		c.AwaitSame()
		if err := c.Node("n1").Snapshot(); err != nil {
			t.Fatal(err)
		}
		at := c.Node("n1").State()
		c.Write(register("web", "b", time.Hour))
		c.AwaitSame()
		killAll(c)
		n = c.Open("n1", staleOnStart)
		awaitStale(t, c, n)
		if s := n.State(); s.Digest() != at.Digest() {
			t.Errorf("at index %d, the snapshot has %d", s.Index(), at.Index())
		}
	})
}

// A damaged record is none; a record is of no use without the flag.
func TestStaleStartNeedsFlagAndRecord(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind)
		c.Three(staleOnStart)
		c.Write(register("web", "a", time.Hour))
		c.AwaitSame()
		killAll(c)
		n := c.Open("n1")
		notServing(t, n)
		n.Kill()
		record := filepath.Join(n.Dir, raftlog.CommitFile)
		flip(t, record, 0)
		flip(t, record, 512)
		n = c.Open("n1", staleOnStart)
		notServing(t, n)
		c.Open("n2", staleOnStart)
		c.AwaitReady(n)
	})
}

// uncertain is Peers whose leader answers nothing about what is committed.
type uncertain struct{ store.Peers }

func (uncertain) ReadIndex(context.Context, store.Target) (uint64, error) {
	return 0, store.ErrNotLeader
}

// A node that knows a leader waits until it has caught up, as without the flag.
func TestStaleStartWaitsForALeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, staleOnStart)
		c.Three()
		c.AwaitSame()
		n := c.Node(others(c, c.Leader())[0])
		n.Kill()
		n = c.Open(n.ID, func(cfg *store.Config) { cfg.Peers = uncertain{c.Peers(cfg.BindAdvertise)} })
		notServing(t, n)
	})
}

// Tokens that were turned on after the last entry that is known to be committed: without
// them the node would answer to everybody.
func TestStaleStartBeforeTokens(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind)
		nodes := c.Three()
		c.AwaitSame()
		for _, n := range nodes {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		c.Write(createToken("root", fsm.Discover|fsm.Register|fsm.Operate|fsm.Admin))
		c.AwaitSame()
		killAll(c)
		n := c.Open("n1", staleOnStart)
		notServing(t, n)
	})
}
