package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/routing"
)

const (
	rollMembers = 10
	rollKeys    = 100_000
)

// roll watches what a rolling restart does to keys, by every state of the ring
// that a router is shown.
type roll struct {
	keys   []string
	first  []string // owners before
	notice chan uint64

	mu         sync.Mutex // guards the rest
	restarting string
	changes    int // states of the ring
	moves      int // of a key to another owner
	stayers    int // of those, from and to members that were not being restarted
	away       int // a key is served by another member than before
	foreign    int // of those, keys that neither left nor came back to the restarting member
}

func watchRoll(ring *sdk.Ring) *roll {
	r := &roll{keys: make([]string, rollKeys), notice: make(chan uint64, 1000)}
	for i := range r.keys {
		r.keys[i] = userName(i)
	}
	r.first = owners(ring.View(), r.keys)
	ring.OnChange(r.on)
	return r
}

// owners returns the owner of each key.
func owners(v *sdk.View, keys []string) []string {
	out := make([]string, len(keys))
	for i, key := range keys {
		if m, err := v.Match(key); err == nil {
			out[i] = m.ID
		}
	}
	return out
}

// serving returns who is asked for each key.
func serving(v *sdk.View, keys []string) []string {
	out := owners(v, keys)
	for i, key := range keys {
		if f := v.Ring().Fallback(key); f >= 0 {
			out[i] = v.Members()[f].ID
		}
	}
	return out
}

func (r *roll) on(c sdk.RingChange) {
	before, after := owners(c.Before, r.keys), owners(c.After, r.keys)
	from, to := serving(c.Before, r.keys), serving(c.After, r.keys)
	r.mu.Lock()
	r.changes++
	for i := range r.keys {
		if before[i] != after[i] {
			r.moves++
			if before[i] != r.restarting && after[i] != r.restarting {
				r.stayers++
			}
		}
		if from[i] != to[i] {
			r.away++
			if from[i] != r.restarting && to[i] != r.restarting {
				r.foreign++
			}
		}
	}
	r.mu.Unlock()
	r.notice <- c.To
}

func (r *roll) begins(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarting = id
}

// forGood counts the keys that have another owner than at first.
func (r *roll) forGood(v *sdk.View) (n int) {
	for i, owner := range owners(v, r.keys) {
		if owner != r.first[i] {
			n++
		}
	}
	return n
}

// rolled is what one rolling restart came to.
type rolled struct {
	changes, moves, stayers, away, foreign, forGood int
	requests, failed                                int
	took                                            time.Duration
}

func (r rolled) String() string {
	return fmt.Sprintf("%d changes of the ring; %d times a key had another owner, %d of them between members that stayed; for good %d; "+
		"%d times a key was served by another, %d of them not the restarting member's; %d requests, %d failed; %v",
		r.changes, r.moves, r.stayers, r.forGood, r.away, r.foreign, r.requests, r.failed, ms(r.took))
}

// rollService is a web service that restarts.
type rollService struct {
	group, id, addr, registries string
	hold                        time.Duration
	*process
}

func (s *rollService) start(t *testing.T) {
	args := []string{"-registries", s.registries, "-group", s.group, "-id", s.id, "-addr", s.addr}
	if s.hold > 0 {
		args = append(args, "-hold", s.hold.String())
	}
	s.process = start(t, command{name: s.id, program: "webservice", args: args})
	s.says("INFO registered", patience)
}

// rollGroup restarts the ten services of a group, one after the other.
func rollGroup(t *testing.T, c *cluster, group string, hold time.Duration) rolled {
	client := dial(t, c.addrs())
	// A bound makes the caps of all depend on who is there: a member that
	// leaves and comes back then moves keys of others as well.
	if _, err := client.SetGroup(t.Context(), sdk.SetGroup{Group: group, VirtualNodes: 256, Bound: 1050}); err != nil {
		t.Fatal(err)
	}
	services := make([]*rollService, rollMembers)
	for i, port := range freePorts(t, rollMembers) {
		services[i] = &rollService{group: group, id: fmt.Sprint(group, i), addr: local(port), registries: c.addrs(), hold: hold}
		services[i].start(t)
	}
	ring, err := client.Ring(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	settle := func(what string) {
		t.Helper()
		eventually(t, patience, what, func() error {
			n := 0
			for _, m := range ring.Members() {
				if m.State == sdk.StateActive {
					n++
				}
			}
			if n != rollMembers {
				return fmt.Errorf("%d members", n)
			}
			return nil
		})
	}
	settle("all services")
	began := time.Now()
	r := watchRoll(ring)
	asked := startRequests(t, ring)
	for _, s := range services {
		r.begins(s.id)
		s.stop()
		s.start(t)
		settle(s.id + " back")
		for at := uint64(0); at < ring.Revision(); { // the watcher has seen it
			at = <-r.notice
		}
	}
	requests, failed := asked()
	r.mu.Lock()
	defer r.mu.Unlock()
	return rolled{
		changes: r.changes, moves: r.moves, stayers: r.stayers, away: r.away, foreign: r.foreign,
		forGood: r.forGood(ring.View()), requests: requests, failed: failed, took: time.Since(began),
	}
}

// startRequests sends requests through the ring, about two hundred a second,
// without a fallback of the router's own; the returned function ends it.
func startRequests(t *testing.T, ring *sdk.Ring) (end func() (requests, failed int)) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &routing.Transport{Ring: ring, Key: routing.KeyFromHeader("X-User-ID"), Base: base}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	requests, failed := 0, 0
	done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			req, _ := http.NewRequest(http.MethodPost, "http://owner/", nil)
			req.Header.Set("X-User-ID", userName(requests))
			requests++
			resp, err := client.Do(req)
			if err != nil || resp.StatusCode != http.StatusOK {
				if failed++; failed <= 3 {
					t.Logf("request %d: %v", requests, err)
				}
			}
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body) // an answer is an answer
				_ = resp.Body.Close()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() (int, int) {
		cancel()
		done.Wait()
		base.CloseIdleConnections()
		return requests, failed
	}
}

// Ten services restart, one after the other, while a router sends requests. Held,
// no key has another owner at any moment: each key of the member that is away is
// served by its fallback, and comes back. Without a hold, beside it, keys change
// their owner at every departure and return, also between members that stayed,
// since the group has a bound.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	c := startCluster(t, 3)
	held := rollGroup(t, c, "held", 30*time.Second)
	t.Logf("with a hold of 30 s:  %v", held)
	control := rollGroup(t, c, "control", 0)
	t.Logf("without a hold:       %v", control)

	if held.moves != 0 || held.forGood != 0 {
		t.Errorf("held: %d moves, %d for good", held.moves, held.forGood)
	}
	// Away and back: each key once.
	if held.away != 2*rollKeys || held.foreign != 0 {
		t.Errorf("held: keys were served by another %d times, want %d; %d of them foreign", held.away, 2*rollKeys, held.foreign)
	}
	if held.failed != 0 {
		t.Errorf("held: %d of %d requests failed", held.failed, held.requests)
	}
	if control.moves < rollKeys || control.stayers == 0 {
		t.Errorf("without a hold: %d moves, %d between members that stayed: the test shows nothing", control.moves, control.stayers)
	}
}
