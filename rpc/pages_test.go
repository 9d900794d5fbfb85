package rpc

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// pagedRead is group g-N, read at index N with a lag of a second.
func pagedRead(w *watched, n int) groupRead {
	name := fmt.Sprintf("g-%d", n)
	if w.m.State().Group(name) == nil {
		w.apply(register(name, "a", "10.0.0.1:80"))
	}
	return groupRead{w.m.State().Group(name), uint64(n), time.Second}
}

func (p *pages) has(g groupRead) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		if k.group == g.group {
			return true
		}
	}
	return false
}

func get(p *pages, g groupRead) (groupRead, bool) {
	return p.at(g.group.Name, g.group.Revision, g.group.Fingerprint())
}

// One revision too many evicts the one that was not read for longest.
func TestKeptPagesAreBounded(t *testing.T) {
	w, p := newWatched(t), &pages{}
	defer p.forget()
	for n := range pagedGroups {
		p.keep(pagedRead(w, n))
	}
	if _, ok := get(p, pagedRead(w, 0)); !ok {
		t.Fatal("the first is not kept")
	}
	p.keep(pagedRead(w, 1)) // it is in use again
	p.keep(pagedRead(w, pagedGroups))
	if len(p.kept) != pagedGroups || !p.has(pagedRead(w, 0)) || !p.has(pagedRead(w, 1)) || p.has(pagedRead(w, 2)) || !p.has(pagedRead(w, 3)) {
		t.Errorf("%d are kept, the first of them %s", len(p.kept), p.kept[0].group.Name)
	}
	if _, ok := get(p, pagedRead(w, 2)); ok {
		t.Error("an evicted one is found")
	}
}

// A revision goes 30 s after its last page, and with the last one the timer.
func TestKeptPagesExpire(t *testing.T) {
	w := newWatched(t)
	first, second := pagedRead(w, 1), pagedRead(w, 2)
	synctest.Test(t, func(t *testing.T) {
		p := &pages{}
		after := func(d time.Duration) {
			time.Sleep(d) // of the bubble's clock
			synctest.Wait()
		}
		p.keep(first)
		after(20 * time.Second)
		p.keep(second)
		after(pagedFor - 20*time.Second - 1)
		if !p.has(first) {
			t.Error("it went too early")
		}
		after(1)
		if p.has(first) || !p.has(second) {
			t.Error("the one is kept, or the other is not")
		}
		if _, ok := get(p, second); !ok {
			t.Error("it is not found")
		}
		after(pagedFor - 1)
		if !p.has(second) {
			t.Error("a read did not extend it")
		}
		after(1)
		if p.has(second) || p.timer != nil {
			t.Error("it is still kept, or the timer runs")
		}
	})
}

// The lag of a page counts from the last time that its revision was current.
func TestKeptPagesGrowOld(t *testing.T) {
	w := newWatched(t)
	read := pagedRead(w, 1)
	synctest.Test(t, func(t *testing.T) {
		p := &pages{}
		defer p.forget()
		for range 3 {
			p.keep(read)
			time.Sleep(5 * time.Second)
			got, ok := get(p, read)
			if !ok || got.lag != 6*time.Second || got.index != read.index {
				t.Fatalf("%+v, %t", got, ok)
			}
			p.keep(got) // makes it no younger
			if again, _ := get(p, read); again.lag != got.lag {
				t.Errorf("lag %s, want %s", again.lag, got.lag)
			}
			read.index++ // it was still current there
		}
	})
}

// The error of a page that has expired tells the client to start over.
func TestExpiredPageIsAnErrorOfItsOwn(t *testing.T) {
	err := toStatus(fmt.Errorf("%w: group %q, revision %d", errPageExpired, "web", 7))
	if d := detailOf(err); status.Code(err) != codes.Aborted || d.GetReason() != registrypb.ErrorDetail_REVISION_MISMATCH || d.GetField() != "page_token" {
		t.Errorf("%v, %v", err, d)
	}
	if d := detailOf(toStatus(fsm.ErrRevisionMismatch)); d.GetField() != "" {
		t.Errorf("another mismatch names field %s", d.GetField())
	}
	if !errors.Is(errPageExpired, fsm.ErrRevisionMismatch) {
		t.Error("it is no mismatch of revisions")
	}
}
