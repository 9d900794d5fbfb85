package fsm

import (
	"bytes"
	"fmt"
	"testing"
)

func TestMemberCountFollowsTheGroups(t *testing.T) {
	l := newLog(t)
	for i := range 5 {
		l.must(register(newSeat(fmt.Sprint("g", i%2), fmt.Sprint(i), "a:1", "one")))
	}
	l.must(register(newSeat("g0", "0", "a:1", "one"))) // once more
	l.must(register(newSeat("g0", "2", "a:1", "two"))) // taken over
	l.must(deregister("g1", "1", ""))
	sum := 0
	for g := range l.m.State().Groups {
		sum += g.Len()
	}
	if got := l.m.State().MemberCount(); got != 4 || sum != 4 {
		t.Errorf("counts %d members, the groups have %d, want 4", got, sum)
	}
	var snap bytes.Buffer
	if err := l.m.State().WriteSnapshot(&snap); err != nil {
		t.Fatal(err)
	}
	restored, err := ReadSnapshot(&snap)
	if err != nil || restored.MemberCount() != 4 {
		t.Errorf("restored: %d members, %v", restored.MemberCount(), err)
	}
}

func TestRingStatsCountBuilds(t *testing.T) {
	l := newLog(t)
	r := l.must(register(newSeat("g", "1", "a:1", "one")))
	if _, err := l.m.State().Group("g").WaitRing(t.Context(), r.Index); err != nil {
		t.Fatal(err)
	}
	l.m.Close()
	if s := l.m.RingStats(); s.Builds != 1 || s.Took <= 0 || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}
