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

// A leader whose process ended is replaced long before raft would miss it, also
// when the first in the order cannot be elected.
func TestEndedLeaderIsReplacedAtOnce(t *testing.T) {
	for name, behind := range map[string]bool{"by the first": false, "by the next": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = 10 * time.Second
				c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = timeout })
				c.Three()
				old := c.Leader()
				if old.ID != "n3" { // so that n1 is the first and n2 the next
					if err := old.Transfer(c.Context(), "n3"); err != nil {
						t.Fatal(err)
					}
					old = c.LeaderOf("n3")
				}
				c.Write(register("web", "a", time.Minute))
				c.AwaitSame()
				if behind { // n1 may miss an entry, and then loses its election
					c.Net.Cut("n3:7370", "n1:7370")
					c.Write(register("web", "b", time.Minute))
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

// newerTerm makes a node believe that the others are a term ahead.
type newerTerm struct {
	store.Peers
	lie *atomic.Bool
}

func (p newerTerm) Term(ctx context.Context, node store.Target) (uint64, error) {
	term, err := p.Peers.Term(ctx, node)
	if p.lie.Load() {
		term++
	}
	return term, err
}

// Nobody stands against a leader that was elected meanwhile.
func TestNobodyStandsAgainstANewerTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		lie := &atomic.Bool{}
		c := storetest.New(t)
		c.Together(3, func(cfg *store.Config) {
			cfg.ElectionTimeout = timeout
			if cfg.ID == "n1" {
				cfg.Peers = newerTerm{c.Peers(cfg.BindAdvertise), lie}
			}
		})
		old := c.Leader()
		if old.ID != "n3" { // so that n1 is the first to stand
			if err := old.Transfer(c.Context(), "n3"); err != nil {
				t.Fatal(err)
			}
			old = c.LeaderOf("n3")
		}
		c.AwaitSame()
		lie.Store(true)
		died := time.Now()
		old.Kill()
		if now := c.Leader(); now.ID != "n2" || time.Since(died) > timeout/2 {
			t.Errorf("%s leads after %v", now.ID, time.Since(died))
		}
	})
}

// Connections that end are no reason to leave a leader that is there.
func TestLeaderThatListensStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		for _, n := range c.Nodes() {
			for range 20 {
				s := newStranger(t, c, n)
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

// Nor does it help to be refused at the door of a leader that is heard of.
func TestLeaderThatIsHeardStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused atomic.Pointer[string]
		var c *storetest.Cluster
		c = storetest.New(t, func(cfg *store.Config) {
			bind := cfg.BindAdvertise
			cfg.DialRaft = func(addr string, timeout time.Duration) (net.Conn, error) {
				if to := refused.Load(); to != nil && *to == addr {
					return nil, syscall.ECONNREFUSED
				}
				return c.Net.Dial(bind, addr, timeout)
			}
		})
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		refused.Store(&leader.Bind)
		for _, n := range c.Nodes() {
			s := newStranger(t, c, n)
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

// Nor is a leader that cannot be reached: raft's own timeout decides.
func TestSilenceIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, func(cfg *store.Config) { cfg.ElectionTimeout = 10 * time.Second })
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		c.Net.Isolate(leader.Bind)
		for _, n := range c.Nodes() {
			if n.ID != leader.ID {
				s := newStranger(t, c, n)
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
