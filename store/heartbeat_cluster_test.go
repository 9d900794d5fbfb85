package store_test

import (
	"bytes"
	"context"
	"flag"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// stalledDisk delays each write of the log.
type stalledDisk struct {
	raft.LogStore
	stall   atomic.Int64 // nanoseconds
	waiting atomic.Int32 // delayed writes
}

func (d *stalledDisk) StoreLogs(logs []*raft.Log) error {
	if stall := time.Duration(d.stall.Load()); stall > 0 {
		d.waiting.Add(1)
		<-time.After(stall)
		d.waiting.Add(-1)
	}
	return d.LogStore.StoreLogs(logs)
}

// disks are the disks of the nodes, by id.
type disks map[string]*stalledDisk

func newDisks() disks { return disks{"n1": {}, "n2": {}, "n3": {}} }

func (d disks) edit(cfg *store.Config) {
	disk := d[cfg.ID]
	store.WrapLog(cfg, func(l raft.LogStore) raft.LogStore {
		disk.LogStore = l
		return disk
	})
}

func (d disks) stall(each time.Duration) {
	for _, disk := range d {
		disk.stall.Store(int64(each))
	}
}

// unknownPeer sends raft messages to a node of a cluster that it is no member of.
type unknownPeer struct {
	*raft.NetworkTransport
	to *storetest.Node
}

func newUnknownPeer(t *testing.T, c *storetest.Cluster, to *storetest.Node) *unknownPeer {
	s := &unknownPeer{store.Caller(to.ClusterID(), func(ctx context.Context, addr string) (net.Conn, error) {
		return c.Net.DialContext(ctx, "n9:7370", addr)
	}), to}
	t.Cleanup(func() {
		_ = s.Close()
		s.CloseStreams()
	})
	return s
}

func (s *unknownPeer) heartbeat(term uint64) (resp raft.AppendEntriesResponse, err error) {
	err = s.AppendEntries(raft.ServerID(s.to.ID), raft.ServerAddress(s.to.Bind), &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n9"), Addr: []byte("n9:7370")},
		Term:      term,
	}, &resp)
	return resp, err
}

// A newer leader's heartbeat during a write of the log waits for the write: until then
// the term does not change.
func TestNewerHeartbeatDuringAWrite(t *testing.T) {
	for name, rises := range map[string]bool{"own": false, "channel": false, "unguarded": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disks := newDisks()
				c := storetest.New(t, disks.edit, store.HeartbeatHandlers[name])
				c.Three()
				leader := c.Leader()
				disk := disks[leader.ID]
				disk.stall.Store(int64(5 * time.Second))
				var all sync.WaitGroup
				defer all.Wait()
				ctx, cancel := context.WithCancel(c.Context())
				defer cancel() // raft may never answer an entry of a deposed leader
				all.Go(func() { _, _ = leader.Write(ctx, setGroup("web", 64)) })
				c.Await("the write", func() bool { return disk.waiting.Load() == 1 })
				disk.stall.Store(0)
				term := leader.Term()
				s := newUnknownPeer(t, c, leader)
				all.Go(func() {
					if _, err := s.heartbeat(term + 1); err != nil {
						t.Errorf("the heartbeat: %v", err)
					}
				})
				synctest.Wait()
				if disk.waiting.Load() != 1 {
					t.Fatal("the write is over: the test shows nothing")
				}
				if rose := leader.Term() != term; rose != rises {
					t.Errorf("the term went from %d to %d during the write", term, leader.Term())
				}
			})
		})
	}
}

// heldTerms blocks the write of one term until free is closed.
type heldTerms struct {
	raft.StableStore
	hold atomic.Uint64 // term
	held chan struct{} // closed when it blocks
	free chan struct{}
}

func (h *heldTerms) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, []byte("CurrentTerm")) && value > 0 && value == h.hold.Load() {
		h.hold.Store(0)
		close(h.held)
		<-h.free
	}
	return h.StableStore.SetUint64(key, value)
}

// Why raft's handler is not used even for heartbeats of the current term: a heartbeat
// that passed the check on a follower can lower the term of a node that campaigned
// meanwhile. When raft fixes this, this test fails.
func TestGuardedHeartbeatLowersTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passed, candidate := make(chan struct{}), make(chan struct{})
		terms := &heldTerms{held: make(chan struct{}), free: make(chan struct{})}
		var armed atomic.Bool
		c := storetest.New(t, func(cfg *store.Config) {
			if cfg.ID != "n1" {
				return
			}
			store.WrapStable(cfg, func(s raft.StableStore) raft.StableStore {
				terms.StableStore = s
				return terms
			})
			store.GuardedHeartbeats(cfg, func() {
				if armed.CompareAndSwap(true, false) {
					close(passed)
					<-candidate
				}
			})
		})
		n1 := c.Three()[0]
		if c.Leader().ID == n1.ID {
			if err := n1.Transfer(c.Context(), "n2"); err != nil {
				t.Fatal(err)
			}
		}
		old := c.LeaderOf("n2", "n3")
		term := old.Term()
		armed.Store(true)
		<-passed               // a heartbeat of the term is in the handler
		c.Net.Isolate(n1.Bind) // its campaign fails
		old.Kill()
		terms.hold.Store(term)
		c.Await("n1 to campaign", func() bool { return n1.Status().Role == "candidate" })
		close(candidate)
		<-terms.held // the handler has compared with the old term and is about to write it
		c.Net.Join(n1.Bind)
		c.Await("n1's new term", func() bool { return n1.Term() > term })
		close(terms.free)
		synctest.Wait()
		if n1.Term() != term {
			t.Errorf("the term is %d: raft's handler has become safe", n1.Term())
		}
	})
}

// stalledRun writes for 20 s of virtual time to a cluster with stalled disks, and counts
// the elections and the acknowledged writes.
func stalledRun(t *testing.T, handler string, writers int, stall, timeout time.Duration) (terms uint64, acked int64) {
	synctest.Test(t, func(t *testing.T) {
		disks := newDisks()
		c := storetest.New(t, disks.edit, store.HeartbeatHandlers[handler], func(cfg *store.Config) {
			cfg.ElectionTimeout = timeout
			cfg.Logger = nil
		})
		c.Three()
		before := c.Leader().Term()
		disks.stall(stall)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var all sync.WaitGroup
		var count atomic.Int64
		for w := range writers {
			all.Go(func() {
				for at := w; ctx.Err() == nil; {
					if _, err := c.Nodes()[at%3].Write(ctx, setGroup("web", 64)); err == nil {
						count.Add(1)
						continue
					}
					at++
					<-time.After(10 * time.Millisecond)
				}
			})
		}
		all.Wait()
		disks.stall(0)
		terms, acked = c.Leader().Term()-before, count.Load()
		for _, n := range c.Nodes() {
			drain(t, c, n)
		}
	})
	return terms, acked
}

// drain makes a node lead and commit a write, and with it all that it had queued when it
// lost leadership: raft never answers entries that are queued when it stops, and their
// waiters would leak.
func drain(t *testing.T, c *storetest.Cluster, n *storetest.Node) {
	t.Helper()
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := n.Write(ctx, setGroup("web", 64))
		if err != nil {
			_ = c.Leader().Transfer(ctx, n.ID) // tried again
		}
		cancel()
		if err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatalf("%s never led", n.ID)
}

// Writes that take longer than the election timeout slow the cluster down and cause no
// election.
func TestStalledDisksCauseNoElection(t *testing.T) {
	const stall, timeout = 600 * time.Millisecond, 500 * time.Millisecond
	if terms, acked := stalledRun(t, "own", 8, stall, timeout); terms != 0 || acked == 0 {
		t.Errorf("%d elections, %d writes", terms, acked)
	}
	if terms, _ := stalledRun(t, "channel", 8, stall, timeout); terms == 0 {
		t.Error("no election without the fast path either: the test shows nothing")
	}
}

var measure = flag.Bool("measure", false, "print the figures that the settings are based on")

// The table in ARCHITECTURE.md.
func TestMeasureHeartbeatHandlers(t *testing.T) {
	if !*measure {
		t.Skip("takes -measure")
	}
	for _, timeout := range []time.Duration{300 * time.Millisecond, 500 * time.Millisecond, time.Second} {
		for _, stall := range []time.Duration{200 * time.Millisecond, 600 * time.Millisecond} {
			for _, handler := range []string{"channel", "guarded", "unguarded", "own"} {
				terms, acked := stalledRun(t, handler, 64, stall, timeout)
				t.Logf("timeout %5s, stall %5s, %9s: %2d elections, %5d writes", timeout, stall, handler, terms, acked)
			}
		}
	}
}

// risingTerms counts terms that are lower than the previous one.
type risingTerms struct {
	raft.StableStore
	last  atomic.Uint64
	falls *atomic.Int32
}

func (r *risingTerms) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, []byte("CurrentTerm")) && r.last.Swap(value) > value {
		r.falls.Add(1)
	}
	return r.StableStore.SetUint64(key, value)
}

// No node's term ever falls during concurrent elections, stalls, transfers and writes.
// For the race detector, too.
func TestTermsOnlyRise(t *testing.T) {
	t.Parallel()
	r := seed.Rand(t)
	disks := newDisks()
	var falls atomic.Int32
	c := storetest.New(t, disks.edit, func(cfg *store.Config) {
		cfg.ElectionTimeout = 50 * time.Millisecond
		store.WrapStable(cfg, func(s raft.StableStore) raft.StableStore { return &risingTerms{StableStore: s, falls: &falls} })
	})
	c.Three()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for at := w; ctx.Err() == nil; {
				if _, err := c.Nodes()[at%3].Write(ctx, setGroup("web", 64)); err != nil {
					at++
					<-time.After(time.Millisecond)
				}
			}
		})
	}
	rounds := 20
	if !storetest.Long() {
		rounds = 5
	}
	for range rounds {
		leader := c.Leader()
		switch r.IntN(3) {
		case 0:
			_ = leader.Transfer(c.Context(), "") // best effort
		case 1:
			c.Net.Isolate(leader.Bind)
			c.LeaderOf(others(c, leader)...)
			c.Net.Heal()
		case 2:
			disks[leader.ID].stall.Store(int64(100 * time.Millisecond))
			c.Leader()
			disks[leader.ID].stall.Store(0)
		}
	}
	cancel()
	all.Wait()
	c.AwaitSame()
	if n := falls.Load(); n != 0 {
		t.Errorf("a term fell %d times", n)
	}
}

// With pre-vote a node that was cut off keeps its term and deposes no leader when it
// returns. raft silently omits the pre-vote if the transport does not support it.
func TestCutOffNodeKeepsItsTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader, away := c.Leader(), follower(c)
		term := leader.Term()
		c.Net.Isolate(away.Bind)
		<-time.After(20 * storetest.ElectionTimeout)
		if away.Term() != term {
			t.Errorf("alone, its term went from %d to %d", term, away.Term())
		}
		c.Net.Heal()
		c.AwaitSame()
		if again := c.Leader(); again.ID != leader.ID || again.Term() != term {
			t.Errorf("%s leads in term %d, before %s in term %d", again.ID, again.Term(), leader.ID, term)
		}
	})
}
