package rpc

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/fsm/watch"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// watched is a machine with a hub.
type watched struct {
	t     *testing.T
	m     *fsm.Machine
	hub   *watch.Hub
	index uint64
}

func newWatched(t *testing.T) *watched {
	w := &watched{t: t, hub: watch.NewHub(fsm.New().State())}
	w.m = fsm.New(w.hub)
	t.Cleanup(w.hub.Close)
	return w
}

// apply applies commands together.
func (w *watched) apply(cmds ...*fsmpb.Command) {
	w.t.Helper()
	entries := make([]fsm.Entry, len(cmds))
	for i, cmd := range cmds {
		if err := fsm.Validate(cmd); err != nil {
			w.t.Fatal(err)
		}
		data, err := fsm.Encode(cmd)
		if err != nil {
			w.t.Fatal(err)
		}
		w.index++
		entries[i] = fsm.Entry{Index: w.index, Term: 1, Data: data}
	}
	for _, r := range w.m.Apply(entries) {
		if r.Err != nil {
			w.t.Fatal(r.Err)
		}
	}
}

func register(group, id, addr string, meta ...*fsmpb.Pair) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: group, Id: id, Addr: addr, Weight: 1, TtlMs: 10_000, Instance: []byte("i"), Meta: meta,
	}}}
}

func deregister(group, id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Deregister{Deregister: &fsmpb.Deregister{Group: group, Id: id}}}
}

// fill registers members with the most metadata.
func (w *watched) fill(group string, members int, at string) {
	value := strings.Repeat("x", fsm.MaxMetaBytes-1)
	for first := 0; first < members; first += 1024 {
		var cmds []*fsmpb.Command
		for i := first; i < min(first+1024, members); i++ {
			cmds = append(cmds, register(group, fmt.Sprintf("m-%05d", i), at, &fsmpb.Pair{Key: "k", Value: value}))
		}
		w.apply(cmds...)
	}
}

func (w *watched) watch(whole bool) *groupSource {
	return &groupSource{
		GroupWatch: w.hub.Group(watch.Known{Group: "web"}), counts: metrics.New().Watches,
		outbox: outbox{encoder: newEncoder("c", Limits{}.withDefaults()), single: whole},
	}
}

func decode(t *testing.T, f frame) *registrypb.WatchEvent {
	t.Helper()
	e := &registrypb.WatchEvent{}
	if err := proto.Unmarshal(f.data.Materialize(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

// heap is the heap in use after a collection, in bytes.
func heap() int {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A group of 74 MB is sent in pieces of 1 MiB at most, which watchers share. A blocked
// watcher holds one of them.
func TestSnapshotOfALargeGroup(t *testing.T) {
	const members = 9000
	w := newWatched(t)
	w.fill("web", members, "10.0.0.1:80")
	before := heap()
	a, b := w.watch(false), w.watch(false)
	var ids []string
	deltas := 0
	for i := 0; ; i++ {
		frames, wake, err := a.poll(nil)
		others, _, _ := b.poll(nil)
		if err != nil {
			t.Fatal(err)
		}
		if wake != nil {
			break
		}
		if len(frames) != 1 || len(others) != 1 || frames[0] != others[0] {
			t.Fatalf("%d and %d frames, which are not shared", len(frames), len(others))
		}
		if n := frames[0].data.Len(); n > MaxPiece {
			t.Errorf("a piece has %d bytes", n)
		}
		e := decode(t, frames[0])
		if e.GetDelta() != nil {
			deltas++
			continue
		}
		s := e.GetSnapshot()
		for _, m := range s.Members {
			ids = append(ids, m.Id)
		}
		if s.GetMore() != (len(ids) < members) || s.Revision != 9000 {
			t.Errorf("piece %d: revision %d, more %t, %d members so far", i, s.Revision, s.GetMore(), len(ids))
		}
		if _, level := a.Progress(); level == s.GetMore() {
			t.Errorf("piece %d: the watcher has everything: %t", i, level)
		}
		if i == 40 {
			if grew := heap() - before; grew > 4*MaxPiece {
				t.Errorf("in the middle, two watchers hold %d bytes", grew)
			}
			w.apply(register("web", "new", "10.0.0.1:80")) // it comes as a delta then
		}
	}
	if len(ids) != members || deltas != 1 {
		t.Fatalf("%d members, %d deltas", len(ids), deltas)
	}
	for i, id := range ids {
		if want := fmt.Sprintf("m-%05d", i); id != want {
			t.Fatalf("member %d is %q, want %q", i, id, want)
		}
	}
	runtime.KeepAlive(b)
}

// A large delta is sent in pieces, too.
func TestLargeDelta(t *testing.T) {
	w := newWatched(t)
	var cmds []*fsmpb.Command
	for i := range 5000 {
		cmds = append(cmds, register("web", fmt.Sprintf("%05d-%s", i, strings.Repeat("x", 240)), "10.0.0.1:80"))
	}
	w.apply(cmds...)
	src := w.watch(false)
	for wake := (<-chan struct{})(nil); wake == nil; {
		_, wake, _ = src.poll(nil)
	}
	cmds = nil
	for m := range w.m.State().Group("web").Members {
		cmds = append(cmds, deregister("web", m.ID))
	}
	for i := range 1000 {
		cmds = append(cmds, register("web", fmt.Sprintf("m-%05d", i), "10.0.0.2:80", &fsmpb.Pair{Key: "k", Value: strings.Repeat("y", fsm.MaxMetaBytes-1)}))
	}
	w.apply(cmds...)
	frames, _, err := src.poll(nil)
	if err != nil {
		t.Fatal(err)
	}
	put, removed := 0, 0
	for i, f := range frames {
		d := decode(t, f).GetDelta()
		if f.data.Len() > MaxPiece || d.GetMore() != (i < len(frames)-1) || d.From != 5000 || d.Revision != w.index {
			t.Errorf("piece %d of %d has %d bytes, from %d to %d, more %t", i, len(frames), f.data.Len(), d.From, d.Revision, d.GetMore())
		}
		put, removed = put+len(d.Put), removed+len(d.Removed)
	}
	if put != 1000 || removed != 5000 || len(frames) < 9 {
		t.Errorf("%d members and %d removed ids in %d pieces", put, removed, len(frames))
	}
}

// A watcher without pieces gets an event as one message, or an error that names the
// field.
func TestWatchWithoutPieces(t *testing.T) {
	w := newWatched(t)
	w.fill("web", 400, "10.0.0.1:80")
	frames, _, err := w.watch(true).poll(nil)
	if err != nil || len(frames) != 1 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	if s := decode(t, frames[0]).GetSnapshot(); len(s.Members) != 400 || s.GetMore() || s.ClusterId != "c" {
		t.Errorf("%d members, more %t, of cluster %q", len(s.Members), s.GetMore(), s.ClusterId)
	}
	src := w.watch(true)
	if _, _, err := src.poll(nil); err != nil {
		t.Fatal(err)
	}
	w.fill("web", 400, "10.0.0.2:80") // with the same instance: a refresh, which moves them
	frames, _, err = src.poll(nil)
	if err != nil || len(frames) != 1 || len(decode(t, frames[0]).GetDelta().GetPut()) != 400 {
		t.Errorf("a delta of %d frames, %v", len(frames), err)
	}
	w.fill("web", 600, "10.0.0.3:80")
	for name, src := range map[string]source{"snapshot": w.watch(true), "delta": src} {
		var field *fsm.FieldError
		if _, _, err := src.poll(nil); !errors.As(err, &field) || field.Field != "pieces" || !strings.Contains(field.Limit, "4194304 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The list of groups is sent in pieces.
func TestListOfManyGroups(t *testing.T) {
	w := newWatched(t)
	const groups = 20_000
	name := func(i int) string { return fmt.Sprintf("%05d-%s", i, strings.Repeat("g", fsm.MaxNameLength-6)) }
	for first := 0; first < groups; first += 1000 {
		var cmds []*fsmpb.Command
		for i := range 1000 {
			cmds = append(cmds, &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: name(first + i), VirtualNodes: 64}}})
		}
		w.apply(cmds...)
	}
	src := &groupsSource{GroupsWatch: w.hub.Groups(), encoder: newEncoder("c", Limits{}.withDefaults())}
	got := 0
	for more := true; more; {
		frames, _, err := src.poll(nil)
		if err != nil || len(frames) != 1 || frames[0].data.Len() > MaxPiece {
			t.Fatalf("%d frames, the first of %d bytes, %v", len(frames), frames[0].data.Len(), err)
		}
		l := decode(t, frames[0]).GetGroups()
		for _, g := range l.Groups {
			if g.Name != name(got) {
				t.Fatalf("group %d is %q", got, g.Name)
			}
			got++
		}
		more = l.GetMore()
		if _, level := src.Progress(); level == more {
			t.Errorf("after %d groups the watcher has everything: %t", got, level)
		}
	}
	if got != groups {
		t.Errorf("%d groups", got)
	}
	src = &groupsSource{GroupsWatch: w.hub.Groups(), encoder: src.encoder, single: true}
	var field *fsm.FieldError
	if _, _, err := src.poll(nil); !errors.As(err, &field) || field.Field != "pieces" {
		t.Errorf("as one message: %v", err)
	}
}

// A message is never larger than its counted size.
func TestSizesAreUpperBounds(t *testing.T) {
	rnd := seed.Rand(t)
	text := func(most int) string { return strings.Repeat("x", rnd.IntN(most+1)) }
	for range 2000 {
		m := &fsm.Member{
			ID: text(255), Addr: text(255), Weight: rnd.Uint32(), State: 2, TTL: 1 << 62, Hold: 1 << 62,
			CreatedIndex: rnd.Uint64(), ModifiedIndex: rnd.Uint64(), RegisteredMS: rnd.Int64N(1 << 50),
		}
		for i := range rnd.IntN(fsm.MaxMetaPairs + 1) {
			m.Meta = append(m.Meta, fsm.Pair{Key: fmt.Sprint(i) + text(200), Value: text(8000)})
		}
		one := proto.Size(&registrypb.MembersResponse{Members: []*registrypb.Member{memberToWire(m)}})
		if one > memberSize(m) {
			t.Fatalf("%d bytes, counted as %d: %+v", one, memberSize(m), m)
		}
		g := &registrypb.Group{
			Name: text(255), Members: rnd.Uint32(), Revision: rnd.Uint64(), Config: &registrypb.GroupConfig{VirtualNodes: rnd.Uint32(), Bound: rnd.Uint32()},
		}
		if one := proto.Size(&registrypb.GroupsResponse{Groups: []*registrypb.Group{g}}); one > groupSize(&fsm.Group{Name: g.Name}) {
			t.Fatalf("%d bytes: %v", one, g)
		}
	}
}
