package store_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// askedTerms counts the questions for terms.
type askedTerms struct {
	mu    sync.Mutex // guards nodes
	nodes []string
}

type countedPeers struct {
	store.Peers
	asked *askedTerms
}

func (p countedPeers) Term(ctx context.Context, node store.Target) (uint64, error) {
	p.asked.mu.Lock()
	p.asked.nodes = append(p.asked.nodes, node.ID)
	p.asked.mu.Unlock()
	return p.Peers.Term(ctx, node)
}

// since returns who was asked since the last call.
func (a *askedTerms) since() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.nodes
	a.nodes = nil
	return out
}

// A leadership check asks no more voters than it needs, and those first that agreed
// before. One that is slow, away or of another opinion delays it little, and once.
func TestLeadershipCheckAsksAQuorum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 10 * time.Second
		var asked askedTerms
		var c *storetest.Cluster
		c = storetest.New(t, func(cfg *store.Config) {
			cfg.ElectionTimeout = timeout
			cfg.Peers = countedPeers{c.Peers(storetest.BindOf(cfg.ID)), &asked}
		})
		c.Together(3)
		c.AwaitKnown()
		leader := c.Leader()
		// confirm returns who was asked, once each: followers' checks come in between.
		confirm := func() (voters []string, took time.Duration) {
			t.Helper()
			asked.since()
			began := time.Now()
			if _, err := leader.ReadIndex(c.Context()); err != nil {
				t.Fatal(err)
			}
			took = time.Since(began)
			return slices.Compact(slices.Sorted(slices.Values(asked.since()))), took
		}
		first, _ := confirm()
		for range 5 {
			if got, took := confirm(); len(got) != 1 || got[0] != first[0] || took > 0 {
				t.Errorf("asked %v in %v, want %v at once", got, took, first)
			}
		}

		slow := c.Node(first[0])
		c.Net.Isolate(slow.Bind)
		if got, took := confirm(); got[0] == slow.ID && len(got) == 1 || took > timeout/50 {
			t.Errorf("while %s is slow: asked %v in %v, want the other too, in %v", slow.ID, got, took, timeout/50)
		}
		second, took := confirm()
		if len(second) != 1 || second[0] == slow.ID || took > 0 {
			t.Fatalf("after %s was slow: asked %v in %v", slow.ID, second, took)
		}

		c.Net.Heal()
		c.Node(second[0]).Kill()
		if got, took := confirm(); !slices.Contains(got, slow.ID) || took > 0 {
			t.Errorf("when %s is down: asked %v in %v", second[0], got, took)
		}
		c.Net.Isolate(slow.Bind)
		if _, err := leader.ReadIndex(c.Context()); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("without a majority: %v", err)
		}
	})
}

// A leadership check includes the leader's own term, and that it still leads: it learns
// of a newer term before its leadership ends.
func TestLeadershipCheckAsksTheLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Start("n1", store.Formation{})
		alone := c.Leader()
		if err := alone.ConfirmTerm(c.Context(), alone.Term()); err != nil {
			t.Error(err)
		}
		if err := alone.ConfirmTerm(c.Context(), alone.Term()-1); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("an earlier term: %v, want ErrNotLeader", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		follower := c.Node(others(c, c.Leader())[0])
		if err := follower.ConfirmTerm(c.Context(), follower.Term()); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("a follower: %v, want ErrNotLeader", err)
		}
	})
}

// Close waits for the calls of a leadership check and for a request to the leader, also
// if they end late.
func TestCloseWaitsForConfirmations(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late, release := &atomic.Bool{}, make(chan struct{})
				var c *storetest.Cluster
				c = storetest.New(t, func(cfg *store.Config) {
					cfg.Peers = latePeers{c.Peers(storetest.BindOf(cfg.ID)), late, release}
				})
				c.Three()
				n := c.Leader()
				follower := others(c, n)
				if role == "leader" {
					for _, id := range follower { // one of them is asked first
						c.Net.Isolate(storetest.BindOf(id))
						if _, err := n.ReadIndex(c.Context()); err != nil {
							t.Fatal(err)
						}
						c.Net.Heal()
					}
				} else {
					n = c.Node(follower[0])
					c.Net.Isolate(n.Bind)
					go func() { _, _ = n.LinearizableIndex(c.Context()) }() // fails
					synctest.Wait()
				}
				closed := make(chan error, 1)
				go func() { closed <- n.Close() }()
				store.After(time.Second)
				if len(closed) > 0 || !late.Load() {
					t.Errorf("closed %v, calls that end late %v: want none and some", len(closed) > 0, late.Load())
				}
				close(release)
				if err := <-closed; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// latePeers return from a call that was cancelled only when they may.
type latePeers struct {
	store.Peers
	late    *atomic.Bool // whether there was one
	release <-chan struct{}
}

func (p latePeers) Term(ctx context.Context, node store.Target) (uint64, error) {
	term, err := p.Peers.Term(ctx, node)
	p.await(ctx)
	return term, err
}

func (p latePeers) ReadIndex(ctx context.Context, leader store.Target) (uint64, error) {
	index, err := p.Peers.ReadIndex(ctx, leader)
	p.await(ctx)
	return index, err
}

func (p latePeers) await(ctx context.Context) {
	if ctx.Err() != nil {
		p.late.Store(true)
		<-p.release
	}
}
