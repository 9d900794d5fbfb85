package fsm

import (
	"errors"
	"testing"

	"github.com/werbenhu/registry/ring"
)

// scratchPoints counts the points of all rings anew.
func scratchPoints(s *State) (points uint64) {
	for g := range s.Groups {
		for m := range g.Members {
			points += uint64(m.Weight) * uint64(g.Params.VirtualNodes)
		}
	}
	return points
}

func TestPointsOfAllRingsAreCounted(t *testing.T) {
	h := newHistory(t, random(t))
	for range historyLength() {
		h.step()
		if s := h.log.m.State(); s.points != scratchPoints(s) {
			t.Fatalf("at index %d the state counts %d points, there are %d", s.Index(), s.points, scratchPoints(s))
		}
	}
}

func TestPointsOfAllRingsAreBounded(t *testing.T) {
	s := newState()
	s.points = MaxTotalPoints - ring.DefaultVirtualNodes
	b := newBatch(s, newRingBuilder(nil))
	if err := b.roomFor(nil, nil, 1); err != nil {
		t.Errorf("the last points: %v", err)
	}
	if err := b.roomFor(nil, nil, 2); !errors.Is(err, ErrExhausted) {
		t.Errorf("one member too heavy: %v", err)
	}
	if err := b.pointsFit(1000, 1000); err != nil {
		t.Errorf("no change: %v", err)
	}
}

func TestWaitersAreServedByIndex(t *testing.T) {
	var h indexWaiters
	far, near, gone := h.add(9), h.add(3), h.add(4)
	h.remove(gone)
	h.remove(gone) // twice does no harm
	h.reached(2)
	select {
	case <-near.done:
		t.Error("woken before its index")
	default:
	}
	h.reached(5)
	<-near.done
	select {
	case <-far.done:
		t.Error("woken before its index")
	case <-gone.done:
		t.Error("woken after it left")
	default:
	}
	if h.reached(9); h.Len() != 0 {
		t.Errorf("%d left", h.Len())
	}
	<-far.done
}
