package fsm

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

func checkEntry() *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Check{Check: &fsmpb.Check{}}}
}

// A mark is the digest that the state has at that entry alone, however the
// entries are batched.
func TestMarksDoNotDependOnBatches(t *testing.T) {
	r := seed.Rand(t)
	h := newHistory(t, r)
	want := make(map[uint64]uint64)
	for range historyLength() / 2 {
		h.step()
		if h.r.IntN(5) > 0 {
			continue
		}
		digest := h.log.m.State().Digest()
		e := h.log.entry(checkEntry())
		h.log.m.Apply([]Entry{e})
		h.done = append(h.done, e)
		want[e.Index] = digest
		if h.log.m.State().Digest() != digest {
			t.Fatalf("check entry %d changed the state", e.Index)
		}
	}
	other := newLog(t).m
	split(r, other, h.done)
	marked := 0
	for index, digest := range want {
		if got, ok := other.Mark(index); ok {
			marked++
			if got != digest {
				t.Errorf("mark at %d is %016x, the state there had %016x", index, got, digest)
			}
		}
	}
	if marked != min(len(want), maxMarks) {
		t.Errorf("%d of %d marks are remembered", marked, len(want))
	}
	if last := h.log.m.LastMark(); last != other.LastMark() || last.Index == 0 {
		t.Errorf("last marks %v and %v", last, other.LastMark())
	}
	if err := other.Restore(bytes.NewReader(snapshotBytes(t, h.log.m.State()))); err != nil {
		t.Fatal(err)
	}
	if k := other.LastMark(); k != (Mark{}) {
		t.Errorf("mark %v of a state that was replaced", k)
	}
}

func TestWaitMark(t *testing.T) {
	l := newLog(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan Mark, 1)
	go func() {
		k, err := l.m.WaitMark(ctx, 0)
		if err != nil {
			t.Error(err)
		}
		got <- k
	}()
	l.must(register(newRegistration("web", "a", "a:1", "i")))
	l.must(checkEntry())
	if k := <-got; k.Index != 2 || k.Digest != l.m.State().Digest() {
		t.Errorf("mark %v", k)
	}
	cancel()
	if _, err := l.m.WaitMark(ctx, 2); err == nil {
		t.Error("a mark that never came")
	}
}

// Verify sees a change of a record that no entry made.
func TestVerifyFindsDamagedMemory(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	for range historyLength() {
		h.step()
	}
	h.log.must(register(newRegistration("last", "a", "a:1", "i")))
	h.log.must(setNode(&fsmpb.Node{Id: "x", Bind: "x:1", Addr: "x:2"}))
	h.log.apply(rootToken()) // unless the history turned tokens on
	h.log.must(createToken(newTestToken("last", grant(Register, ""))))
	s := h.log.m.State()
	if err := s.Verify(t.Context()); err != nil {
		t.Fatalf("a sound state: %v", err)
	}
	for name, damage := range map[string]func() (undo func()){
		"member": func() func() {
			m := s.Group("last").Member("a")
			m.Addr = "a:2"
			return func() { m.Addr = "a:1" }
		},
		"revision": func() func() { s.Group("last").Revision++; return func() { s.Group("last").Revision-- } },
		"fingerprint": func() func() {
			g := s.Group("last")
			was := g.inputs
			g.inputs.Add("a", 64)
			return func() { g.inputs = was }
		},
		"token": func() func() {
			g := s.TokenNamed("last").Grants
			g[0].Rights = Admin
			return func() { g[0].Rights = Register }
		},
		"node": func() func() { s.Node("x").Addr = "y:2"; return func() { s.Node("x").Addr = "x:2" } },
		"term": func() func() { s.leader += "x"; return func() { s.leader = s.leader[:len(s.leader)-1] } },
	} {
		undo := damage()
		if err := s.Verify(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		undo()
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Errorf("sound again: %v", err)
	}
}
