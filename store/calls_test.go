package store

import (
	"errors"
	"strconv"
	"testing"

	"github.com/werbenhu/registry/fsm"
)

func TestCalls(t *testing.T) {
	c := newCalls()
	a, p := Attempt{Call: []byte("a"), Since: 7}, &proposal{call: "a"}
	if known, other, err := c.begin(a, p); known != nil || other != nil || err != nil {
		t.Fatalf("a first attempt: %v, %v, %v", known, other, err)
	}
	if _, other, _ := c.begin(a, &proposal{call: "a"}); other != p {
		t.Error("a second attempt does not wait for the first, which is on its way")
	}
	c.applied([]fsm.Result{{Index: 8}, {Index: 9, Call: "a", LeaseID: 5}})
	c.settled(p)
	if known, _, _ := c.begin(a, p); known == nil || known.LeaseID != 5 {
		t.Errorf("an attempt after the first took effect: %v", known)
	}

	again := Attempt{Call: []byte("b"), Since: 7, Again: true}
	if _, _, err := c.begin(again, &proposal{call: "b"}); err != nil {
		t.Errorf("an attempt of a call that surely had no effect: %v", err)
	}
	c.restored(8)
	again.Call = []byte("c")
	if _, _, err := c.begin(again, &proposal{call: "c"}); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("an attempt of a call that a snapshot may hold: %v", err)
	}
	first := Attempt{Call: []byte("d"), Since: 7}
	if _, _, err := c.begin(first, &proposal{call: "d"}); err != nil {
		t.Errorf("a first attempt after a snapshot: %v", err)
	}
}

// TestCallsAreBounded: what was forgotten is not taken for what never was.
func TestCallsAreBounded(t *testing.T) {
	c := newCalls()
	for i := range maxCalls + 10 {
		c.applied([]fsm.Result{{Index: uint64(i + 1), Call: strconv.Itoa(i)}})
	}
	if len(c.done) != maxCalls || len(c.order) != maxCalls {
		t.Errorf("%d calls are remembered, want %d", len(c.done), maxCalls)
	}
	again := Attempt{Call: []byte("9"), Since: 9, Again: true}
	if _, _, err := c.begin(again, &proposal{}); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a further attempt of a forgotten call: %v", err)
	}
	again.Call, again.Since = []byte("10"), 10
	if known, _, err := c.begin(again, &proposal{}); known == nil || known.Index != 11 {
		t.Errorf("a further attempt of the oldest that is remembered: %v, %v", known, err)
	}
	again.Call = []byte("new")
	if _, _, err := c.begin(again, &proposal{}); err != nil {
		t.Errorf("a further attempt of what was never applied: %v", err)
	}
}
