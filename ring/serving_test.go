package ring_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/werbenhu/registry/ring"
)

// fleetOf makes members of which each is held with a probability.
func fleetOf(tb testing.TB, members int, held func(int) bool) *ring.Ring {
	tb.Helper()
	ms := make([]ring.Member, members)
	for i := range ms {
		ms[i] = ring.Member{ID: fmt.Sprint("web", i), Weight: 1}
		if held(i) {
			ms[i].State = ring.Held
		}
	}
	r, err := ring.New(ring.Params{VirtualNodes: 64}, ms)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Serving is what a search in the list of all owners gives.
func TestServing(t *testing.T) {
	for _, members := range []int{1, 2, 7, 100} {
		for _, every := range []int{1, 2, 3, 50, 1000} {
			r := fleetOf(t, members, func(i int) bool { return i%every == 0 })
			held := func(m int) bool { return r.Member(m).State == ring.Held }
			for k := range 200 {
				key := fmt.Sprint("key", k)
				for _, n := range []int{1, 2, 5, 80} {
					all := r.MatchN(nil, key, max(n, ring.ServingOwners))
					there := slices.DeleteFunc(slices.Clone(all), held)
					away := slices.DeleteFunc(slices.Clone(all), func(m int) bool { return !held(m) })
					want := append(there, away...)
					want = want[:min(n, len(want))]
					if got := r.Serving([]int{-7}, key, n); got[0] != -7 || !slices.Equal(got[1:], want) {
						t.Fatalf("%d members, every %d held, n = %d: %v, want %v of %v", members, every, n, got, want, all)
					}
				}
				fallback := r.Fallback(key)
				switch owner := r.Match(key); {
				case !held(owner) && fallback != -1, fallback == owner, fallback >= 0 && held(fallback):
					t.Fatalf("%s: owner %d, fallback %d", key, owner, fallback)
				case held(owner) && fallback == -1 && members > 1 && every > 1:
					t.Fatalf("%s: no fallback for %d", key, owner)
				}
			}
		}
	}
	empty, err := ring.New(ring.DefaultParams(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := empty.Serving(nil, "k", 3); len(got) != 0 || empty.Fallback("k") != -1 {
		t.Errorf("an empty ring serves by %v", got)
	}
}

// A member's fallback is where its keys go when it leaves: a hold that is not
// come back from moves no key a second time.
func TestFallbackIsTheNextOwner(t *testing.T) {
	with := fleetOf(t, 10, func(i int) bool { return i == 4 })
	moved := 0
	without, err := ring.New(with.Params(), slices.DeleteFunc(slices.Clone(with.Members()), func(m ring.Member) bool { return m.ID == "web4" }))
	if err != nil {
		t.Fatal(err)
	}
	for k := range 10_000 {
		key := fmt.Sprint("key", k)
		if f := with.Fallback(key); f >= 0 {
			moved++
			if got, want := with.Member(f).ID, without.Member(without.Match(key)).ID; got != want {
				t.Fatalf("%s falls back to %s and goes to %s", key, got, want)
			}
		}
	}
	if moved < 500 {
		t.Errorf("%d keys of 10,000 fell back", moved)
	}
}

// Where nobody is held, and that is nearly always, it costs what MatchN does.
func TestServingAllocatesNothing(t *testing.T) {
	r := fleetOf(t, 100, func(int) bool { return false })
	buf := make([]int, 0, 8)
	if n := testing.AllocsPerRun(100, func() { buf = r.Serving(buf[:0], "key", 2); _ = r.Fallback("key") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
