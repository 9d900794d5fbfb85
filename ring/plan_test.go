package ring

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/werbenhu/registry/store/storetest/seed"
)

// naiveDiff compares two naive rings at every hash where either can change.
func naiveDiff(a, b *naive) []Range {
	cuts := []uint64{0}
	for _, n := range []*naive{a, b} {
		for _, p := range n.points {
			if p.hash != 1<<64-1 {
				cuts = append(cuts, p.hash+1)
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var ranges []Range
	for i, lo := range cuts {
		hi := uint64(0)
		if i+1 < len(cuts) {
			hi = cuts[i+1]
		}
		from, to := a.owner(lo), b.owner(lo)
		last := len(ranges) - 1
		switch {
		case from == to:
		case last >= 0 && ranges[last].Hi == lo && ranges[last].From == from && ranges[last].To == to:
			ranges[last].Hi = hi
		default:
			ranges = append(ranges, Range{lo, hi, from, to})
		}
	}
	return ranges
}

func TestDiffEqualsNaive(t *testing.T) {
	rnd := seed.Rand(t)
	for range 15 {
		p, members := randomSet(rnd, 6)
		q, others := p, mutate(rnd, members)
		if rnd.IntN(3) == 0 {
			q, others = randomSet(rnd, 6)
		}
		a, b := newNaive(p, members), newNaive(q, others)
		want := naiveDiff(a, b)
		if diff := cmp.Diff(want, Diff(mustNew(t, p, members), mustNew(t, q, others))); diff != "" {
			t.Fatalf("%v → %v: -want +got\n%s", members, others, diff)
		}
	}
}

func TestDiffOfOneRingIsEmpty(t *testing.T) {
	r := mustNew(t, DefaultParams(), benchMembers(5))
	empty := mustNew(t, DefaultParams(), nil)
	if d := Diff(r, r); d != nil {
		t.Fatal(d)
	}
	if d := Diff(empty, empty); d != nil {
		t.Fatal(d)
	}
	if d := Diff(empty, mustNew(t, DefaultParams(), benchMembers(1))); len(d) != 1 || d[0] != (Range{To: "webserver-0"}) {
		t.Fatal(d)
	}
}

// randomChange draws a change that fits a set.
func randomChange(rnd *rand.Rand, members []Member) Change {
	c := Change{Weights: map[string]int{}}
	for _, m := range members {
		switch rnd.IntN(12) {
		case 0:
			c.Leave = append(c.Leave, m.ID)
		case 1:
			c.Drain = append(c.Drain, m.ID)
		case 2:
			c.Activate = append(c.Activate, m.ID)
		case 3:
			c.Hold = append(c.Hold, m.ID)
		case 4:
			c.Weights[m.ID] = 1 + rnd.IntN(4)
		}
	}
	for i := range rnd.IntN(3) {
		c.Join = append(c.Join, randomMember(rnd, "new"+strconv.Itoa(i)))
	}
	if rnd.IntN(5) == 0 {
		c.VirtualNodes = 64 << rnd.IntN(3)
	}
	if rnd.IntN(4) == 0 {
		bound := []int{0, 1050, 1100}[rnd.IntN(3)]
		c.Bound = &bound
	}
	return c
}

func TestPlanEqualsRealDifference(t *testing.T) {
	rnd := seed.Rand(t)
	for range 60 {
		p, members := randomSet(rnd, 10)
		r, c := mustNew(t, p, members), randomChange(rnd, members)
		plan, err := NewPlan(r, c)
		if err != nil {
			t.Fatal(err)
		}
		q, others, err := c.Apply(p, members)
		if err != nil {
			t.Fatal(err)
		}
		real := mustNew(t, q, others)
		if diff := cmp.Diff(Diff(r, real), plan.Ranges()); diff != "" {
			t.Fatal(diff)
		}
		requirePlanSums(t, plan, r, real)
	}
}

// requirePlanSums checks the totals of a plan against the two rings.
func requirePlanSums(t *testing.T, plan *Plan, before, after *Ring) {
	t.Helper()
	var moved Share
	net := map[string]Share{} // before - sent + received
	for m, share := range before.Shares() {
		net[before.Member(m).ID] = share
	}
	for _, move := range plan.Moves {
		moved = moved.Add(move.Share)
		net[move.To] = net[move.To].Add(move.Share)
	}
	for _, move := range plan.Moves {
		net[move.From] = net[move.From].minus(move.Share)
	}
	for m, share := range after.Shares() {
		if id := after.Member(m).ID; net[id] != share {
			t.Fatalf("%q ends with %v, want %v", id, net[id], share)
		}
	}
	if moved != plan.Moved || plan.Least.Cmp(plan.Moved) > 0 {
		t.Fatalf("moved %v, least %v; the moves sum to %v", plan.Moved, plan.Least, moved)
	}
	if s := after.Stats(); plan.LargestAfter != s.Largest || plan.PointsAfter != after.NumPoints() {
		t.Fatalf("plan %+v, stats %+v", plan, s)
	}
}

func TestPlainPlanMovesTheLeast(t *testing.T) {
	r := mustNew(t, DefaultParams(), benchMembers(20))
	for name, c := range map[string]Change{
		"join":    {Join: []Member{{ID: "new", Weight: 3}}},
		"leave":   {Leave: []string{"webserver-3"}},
		"drain":   {Drain: []string{"webserver-3"}},
		"heavier": {Weights: map[string]int{"webserver-3": 2}},
	} {
		plan, err := NewPlan(r, c)
		if err != nil {
			t.Fatal(err)
		}
		if plan.Moved != plan.Least || plan.Moved == (Share{}) {
			t.Errorf("%s moves %v, least %v", name, plan.Moved, plan.Least)
		}
	}
}

func TestChangeErrors(t *testing.T) {
	r := mustNew(t, DefaultParams(), []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}})
	for name, test := range map[string]struct {
		change Change
		want   error
	}{
		"join a member":               {Change{Join: []Member{{ID: "a", Weight: 1}}}, ErrChange},
		"join twice":                  {Change{Join: []Member{{ID: "x", Weight: 1}, {ID: "x", Weight: 1}}}, ErrChange},
		"leave an unknown member":     {Change{Leave: []string{"x"}}, ErrChange},
		"leave and drain":             {Change{Leave: []string{"a"}, Drain: []string{"a"}}, ErrChange},
		"weight of an unknown member": {Change{Weights: map[string]int{"x": 1}}, ErrChange},
		"weight 0":                    {Change{Weights: map[string]int{"a": 0}}, ErrMember},
		"join without id":             {Change{Join: []Member{{Weight: 1}}}, ErrMember},
		"virtual nodes 100":           {Change{VirtualNodes: 100}, ErrParams},
	} {
		if _, err := NewPlan(r, test.change); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if r.Member(0).ID != "a" || r.Len() != 2 {
		t.Fatal("a failed change altered the ring")
	}
}

func TestPlanToAnEmptyRing(t *testing.T) {
	plan, err := NewPlan(mustNew(t, DefaultParams(), benchMembers(2)), Change{Leave: []string{"webserver-0", "webserver-1"}})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Moved != (Share{Hi: 1}) || plan.Least != plan.Moved || len(plan.Moves) != 2 {
		t.Fatalf("%+v", plan)
	}
	if _, err := json.Marshal(plan); err != nil {
		t.Fatal(err)
	}
}
