package watch

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/werbenhu/registry/fsm"
)

// A watcher without a position gets a snapshot and then changes; of a group that does
// not exist it gets that, once.
func TestGroupWatchStartsAndGoesOn(t *testing.T) {
	c := newCluster(t)
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web unknown")
	wake := asleep(t, w.Poll)
	c.apply(put("web", "a"))
	woken(t, wake)
	took(t, w, "web at 1: a")
	wake = asleep(t, w.Poll)
	c.apply(put("web", "b"))
	woken(t, wake)
	c.apply(remove("web", "a"))
	took(t, w, "web 1→2 +b; web 2→3 -a")
	wake = asleep(t, w.Poll)
	c.apply(put("web", "b"), put("db", "x")) // a refresh: nobody sees it
	select {
	case <-wake:
		t.Error("woken by another group")
	default:
	}
}

// A watcher resumes from a revision if the group had its fingerprint there, and starts
// over otherwise.
func TestGroupWatchProvesWhatIsKnown(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	first := c.known("web")
	c.apply(put("web", "b"))
	c.apply(put("web", "c"))
	last := c.known("web")
	const whole = "web at 3: a b c"
	for _, tt := range []struct {
		what                  string
		revision, fingerprint uint64
		want                  string
	}{
		{"nothing", 0, 0, whole},
		{"no revision, with a fingerprint", 0, first.Fingerprint, whole},
		{"a revision", first.Revision, first.Fingerprint, "web 1→2 +b; web 2→3 +c"},
		{"another fingerprint", first.Revision, first.Fingerprint + 1, whole},
		{"fingerprint 0", first.Revision, 0, whole},
		{"the newest", last.Revision, last.Fingerprint, ""},
		{"the newest with another fingerprint", last.Revision, first.Fingerprint, whole},
		{"a later revision", last.Revision + 1, last.Fingerprint, whole},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := c.hub.Group(Known{"web", tt.revision, tt.fingerprint})
			took(t, w, tt.want)
			if index, ok := w.Progress(); !ok || index != c.index {
				t.Errorf("progress %d, %t", index, ok)
			}
		})
	}
}

// Entries that are applied together make one change; a revision between them is not
// in the history.
func TestEntriesAppliedTogetherMakeOneStep(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web at 1: a")
	c.apply(put("web", "b"), put("web", "c"), remove("web", "b"), put("web", "a"), remove("web", "c"), putAt("web", "c", "10.0.0.4:80"))
	took(t, w, "web 1→7 +c")
	took(t, c.hub.Group(Known{"web", 3, 77}), "web at 7: a c")
	c.apply(remove("web", "a"), putAt("web", "a", "10.0.0.5:80"))
	took(t, w, "web 7→9 +a -a") // it went and came again
}

// A watcher that is far behind takes all changes, a few at a time. It has progress
// with the last of them, and not before.
func TestStepsAreSmall(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "m"))
	w := c.hub.Group(c.known("web"))
	asleep(t, w.Poll) // progress
	const more = 5*changesAtOnce + 3
	for i := range more {
		c.apply(put("web", itoa(i)))
	}
	taken := 0
	for {
		step, wake := w.Poll()
		if wake != nil {
			break
		}
		if n := len(step.Changes); n == 0 || n > changesAtOnce {
			t.Fatalf("a step of %d changes", n)
		}
		taken += len(step.Changes)
		if _, ok := w.Progress(); ok != (taken == more) {
			t.Errorf("after %d of %d changes: progress %t", taken, more, ok)
		}
	}
	if taken != more {
		t.Errorf("%d changes, want %d", taken, more)
	}
}

// A watcher older than the history gets a snapshot.
func TestOverrunStartsOver(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	w := c.hub.Group(Known{Group: "web"})
	took(t, w, "web at 1: a")
	for i := range feedChanges/2 + 1 {
		c.apply(putAt("web", "b", "10.0.0.2:"+itoa(1+i)))
		c.apply(remove("web", "b"))
	}
	took(t, w, "web at "+itoa(int(c.index))+": a")
}

// A restore wakes every watcher; each continues from its position, or starts over.
func TestGroupWatchGoesOnAfterARestore(t *testing.T) {
	from := newCluster(t)
	from.apply(put("web", "a"))
	from.apply(put("web", "b"))
	var same, other bytes.Buffer
	if err := from.m.State().WriteSnapshot(&same); err != nil {
		t.Fatal(err)
	}
	from.apply(put("web", "c"))
	from.apply(put("new", "x"))
	if err := from.m.State().WriteSnapshot(&other); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	c.apply(put("web", "a"))
	c.apply(put("web", "b"))
	w, unknown := c.hub.Group(c.known("web")), c.hub.Group(Known{Group: "new"})
	took(t, w, "")
	took(t, unknown, "new unknown")
	restore := func(data *bytes.Buffer) {
		wakes := []<-chan struct{}{asleep(t, w.Poll), asleep(t, unknown.Poll)}
		if err := c.m.Restore(data); err != nil {
			t.Fatal(err)
		}
		for _, wake := range wakes {
			woken(t, wake)
		}
	}
	restore(&same)
	took(t, w, "") // it has that
	restore(&other)
	took(t, w, "web at 3: a b c")
	if index, ok := w.Progress(); !ok || index != c.m.State().Index() {
		t.Errorf("progress %d, %t", index, ok)
	}
	took(t, unknown, "new at 4: x")
	c.index = c.m.State().Index()
	c.apply(put("web", "d"))
	took(t, w, "web 3→5 +d")
	empty := newCluster(t)
	empty.apply(put("db", "x"))
	var gone bytes.Buffer
	if err := empty.m.State().WriteSnapshot(&gone); err != nil {
		t.Fatal(err)
	}
	took(t, unknown, "")
	restore(&gone)
	took(t, w, "web unknown")
}

// Under lasting change a watcher that keeps up has progress at every poll, with the
// state's index, also without a step.
func TestProgressUnderLastingChange(t *testing.T) {
	c := newCluster(t)
	w, p, none := c.hub.Group(Known{Group: "web"}), c.hub.Prefix("w"), c.hub.Group(Known{Group: "none"})
	for i := range 100 {
		c.apply(put("web", itoa(i)))
		c.apply(put("w"+itoa(i%3), itoa(i)))
		c.apply(check())
		w.Poll()
		p.Poll()
		none.Poll()
		for name, progress := range map[string]func() (uint64, bool){"group": w.Progress, "prefix": p.Progress, "unknown group": none.Progress} {
			if index, ok := progress(); !ok || index != c.index {
				t.Fatalf("%s: progress %d, %t, want %d", name, index, ok, c.index)
			}
		}
	}
}

// Progress is the index of the watcher's last step, also while changes are applied.
func TestProgressWhileChangesAreApplied(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	const last = 2000
	var all sync.WaitGroup
	for range 2 {
		w := c.hub.Group(Known{Group: "web"})
		all.Go(func() {
			for w.known.Revision < last { // each entry makes a revision of the group
				w.Poll()
				if index, ok := w.Progress(); ok && index != w.known.Revision {
					t.Errorf("progress %d at revision %d", index, w.known.Revision)
					return
				}
			}
		})
	}
	for i := range last - 1 {
		c.apply(putAt("web", "a", "10.0.0.2:"+itoa(1+i)))
	}
	all.Wait()
}

// A watcher and a change of another group do not wait for each other.
func TestGroupsAreLockedByThemselves(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"), put("db", "a"))
	w := c.hub.Group(c.known("web"))
	asleep(t, w.Poll)
	c.apply(put("web", "b"))
	whileLocked := func(mu *sync.Mutex, do func()) {
		mu.Lock()
		defer mu.Unlock()
		done := make(chan struct{})
		go func() {
			do()
			close(done)
		}()
		woken(t, done)
	}
	// A change of another group has this one,
	whileLocked(&c.hub.mu, func() {
		w.Poll()
		w.Poll()
	})
	// and a watcher that polls that one.
	whileLocked(&c.hub.feeds["web"].mu, func() { c.apply(put("db", "b")) })
}

// Each change, and each piece of a snapshot that several watchers send, is encoded once.
func TestOneEncodingForAll(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	first := c.known("web")
	c.apply(put("web", "b"))
	changes, pieces := 0, 0
	encodeChange := func(*Change) any { changes++; return changes }
	encodePiece := func(p *Piece) { // of one member each
		pieces++
		p.Encoded = pieces
		for m := range p.Snapshot.Group.MembersAfter(p.After) {
			if p.More = p.End != ""; p.More {
				break
			}
			p.End = m.ID
		}
	}
	var held []*Piece
	for range 5 {
		step, _ := c.hub.Group(first).Poll()
		if got := step.Changes[0].Encoded(encodeChange); got != 1 {
			t.Errorf("encoding %v", got)
		}
		steps, _ := c.hub.Prefix("w", first).Poll()
		if got := steps[0].Changes[0].Encoded(encodeChange); got != 1 {
			t.Errorf("encoding %v for a prefix", got)
		}
		step, _ = c.hub.Group(Known{Group: "web"}).Poll()
		a := step.Snapshot.Piece("", encodePiece)
		b := step.Snapshot.Piece(a.End, encodePiece)
		if a.Encoded != 1 || a.End != "a" || !a.More || b.Encoded != 2 || b.End != "b" || b.More {
			t.Errorf("pieces %+v, %+v", a, b)
		}
		held = append(held, a, b)
	}
	gone := weak.Make(held[1])
	c.apply(put("web", "c"))
	step, _ := c.hub.Group(Known{Group: "web"}).Poll()
	if p := step.Snapshot.Piece("", encodePiece); p.Encoded != 3 || step.Snapshot.Group.Revision != 3 {
		t.Errorf("piece %v of revision %d", p.Encoded, step.Snapshot.Group.Revision)
	}
	runtime.KeepAlive(held)
	runtime.GC()
	if gone.Value() != nil {
		t.Error("a piece without a sender is kept")
	}
}

// A watcher that does not poll keeps no change and no state in memory.
func TestIdleWatcherHoldsNothing(t *testing.T) {
	c := newCluster(t)
	c.apply(put("web", "a"))
	w, p := c.hub.Group(Known{Group: "web"}), c.hub.Prefix("w")
	for range 2 {
		w.Poll()
		p.Poll()
	}
	c.apply(put("web", "b"))
	var change weak.Pointer[Change]
	var state weak.Pointer[fsm.State]
	func() {
		step, _ := w.Poll()
		p.Poll()
		change, state = weak.Make(step.Changes[0]), weak.Make(c.m.State())
	}()
	for i := range 4 * feedChanges {
		c.apply(put("web", itoa(i)))
	}
	runtime.GC()
	if change.Value() != nil || state.Value() != nil {
		t.Errorf("change %v, state %v are kept", change.Value(), state.Value() != nil)
	}
	change = weak.Make(c.hub.feeds["web"].changes[0])
	var snapshot bytes.Buffer
	if err := c.m.State().WriteSnapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := c.m.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if change.Value() != nil {
		t.Error("a change is kept after a restore")
	}
	runtime.KeepAlive(w)
	runtime.KeepAlive(p)
}

// Close waits for wakes that have begun, and nobody is woken after it.
func TestCloseOfTheHub(t *testing.T) {
	c := newCluster(t)
	var wakes []<-chan struct{}
	for i := range 1000 {
		w := c.hub.Group(Known{Group: itoa(i)})
		w.Poll()
		wakes = append(wakes, asleep(t, w.Poll))
	}
	c.apply(put("7", "a"))
	c.hub.Close()
	select {
	case <-wakes[7]:
	default:
		t.Error("closed before all were woken")
	}
	w := c.hub.Group(c.known("7"))
	wake := asleep(t, w.Poll)
	c.apply(put("7", "b"))
	c.hub.Close()
	select {
	case <-wake:
		t.Error("woken after Close")
	default:
	}
}
