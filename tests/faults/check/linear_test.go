package check

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// history builds operations on one group; each takes from to to.
type history []Op

func (h *history) add(from, to time.Duration, op Op) *history {
	op.Group, op.Call, op.Return, op.Client = "g", from, to, len(*h)
	if op.Outcome == "" {
		op.Outcome = OK
	}
	*h = append(*h, op)
	return h
}

func (h *history) register(from, to time.Duration, id, addr string, o Outcome) *history {
	return h.add(from, to, Op{Kind: Register, Member: Member{id, addr, 1}, Outcome: o})
}

func (h *history) takeOver(from, to time.Duration, id, addr string, o Outcome) *history {
	return h.add(from, to, Op{Kind: Register, Member: Member{id, addr, 1}, TakeOver: true, Outcome: o})
}

func (h *history) update(from, to time.Duration, id string, weight uint32, o Outcome) *history {
	return h.add(from, to, Op{Kind: Update, Member: Member{ID: id, Weight: weight}, Outcome: o})
}

// deregister removes somebody, if its outcome is known.
func (h *history) deregister(from, to time.Duration, id string, o Outcome) *history {
	return h.add(from, to, Op{Kind: Deregister, Member: Member{ID: id}, Outcome: o, Removed: o == OK})
}

func (h *history) read(from, to time.Duration, members ...Member) *history {
	return h.add(from, to, Op{Kind: Read, Members: members})
}

func TestLinearizable(t *testing.T) {
	a1, a2 := Member{"a", "one", 1}, Member{"a", "two", 1}
	tests := map[string]struct {
		ops *history
		bad bool
	}{
		"one after the other":                     {new(history).register(0, 1, "a", "one", OK).read(2, 3, a1).deregister(4, 5, "a", OK).read(6, 7), false},
		"an acknowledged registration is lost":    {new(history).register(0, 1, "a", "one", OK).read(2, 3), true},
		"a stale read":                            {new(history).register(0, 1, "a", "one", OK).takeOver(2, 3, "a", "two", OK).read(4, 5, a1), true},
		"a read during the write":                 {new(history).register(0, 1, "a", "one", OK).takeOver(2, 9, "a", "two", OK).read(4, 5, a1).read(6, 7, a2), false},
		"back in time during the write":           {new(history).register(0, 1, "a", "one", OK).takeOver(2, 9, "a", "two", OK).read(4, 5, a2).read(6, 7, a1), true},
		"a deregistered member comes back":        {new(history).register(0, 1, "a", "one", OK).deregister(2, 3, "a", OK).read(4, 5, a1), true},
		"an unknown write takes effect late":      {new(history).register(0, 1, "a", "one", Unknown).read(2, 3).read(4, 5, a1), false},
		"an unknown write never takes effect":     {new(history).register(0, 1, "a", "one", Unknown).read(2, 3).read(4, 5), false},
		"an unknown write comes and goes":         {new(history).register(0, 1, "a", "one", Unknown).read(2, 3, a1).read(4, 5), true},
		"a failed write takes effect":             {new(history).register(0, 1, "a", "one", Failed).read(2, 3, a1), true},
		"a conflict that there was":               {new(history).register(0, 1, "a", "one", OK).register(2, 3, "a", "two", Conflict).read(4, 5, a1), false},
		"a conflict with nobody":                  {new(history).register(0, 1, "a", "one", Conflict), true},
		"two instances hold one member":           {new(history).register(0, 1, "a", "one", OK).register(2, 3, "a", "two", OK), true},
		"an update of a member that is there":     {new(history).register(0, 1, "a", "one", OK).update(2, 3, "a", 7, OK).read(4, 5, Member{"a", "one", 7}), false},
		"a lost update":                           {new(history).register(0, 1, "a", "one", OK).update(2, 3, "a", 7, OK).read(4, 5, a1), true},
		"an update of a member that is not there": {new(history).update(0, 1, "a", 7, OK), true},
		"absent although it is there":             {new(history).register(0, 1, "a", "one", OK).update(2, 3, "a", 7, Absent), true},
		"not removed although it is there": {new(history).register(0, 1, "a", "one", OK).
			add(2, 3, Op{Kind: Deregister, Member: Member{ID: "a"}}).read(4, 5), true},
		"not removed, as nobody is there":   {new(history).add(0, 1, Op{Kind: Deregister, Member: Member{ID: "a"}}).read(2, 3), false},
		"removed, and nobody knows whether": {new(history).register(0, 1, "a", "one", OK).deregister(2, 3, "a", Unknown).read(4, 5), false},
		"removed although it is not there":  {new(history).add(0, 1, Op{Kind: Deregister, Member: Member{ID: "a"}, Removed: true}), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found, drawings := Linearizable(*tt.ops, time.Minute)
			if (len(found) > 0) != tt.bad {
				t.Errorf("found %v", found)
			}
			if tt.bad {
				var page bytes.Buffer
				if err := drawings["g"](&page); err != nil || !strings.Contains(page.String(), "<html") {
					t.Errorf("drawing: %v", err)
				}
			}
		})
	}
}

// TestUndecided: a history that cannot be decided in time is no success.
func TestUndecided(t *testing.T) {
	h := new(history)
	for i := range 60 { // writes that all overlap, and a read that none explains
		h.takeOver(0, 1000, "a", fmt.Sprint(i), OK)
		h.takeOver(0, 1000, "b", fmt.Sprint(i), OK)
	}
	h.read(2000, 2001, Member{"a", "0", 2})
	if found, _ := Linearizable(*h, time.Millisecond); len(found) != 1 || !strings.Contains(found[0].Text, "undecided") {
		t.Errorf("found %v", found)
	}
}

func TestTooManyMembers(t *testing.T) {
	h := new(history)
	for i := range MaxMembers + 1 {
		h.register(0, 1, fmt.Sprint(i), "one", OK)
	}
	if found, _ := Linearizable(*h, time.Second); len(found) != 1 {
		t.Errorf("found %v", found)
	}
}
