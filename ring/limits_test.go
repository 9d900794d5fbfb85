package ring

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/werbenhu/registry/store/storetest/seed"
)

func TestLimits(t *testing.T) {
	one := []Member{{ID: "a", Weight: 1}}
	k64 := Params{VirtualNodes: 64}
	for name, test := range map[string]struct {
		params  Params
		members []Member
		want    error
		text    string
	}{
		"virtual nodes 0":      {Params{}, one, ErrParams, "virtual nodes"},
		"virtual nodes 32":     {Params{VirtualNodes: 32}, one, ErrParams, "64"},
		"virtual nodes 100":    {Params{VirtualNodes: 100}, one, ErrParams, "power of two"},
		"virtual nodes 8192":   {Params{VirtualNodes: 8192}, one, ErrParams, "4096"},
		"virtual nodes -64":    {Params{VirtualNodes: -64}, one, ErrParams, "virtual nodes"},
		"bound -1":             {Params{64, -1}, one, ErrParams, "bound"},
		"bound 1009":           {Params{64, 1009}, one, ErrParams, "1010"},
		"bound 10001":          {Params{64, 10001}, one, ErrParams, "10000"},
		"empty id":             {k64, []Member{{Weight: 1}}, ErrMember, "id"},
		"id of 256 bytes":      {k64, []Member{{ID: strings.Repeat("x", 256), Weight: 1}}, ErrMember, "255"},
		"weight 0":             {k64, []Member{{ID: "a"}}, ErrMember, "weight"},
		"weight 1001":          {k64, []Member{{ID: "a", Weight: 1001}}, ErrMember, "1000"},
		"state 3":              {k64, []Member{{ID: "a", Weight: 1, State: 3}}, ErrMember, "state"},
		"an id twice":          {k64, []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "a", Weight: 2}}, ErrDuplicate, `"a"`},
		"more than MaxPoints":  {Params{VirtualNodes: 4096}, heavy(9), ErrTooLarge, strconv.Itoa(MaxPoints)},
		"more than MaxMembers": {k64, make([]Member, MaxMembers+1), ErrTooLarge, strconv.Itoa(MaxMembers)},
	} {
		_, err := New(test.params, test.members)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("New with %s: %v, want %v with %q", name, err, test.want, test.text)
		}
		if _, err := mustNew(t, k64, one).With(test.params, test.members); !errors.Is(err, test.want) {
			t.Errorf("With with %s: %v, want %v", name, err, test.want)
		}
	}
}

func heavy(n int) []Member {
	members := benchMembers(n)
	for i := range members {
		members[i].Weight = MaxWeight
	}
	return members
}

func TestEmptyRing(t *testing.T) {
	for name, members := range map[string][]Member{"no members": nil, "all draining": {{ID: "a", Weight: 1, State: Draining}}} {
		r := mustNew(t, Params{VirtualNodes: 64, Bound: 1100}, members)
		if r.Match("k") != -1 || len(r.MatchN(nil, "k", 3)) != 0 || r.MatchBatch(nil, []string{"k"})[0] != -1 {
			t.Errorf("%s: a key has an owner", name)
		}
		if loc := r.Locate("k"); loc.Owner != "" || loc.Why == "" {
			t.Errorf("%s: located at %+v", name, loc)
		}
		if s := r.Stats(); s.Points != 0 || s.Largest != 0 || s.Deviation != 0 {
			t.Errorf("%s: stats %+v", name, s)
		}
	}
}

func TestInputsAreNeitherRetainedNorShared(t *testing.T) {
	members := []Member{{ID: "b", Weight: 1}, {ID: "a", Weight: 1}}
	r := mustNew(t, DefaultParams(), members)
	if members[0].ID != "b" {
		t.Error("New sorted its argument")
	}
	members[0].ID, members[1].ID = "x", "x"
	r.Members()[0].ID = "y"
	if r.Member(0).ID != "a" || r.Member(1).ID != "b" || r.Member(2) != (Member{}) || r.Member(-1) != (Member{}) {
		t.Errorf("members are %v", r.Members())
	}
}

func TestLookupsAllocateNothing(t *testing.T) {
	members := benchMembers(100)
	members[3].State = Held
	for _, bound := range []int{0, 1050} {
		r := mustNew(t, Params{VirtualNodes: 64, Bound: bound}, members)
		keys := benchKeys()[:100]
		many, one := make([]int, 0, 64), make([]int32, 0, 100)
		for name, f := range map[string]func(){
			"Match":       func() { r.Match(keys[7]) },
			"MatchN":      func() { r.MatchN(many, keys[7], 64) },
			"MatchBatch":  func() { r.MatchBatch(one, keys) },
			"Member":      func() { r.Member(7) },
			"Fingerprint": func() { r.Fingerprint() },
			"Digest":      func() { r.Digest() },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("bound %d: %s allocates %v times", bound, name, n)
			}
		}
	}
}

// The memory per point is stated as at most 9 bytes, whatever the number of points.
func TestBytesPerPoint(t *testing.T) {
	for n := 60; n < 2000; n += 1 + n/7 {
		r := mustNew(t, Params{VirtualNodes: 64}, benchMembers(n))
		if got, limit := r.table.bytes(), 9*r.NumPoints()+4*window+4; got > limit {
			t.Errorf("%d members: %d bytes for %d points, want at most %d", n, got, r.NumPoints(), limit)
		}
	}
}

func TestIndexStaysSmallWhenNearlyAllDrain(t *testing.T) {
	members := benchMembers(50_000)
	for i := range members[1:] {
		members[i+1].State = Draining
	}
	r := mustNew(t, Params{VirtualNodes: 64}, members)
	if got := r.table.bytes(); got > 9*r.NumPoints()+8*len(members)+4*window+4 {
		t.Errorf("%d bytes", got)
	}
	if m := r.Match("k"); m != 0 {
		t.Errorf("owner %d", m)
	}
}

// Readers go on with the ring they loaded while others are published. Run with -race.
func TestPublishUnderReaders(t *testing.T) {
	rnd := seed.Rand(t)
	p, members := randomSet(rnd, 20)
	members = append(members, Member{ID: "stays", Weight: 1})
	var shared atomic.Pointer[Ring]
	shared.Store(mustNew(t, p, members))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for i := 0; !done.Load(); i++ {
				readOnce(t, shared.Load(), strconv.Itoa(i))
				runtime.Gosched()
			}
		})
	}
	for range 60 {
		members = append(mutate(rnd, members[:len(members)-1]), members[len(members)-1])
		shared.Store(mustWith(t, shared.Load(), p, members))
	}
	done.Store(true)
	readers.Wait()
}

func readOnce(t *testing.T, r *Ring, key string) {
	owner := r.Match(key)
	if list := r.MatchN(nil, key, 2); list[0] != owner || r.Member(owner).State == Draining {
		t.Errorf("Match %d, MatchN %v", owner, list)
	}
	if batch := r.MatchBatch(nil, []string{key, key}); int(batch[1]) != owner {
		t.Errorf("Match %d, MatchBatch %v", owner, batch)
	}
	if r.Fingerprint() != InputsOf(r.params, r.members).Fingerprint(r.params) {
		t.Error("the fingerprint changed")
	}
	if r.Digest() != r.digest() {
		t.Error("the digest changed")
	}
}

// Several readers may be the first to ask for the digest. Run with -race.
func TestDigestFromManyReaders(t *testing.T) {
	for range 20 {
		r := mustNew(t, Params{VirtualNodes: 64}, benchMembers(3))
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				if r.Digest() != r.digest() {
					t.Error("another digest than that of the points")
				}
			})
		}
		readers.Wait()
	}
}
