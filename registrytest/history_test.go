package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/storetest"
)

// model is what a group must be at every revision: its one writer keeps it.
type model struct {
	t       *testing.T
	rnd     *rand.Rand
	c       *lastingCluster
	apis    []registrypb.RegistryClient // by node; a stopped one is nil
	members map[string]ring.Member
	at      map[uint64]string // revision → members in words
	prints  map[uint64]uint64 // revision → the ring's fingerprint
	last    uint64
}

func words(members map[string]ring.Member) string {
	var s strings.Builder
	for _, id := range slices.Sorted(maps.Keys(members)) {
		m := members[id]
		fmt.Fprintf(&s, "%s×%d/%d ", m.ID, m.Weight, m.State)
	}
	return s.String()
}

func (m *model) record(revision uint64) {
	m.t.Helper()
	if revision == m.last {
		return
	}
	r, err := ring.New(ring.DefaultParams(), slices.Collect(maps.Values(m.members)))
	if err != nil || revision < m.last {
		m.t.Fatalf("revision %d after %d: %v", revision, m.last, err)
	}
	m.at[revision], m.prints[revision], m.last = words(m.members), r.Fingerprint(), revision
}

// call tries at one node after the other until one succeeds.
func (m *model) call(f func(ctx context.Context, api registrypb.RegistryClient) error) {
	m.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for i := m.rnd.IntN(3); ; i++ {
		api := m.apis[i%3]
		if api == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
		err := f(ctx, api)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatal(err)
		}
	}
}

// change makes one random change, or none.
func (m *model) change() {
	m.t.Helper()
	id := fmt.Sprintf("m-%d", m.rnd.IntN(12))
	old, had := m.members[id]
	var revision uint64
	switch what := m.rnd.IntN(10); {
	case had && what < 4:
		m.call(func(ctx context.Context, api registrypb.RegistryClient) error {
			if _, err := api.Deregister(ctx, &registrypb.DeregisterRequest{Group: "web", Id: id}); err != nil {
				return err
			}
			r, err := api.Members(ctx, &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{Linearizable: true}})
			revision = r.GetReceipt().GetRevision()
			return err
		})
		delete(m.members, id)
	case had && what < 7:
		state, weight := ring.State(m.rnd.IntN(2)), uint32(1+m.rnd.IntN(3))
		m.call(func(ctx context.Context, api registrypb.RegistryClient) error {
			wire := registrypb.MemberState(state)
			u, err := api.UpdateMember(ctx, &registrypb.UpdateMemberRequest{Group: "web", Id: id, Weight: &weight, State: &wire})
			revision = u.GetRevision()
			return err
		})
		old.State, old.Weight = state, int(weight)
		m.members[id] = old
	default:
		next := ring.Member{ID: id, Weight: 1 + m.rnd.IntN(3)}
		req := &registrypb.RegisterRequest{
			Group: "web", Id: id, Addr: "10.0.0.1:80", Weight: uint32(next.Weight), Ttl: durationpb.New(time.Hour),
			Instance: fmt.Appendf(nil, "%016x", m.rnd.Uint64()),
		}
		m.call(func(ctx context.Context, api registrypb.RegistryClient) error {
			r, err := api.Register(ctx, req)
			revision = r.GetRevision()
			return err
		})
		m.members[id] = next
	}
	m.record(revision)
}

// built waits until every node has the newest ring, so that no two changes go
// into one.
func (m *model) built() {
	m.t.Helper()
	for _, api := range m.apis {
		ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
		_, err := api.Members(ctx, &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{MinIndex: m.last}})
		cancel()
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// historyWatcher follows the group over one stream after the other, and
// compares every event with the model.
type historyWatcher struct {
	m       *model
	name    string
	stream  grpc.ServerStreamingClient[registrypb.WatchEvent]
	cut     context.CancelFunc
	members map[string]ring.Member

	revision, fingerprint  uint64
	streams, deltas, whole int
}

// resume opens a stream to a node, from where the watcher is.
func (w *historyWatcher) resume() {
	w.m.t.Helper()
	w.close()
	w.m.call(func(_ context.Context, api registrypb.RegistryClient) error {
		ctx, cancel := context.WithCancel(w.m.t.Context())
		stream, err := api.Watch(ctx, &registrypb.WatchRequest{
			Target: &registrypb.WatchRequest_Group{Group: "web"}, Revision: w.revision, Fingerprint: w.fingerprint,
		})
		w.stream, w.cut = stream, cancel
		return err
	})
	w.streams++
}

func (w *historyWatcher) close() {
	if w.cut == nil {
		return
	}
	w.cut()
	for { // the stream is over before the test is
		if _, err := w.stream.Recv(); err != nil {
			break
		}
	}
	w.cut = nil
}

// follow takes events until the watcher is at a revision or beyond, over new
// streams where one breaks.
func (w *historyWatcher) follow(to uint64) {
	w.m.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for w.revision < to {
		if w.cut == nil {
			w.resume()
		}
		silent := time.AfterFunc(20*time.Second, w.cut)
		e, err := w.stream.Recv()
		silent.Stop()
		if err == nil {
			w.take(e)
			continue
		}
		w.cut()
		w.cut = nil
		if time.Now().After(deadline) {
			w.m.t.Fatalf("%s: at %d, should be at %d: %v", w.name, w.revision, to, err)
		}
	}
}

func (w *historyWatcher) take(e *registrypb.WatchEvent) {
	w.m.t.Helper()
	var put []*registrypb.Member
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		w.whole++
		w.members, put = map[string]ring.Member{}, e.Snapshot.Members
		w.revision, w.fingerprint = e.Snapshot.Revision, e.Snapshot.Fingerprint
	case *registrypb.WatchEvent_Delta:
		w.deltas++
		if e.Delta.From != w.revision {
			w.m.t.Fatalf("%s: a delta from %d at %d", w.name, e.Delta.From, w.revision)
		}
		put = e.Delta.Put
		for _, id := range e.Delta.Removed {
			delete(w.members, id)
		}
		w.revision, w.fingerprint = e.Delta.Revision, e.Delta.Fingerprint
	default:
		return
	}
	for _, p := range put {
		w.members[p.Id] = ring.Member{ID: p.Id, Weight: int(p.Weight), State: ring.State(p.State)}
	}
	if want, known := w.m.at[w.revision]; !known {
		w.m.t.Fatalf("%s: the group never was at revision %d", w.name, w.revision)
	} else if got := words(w.members); got != want || w.fingerprint != w.m.prints[w.revision] {
		w.m.t.Fatalf("%s: at revision %d\n%s%016x, want\n%s%016x", w.name, w.revision, got, w.fingerprint, want, w.m.prints[w.revision])
	}
}

// changesOf keeps the changes that a ring tells of.
type changesOf struct {
	mu  sync.Mutex // guards all
	all []sdk.RingChange
}

func (c *changesOf) add(ch sdk.RingChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, ch)
}

// check compares each ring with the model, and its moved ranges with what they
// must be: the keys whose owner is another one than before.
func (c *changesOf) check(m *model) {
	m.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.all {
		if want, known := m.prints[ch.To]; !known || ch.After.Fingerprint() != want || ch.Rebuilt {
			m.t.Fatalf("the ring of revision %d is %016x, want %016x, rebuilt %t", ch.To, ch.After.Fingerprint(), want, ch.Rebuilt)
		}
		before, after := ch.Before.Ring(), ch.After.Ring()
		hashes := []uint64{0, 1<<64 - 1}
		for range 200 {
			hashes = append(hashes, m.rnd.Uint64())
		}
		for _, r := range ch.Moved {
			hashes = append(hashes, r.Lo, r.Lo-1, r.Hi, r.Hi-1)
		}
		for _, h := range hashes {
			from, to := before.Member(before.OwnerOf(h)).ID, after.Member(after.OwnerOf(h)).ID
			i := slices.IndexFunc(ch.Moved, func(r ring.Range) bool { return r.Contains(h) })
			if (i >= 0) != (from != to) || i >= 0 && (ch.Moved[i].From != from || ch.Moved[i].To != to) {
				m.t.Fatalf("%d → %d: %x went from %q to %q, and range %d of %d says otherwise", ch.From, ch.To, h, from, to, i, len(ch.Moved))
			}
		}
	}
}

// TestRandomHistory: one writer changes a group at random, while watchers lag,
// are cut and go on at other nodes, nodes stop and come back, leadership moves,
// and the history that nodes remember is overrun. At every revision that anyone
// is shown, snapshot and deltas make the group that the writer made; the same
// for a ring, a watch and a watch of a prefix of the SDK; and the ranges that
// the ring says have moved are those that have.
func TestRandomHistory(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds, overrun := 300, 1200
	if !storetest.Long() {
		rounds, overrun = 120, 0
	}
	c := newLastingCluster(t)
	m := &model{
		t: t, rnd: rand.New(rand.NewPCG(seed, 0)), c: c, members: map[string]ring.Member{},
		at: map[uint64]string{}, prints: map[uint64]uint64{},
	}
	for _, n := range c.nodes {
		m.apis = append(m.apis, dialAPI(t, n.Addr()))
	}
	m.members["always"] = ring.Member{ID: "always", Weight: 1}
	m.call(func(ctx context.Context, api registrypb.RegistryClient) error {
		r, err := api.Register(ctx, &registrypb.RegisterRequest{Group: "web", Id: "always", Addr: "10.0.0.9:80", Ttl: durationpb.New(time.Hour), Instance: []byte("always")})
		if err == nil {
			m.record(r.Revision)
		}
		return err
	})
	client := c.dial()
	r, err := client.Ring(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	told := &changesOf{}
	r.OnChange(told.add)
	watch, err := client.Watch(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	prefix, err := client.WatchPrefix(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	var watchers []*historyWatcher
	for i := range 6 {
		w := &historyWatcher{m: m, name: fmt.Sprintf("watcher %d", i)}
		w.follow(m.last)
		watchers = append(watchers, w)
		t.Cleanup(w.close)
	}
	down := -1
	for range rounds {
		switch w := watchers[m.rnd.IntN(len(watchers))]; m.rnd.IntN(40) {
		case 0: // a node stops or comes back
			if down < 0 {
				down = m.rnd.IntN(3)
				m.apis[down] = nil
				c.stop(down)
			} else {
				c.start(down)
				waitReady(t, c.nodes...)
				m.apis[down], down = dialAPI(t, c.nodes[down].Addr()), -1
			}
		case 1:
			if down < 0 {
				if _, err := client.Transfer(t.Context(), ""); err != nil && !errors.Is(err, sdk.ErrOutcomeUnknown) {
					t.Logf("transfer: %v", err)
				}
			}
		case 2, 3, 4, 5:
			w.resume()
		case 6, 7, 8, 9, 10:
			w.follow(m.last)
		default:
			m.change()
		}
	}
	if down >= 0 {
		c.start(down)
		waitReady(t, c.nodes...)
		m.apis[down] = dialAPI(t, c.nodes[down].Addr())
	}
	for _, w := range watchers { // level, but cut off during the overrun
		w.follow(m.last)
		w.close()
	}
	told.check(m)
	whole := []int{watchers[0].whole, watchers[1].whole}
	for range overrun {
		m.change()
		m.built()
	}
	for _, w := range watchers {
		w.follow(m.last)
		t.Logf("%s: %d streams, %d deltas, %d snapshots", w.name, w.streams, w.deltas, w.whole)
	}
	for i, before := range whole {
		if overrun > 0 && watchers[i].whole == before {
			t.Errorf("the history was overrun, and %s was not started over", watchers[i].name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Wait(ctx, m.last); err != nil {
		t.Fatal(err)
	}
	told.check(m)
	for name, w := range map[string]*sdk.Watch[sdk.GroupEvent]{"watch": watch, "prefix": prefix} {
		if got := consume(ctx, t, w, m.last); got != m.at[m.last] {
			t.Errorf("%s: %s, want %s", name, got, m.at[m.last])
		}
	}
	if s := r.Stats(); s.Mismatches != 0 || s.Rebuilds != 0 {
		t.Errorf("%+v", s)
	} else {
		t.Logf("%d revisions, ring told of %d changes, %+v", len(m.at), len(told.all), s)
	}
}

// consume takes a watch's events up to a revision.
func consume(ctx context.Context, t *testing.T, w *sdk.Watch[sdk.GroupEvent], to uint64) string {
	t.Helper()
	members := map[string]ring.Member{}
	for {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.Reset {
			clear(members)
		}
		for _, m := range e.Put {
			members[m.ID] = ring.Member{ID: m.ID, Weight: m.Weight, State: ring.State(m.State)}
		}
		for _, id := range e.Removed {
			delete(members, id)
		}
		if e.Revision >= to {
			return words(members)
		}
	}
}
