package ring

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/werbenhu/registry/store/storetest/seed"
)

func randomKeys(rnd *rand.Rand, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%x", rnd.Uint64()>>rnd.IntN(60))
	}
	return keys
}

func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	rnd := seed.Rand(t)
	for range 20 {
		p, members := randomSet(rnd, 12)
		want := mustNew(t, p, members)
		r := mustNew(t, p, nil)
		var here []Member
		for _, i := range rnd.Perm(len(members)) {
			here = append(here, members[i])
			r = mustWith(t, r, p, here)
		}
		if r.Fingerprint() != want.Fingerprint() || r.Digest() != want.Digest() || Diff(r, want) != nil {
			t.Fatalf("other ring after another order of %v", members)
		}
	}
}

// changed returns the ids whose points are not the same in two sets.
func changed(a, b []Member) map[string]bool {
	points := map[string]int{}
	for _, m := range a {
		points[m.ID] += m.Points(64)
	}
	for _, m := range b {
		points[m.ID] -= m.Points(64)
	}
	ids := map[string]bool{}
	for id, n := range points {
		if n != 0 {
			ids[id] = true
		}
	}
	return ids
}

func TestNoMoveBetweenStayers(t *testing.T) {
	rnd := seed.Rand(t)
	p := Params{VirtualNodes: 64}
	_, members := randomSet(rnd, 20)
	r := mustNew(t, p, members)
	for range 200 {
		next := mutate(rnd, members)
		after := mustWith(t, r, p, next)
		ids := changed(members, next)
		for _, d := range Diff(r, after) {
			if !ids[d.From] && !ids[d.To] {
				t.Fatalf("%+v moved although only %v changed", d, ids)
			}
		}
		r, members = after, next
	}
}

func TestDrainedMemberReceivesNothing(t *testing.T) {
	rnd := seed.Rand(t)
	for range 30 {
		p, members := randomSet(rnd, 12)
		r := mustNew(t, p, members)
		for m, share := range r.Shares() {
			if r.Member(m).State == Draining && share != (Share{}) {
				t.Fatalf("%v owns %v", r.Member(m), share)
			}
		}
		for _, key := range randomKeys(rnd, 50) {
			for _, m := range r.MatchN(nil, key, len(members)) {
				if r.Member(m).State == Draining {
					t.Fatalf("MatchN returned %v", r.Member(m))
				}
			}
		}
	}
}

func TestHeldMemberKeepsItsKeys(t *testing.T) {
	p := DefaultParams()
	a := mustNew(t, p, []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}})
	b := mustWith(t, a, p, []Member{{ID: "a", Weight: 1, State: Held}, {ID: "b", Weight: 1}})
	if d := Diff(a, b); d != nil || a.Fingerprint() != b.Fingerprint() || a.Digest() != b.Digest() {
		t.Fatalf("holding moved %v", d)
	}
	if b.Member(0).State != Held {
		t.Fatal("state lost")
	}
}

func TestWeightsNest(t *testing.T) {
	rnd := seed.Rand(t)
	p := Params{VirtualNodes: 64}
	for range 20 {
		_, members := randomSet(rnd, 8)
		members = append(members, Member{ID: "x", Weight: 1 + rnd.IntN(5)})
		r := mustNew(t, p, members)
		heavier := slices.Clone(members)
		heavier[len(heavier)-1].Weight++
		after := mustWith(t, r, p, heavier)
		for _, d := range Diff(r, after) {
			if d.To != "x" {
				t.Fatalf("x became heavier, but %+v", d)
			}
		}
		if back := mustWith(t, after, p, members); Diff(back, r) != nil || back.Digest() != r.Digest() {
			t.Fatal("the way back leads to another ring")
		}
	}
}

func TestBoundIsNeverExceeded(t *testing.T) {
	rnd := seed.Rand(t)
	for i := range 60 {
		p, members := randomSet(rnd, 40)
		p.Bound = 1010 + rnd.IntN(200)
		if i%2 == 0 { // usual parameters must not need a weaker bound
			p = Params{VirtualNodes: 256, Bound: 1100}
			for i := range members {
				members[i].Weight, members[i].State = 1, Active
			}
		}
		r := mustNew(t, p, members)
		if r.Bound() < p.Bound || i%2 == 0 && r.Bound() != p.Bound {
			t.Fatalf("bound %d in force, want %d, for %v", r.Bound(), p.Bound, members)
		}
		requireBound(t, r)
	}
}

func requireBound(t *testing.T, r *Ring) {
	t.Helper()
	if r.NumPoints() == 0 {
		return
	}
	for m, share := range r.Shares() {
		w := int64(r.Member(m).Weight)
		limit := new(big.Int).Lsh(big.NewInt(int64(r.Bound())*w), 64)
		limit.Div(limit, big.NewInt(1000*int64(r.totalWeight())))
		if share.big().Cmp(limit) > 0 {
			t.Fatalf("%v has %v, above the bound %d of %v", r.Member(m), share, r.Bound(), r.Members())
		}
	}
}

func (s Share) big() *big.Int {
	hi := new(big.Int).Lsh(new(big.Int).SetUint64(s.Hi), 64)
	return hi.Add(hi, new(big.Int).SetUint64(s.Lo))
}

// An arc looks at 4096 points for a member with room. Here, one of "over" is followed by some of its
// own points and by points of "full", which have none, and then by the first of "room".
func TestBoundWalksSoFar(t *testing.T) {
	members := []Member{{ID: "full", Weight: 1}, {ID: "over", Weight: 1}, {ID: "room", Weight: 1}}
	p := Params{VirtualNodes: 4096, Bound: 1100}
	for between, want := range map[int]int{4095: 1100, 4096: 1200} {
		place(t, func(id string, i int) uint64 { return walkLayout(id, i, between) })
		r := mustNew(t, p, members)
		if r.Bound() != want {
			t.Errorf("%d points between: bound %d, want %d", between, r.Bound(), want)
		}
		if n := newNaive(p, members); n.bound != want || n.digest() != r.Digest() {
			t.Errorf("%d points between: bound %d in the naive ring", between, n.bound)
		}
	}
}

// walkLayout gives "over" 400, "full" 330 and "room" 270 thousandths of the key space.
func walkLayout(id string, i, between int) uint64 {
	const unit = ^uint64(0) / 1000
	const own = 100
	full := between - own
	switch {
	case id == "over" && i == 4095:
		return 50 * unit // its arc has 50 units: the first to be shed
	case id == "over" && i < own:
		return 50*unit + 1 + uint64(i)
	case id == "full" && i < full:
		return 50*unit + 1 + own + uint64(i)
	case id == "room" && i == 0:
		return 0
	case id == "room" && i == 1:
		return 50*unit + 1 + uint64(between)
	case id == "over":
		return 51*unit + 349*unit/4095*uint64(i+1)
	case id == "full":
		return 400*unit + 330*unit/uint64(4096-full)*uint64(i+1-full)
	}
	return 730*unit + 270*unit/4096*uint64(i)
}

func TestSharesSumToTheWhole(t *testing.T) {
	rnd := seed.Rand(t)
	for range 30 {
		p, members := randomSet(rnd, 12)
		r, n := mustNew(t, p, members), newNaive(p, members)
		sum, want := Share{}, n.shares()
		for m, share := range r.Shares() {
			sum = sum.Add(share)
			if share.big().Cmp(want[r.Member(m).ID]) != 0 {
				t.Fatalf("share of %v is %v, want %v", r.Member(m), share.big(), want[r.Member(m).ID])
			}
		}
		if r.NumPoints() > 0 && sum != (Share{Hi: 1}) {
			t.Fatalf("shares sum to %v", sum)
		}
	}
}

func TestMatchVariantsAgree(t *testing.T) {
	rnd := seed.Rand(t)
	for range 40 {
		p, members := randomSet(rnd, 90)
		r := mustNew(t, p, members)
		keys := randomKeys(rnd, rnd.IntN(100))
		batch := r.MatchBatch([]int32{7}, keys)
		if len(batch) != len(keys)+1 || batch[0] != 7 {
			t.Fatalf("MatchBatch returned %d entries for %d keys", len(batch), len(keys))
		}
		for i, key := range keys {
			requireMatchN(t, r, key, rnd.IntN(len(members)+2), int(batch[i+1]))
		}
	}
}

func requireMatchN(t *testing.T, r *Ring, key string, n, batch int) {
	t.Helper()
	owner, list := r.Match(key), r.MatchN([]int{-5}, key, n)[1:]
	if owner != batch {
		t.Fatalf("Match(%q) is %d, MatchBatch %d", key, owner, batch)
	}
	if len(list) != min(n, r.owners) || len(list) > 0 && list[0] != owner {
		t.Fatalf("MatchN(%q, %d) is %v, owner %d of %d", key, n, list, owner, r.owners)
	}
	slices.Sort(list)
	if len(slices.Compact(list)) != len(list) {
		t.Fatalf("MatchN(%q, %d) repeats a member: %v", key, n, list)
	}
}
