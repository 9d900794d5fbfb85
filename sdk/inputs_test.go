package sdk

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry/ring"
)

// Kept by differences, the inputs are those of the members as a whole, whatever
// comes, goes, changes weight or state, and whatever the virtual nodes become.
func TestInputsByDifferences(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	params := ring.Params{VirtualNodes: 64}
	in, err := inputsOf(params, nil)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]Member{}
	for range 2000 {
		s := &step{params: params}
		if rnd.IntN(20) == 0 {
			params.VirtualNodes, params.Bound = 64<<rnd.IntN(4), rnd.IntN(2)*1250
			s.params = params
		}
		for _, i := range rnd.Perm(30)[:rnd.IntN(4)] {
			s.removed = append(s.removed, fmt.Sprint("m-", i))
		}
		for _, i := range rnd.Perm(30)[:rnd.IntN(4)] {
			s.put = append(s.put, Member{ID: fmt.Sprint("m-", i), Weight: 1 + rnd.IntN(3), State: State(rnd.IntN(3))})
		}
		slices.SortFunc(s.put, byID)
		old := slices.SortedFunc(maps.Values(members), byID)
		if err := in.fold(s); err != nil {
			t.Fatal(err)
		}
		for _, id := range s.left {
			if _, was := members[id]; !was {
				t.Fatalf("%s is removed and was no member", id)
			}
			delete(members, id)
		}
		for i, m := range s.put {
			if _, was := members[m.ID]; was == s.added[i] {
				t.Fatalf("%s: added %t", m.ID, s.added[i])
			}
			members[m.ID] = m
		}
		now := slices.SortedFunc(maps.Values(members), byID)
		if want := ring.InputsOf(params, ringMembers(now)).Fingerprint(params); in.fingerprint() != want {
			t.Fatalf("%016x, want %016x", in.fingerprint(), want)
		}
		if got := s.after(old); !slices.EqualFunc(got, now, func(a, b Member) bool { return a.ID == b.ID && a.Weight == b.Weight && a.State == b.State }) {
			t.Fatalf("merged %v, want %v", got, now)
		}
	}
}

// What makes no ring is refused before one is built.
func TestInputsThatMakeNoRing(t *testing.T) {
	for name, tt := range map[string]struct {
		params  ring.Params
		members []Member
		want    error
	}{
		"virtual nodes":   {ring.Params{VirtualNodes: 65}, nil, ring.ErrParams},
		"weight":          {fakeParams, []Member{{ID: "a"}}, ring.ErrMember},
		"id":              {fakeParams, []Member{{ID: strings.Repeat("a", 256), Weight: 1}}, ring.ErrMember},
		"twice":           {fakeParams, []Member{{ID: "a", Weight: 1}, {ID: "a", Weight: 1}}, ring.ErrDuplicate},
		"too many points": {ring.Params{VirtualNodes: 4096}, slices.Repeat([]Member{{ID: "a", Weight: 1000}}, 9), ring.ErrTooLarge},
	} {
		for i := range tt.members {
			if name == "too many points" {
				tt.members[i].ID = fmt.Sprint("a", i)
			}
		}
		if _, err := inputsOf(tt.params, tt.members); !errors.Is(err, errMismatch) || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
