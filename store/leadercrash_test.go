package store_test

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// After the leader's process ended, a follower is elected long before raft's timeout,
// even if the first one to campaign cannot win.
func TestCrashedLeaderIsReplacedAtOnce(t *testing.T) {
	for name, behind := range map[string]bool{"by the first to campaign": false, "by the second": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = 10 * time.Second
				c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = timeout })
				c.Three()
				old := c.Leader()
				if old.ID != "n3" { // so that n1 campaigns first and n2 second
					if err := old.Transfer(c.Context(), "n3"); err != nil {
						t.Fatal(err)
					}
					old = c.LeaderOf("n3")
				}
				c.Write(register("web", "a", time.Minute))
				c.AwaitSame()
				if behind { // n1 may lack an entry, and then loses its election
					c.Net.Cut("n3:7370", "n1:7370")
					if _, err := old.Write(c.Context(), register("web", "b", time.Minute)); err != nil {
						t.Fatal(err)
					}
				}
				died := time.Now()
				old.Kill()
				c.Net.Heal()
				c.Leader()
				if took := time.Since(died); took > timeout/2 {
					t.Errorf("it took %s", took)
				}
				c.AwaitSame()
			})
		})
	}
}

// newerTerm reports the terms of the others as one higher.
type newerTerm struct {
	store.Peers
	active *atomic.Bool
}

func (p newerTerm) Term(ctx context.Context, node store.Target) (uint64, error) {
	term, err := p.Peers.Term(ctx, node)
	if p.active.Load() {
		term++
	}
	return term, err
}

// A follower does not campaign against a leader that was elected meanwhile.
func TestNoCampaignAgainstANewerTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		active := &atomic.Bool{}
		c := storetest.New(t)
		c.Together(3, func(cfg *store.Config) {
			cfg.ElectionTimeout = timeout
			if cfg.ID == "n1" {
				cfg.Peers = newerTerm{c.Peers(cfg.BindAdvertise), active}
			}
		})
		old := c.Leader()
		if old.ID != "n3" { // so that n1 campaigns first
			if err := old.Transfer(c.Context(), "n3"); err != nil {
				t.Fatal(err)
			}
			old = c.LeaderOf("n3")
		}
		c.AwaitSame()
		active.Store(true)
		died := time.Now()
		old.Kill()
		if now := c.Leader(); now.ID != "n2" || time.Since(died) > timeout/2 {
			t.Errorf("%s leads after %v", now.ID, time.Since(died))
		}
	})
}

// Connections that end do not depose a leader that listens.
func TestLeaderThatListensStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		for _, n := range c.Nodes() {
			for range 20 {
				s := newUnknownPeer(t, c, n)
				if _, err := s.heartbeat(0); err != nil {
					t.Fatal(err)
				}
				s.CloseStreams()
				synctest.Wait()
			}
		}
		<-time.After(5 * storetest.ElectionTimeout)
		if now := c.Leader(); now.ID != leader.ID || now.Term() != term {
			t.Errorf("%s leads in term %d, before %s in term %d", now.ID, now.Term(), leader.ID, term)
		}
	})
}

// Refused connections do not depose a leader whose heartbeats arrive.
func TestLeaderWithHeartbeatsStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Pointer[string]
		var c *storetest.Cluster
		c = storetest.New(t, func(cfg *store.Config) {
			bind := cfg.BindAdvertise
			cfg.DialRaft = func(ctx context.Context, addr string) (net.Conn, error) {
				if to := refused.Load(); to != nil && *to == addr {
					return nil, syscall.ECONNREFUSED
				}
				return c.Net.DialContext(ctx, bind, addr)
			}
		})
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		refused.Store(&leader.Bind)
		for _, n := range c.Nodes() {
			s := newUnknownPeer(t, c, n)
			if _, err := s.heartbeat(0); err != nil {
				t.Fatal(err)
			}
			s.CloseStreams()
		}
		<-time.After(5 * storetest.ElectionTimeout)
		if now := c.Leader(); now.ID != leader.ID || now.Term() != term {
			t.Errorf("%s leads in term %d, before %s in term %d", now.ID, now.Term(), leader.ID, term)
		}
	})
}

// An unreachable leader is not taken for crashed: raft's timeout decides.
func TestTimeoutIsNoCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = 10 * time.Second })
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		c.Net.Isolate(leader.Bind)
		for _, n := range c.Nodes() {
			if n.ID != leader.ID {
				s := newUnknownPeer(t, c, n)
				if _, err := s.heartbeat(0); err != nil {
					t.Fatal(err)
				}
				s.CloseStreams()
			}
		}
		<-time.After(5 * time.Second)
		c.Net.Heal()
		if now := c.Leader(); now.ID != leader.ID || now.Term() != term {
			t.Errorf("%s leads in term %d, before %s in term %d", now.ID, now.Term(), leader.ID, term)
		}
	})
}

// The only voter leads without an election timeout, when its cluster is formed and when
// it starts again.
func TestOnlyVoterLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = timeout })
		for range 2 {
			began := time.Now()
			n := c.Start("n1", store.Formation{})
			c.AwaitReady(n)
			if took := time.Since(began); took > timeout/2 {
				t.Errorf("it took %s", took)
			}
			n.Stop()
		}
	})
}
