package ring

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/store/storetest/seed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func mustNew(t testing.TB, p Params, members []Member) *Ring {
	t.Helper()
	r, err := New(p, members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustWith(t testing.TB, r *Ring, p Params, members []Member) *Ring {
	t.Helper()
	next, err := r.With(p, members)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// randomSet draws members, and now and then other parameters.
func randomSet(rnd *rand.Rand, most int) (Params, []Member) {
	p := Params{VirtualNodes: 64 << rnd.IntN(2)}
	if rnd.IntN(2) == 0 {
		p.Bound = 1010 + rnd.IntN(300)
	}
	var members []Member
	for i := range rnd.IntN(most + 1) {
		members = append(members, randomMember(rnd, strconv.Itoa(i)))
	}
	rnd.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return p, members
}

func randomMember(rnd *rand.Rand, id string) Member {
	m := Member{ID: id, Weight: 1}
	if rnd.IntN(3) == 0 {
		m.Weight = 1 + rnd.IntN(4)
	}
	if rnd.IntN(4) == 0 {
		m.State = State(rnd.IntN(3))
	}
	return m
}

// mutate changes a few members of a set.
func mutate(rnd *rand.Rand, members []Member) []Member {
	members = slices.Clone(members)
	for range 1 + rnd.IntN(2) {
		id := strconv.Itoa(rnd.IntN(30))
		i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
		switch {
		case i < 0:
			members = append(members, randomMember(rnd, id))
		case rnd.IntN(2) == 0:
			members[i] = randomMember(rnd, id)
		default:
			members = slices.Delete(members, i, i+1)
		}
	}
	return members
}

// requireNaive compares a ring with the naive one in everything that is visible.
func requireNaive(t testing.TB, r *Ring, n *naive) {
	t.Helper()
	if err := compareNaive(r, n); err != nil {
		t.Fatalf("%v\nparams %+v\nmembers %+v", err, n.params, n.members)
	}
}

func compareNaive(r *Ring, n *naive) error {
	if !slices.Equal(r.Members(), n.members) {
		return fmt.Errorf("members %v", r.Members())
	}
	if r.NumPoints() != len(n.points) || r.Bound() != n.bound {
		return fmt.Errorf("points %d, bound %d; want %d, %d", r.NumPoints(), r.Bound(), len(n.points), n.bound)
	}
	i := 0
	for p := range r.Points() {
		got := naivePoint{p.Hash, r.Member(p.Member).ID, r.Member(p.Owner).ID, p.Index}
		if got != n.points[i] {
			return fmt.Errorf("point %d is %+v, want %+v", i, got, n.points[i])
		}
		if i%(1+len(n.points)/20) == 0 && r.pointAt(i) != p {
			return fmt.Errorf("point %d located as %+v, want %+v", i, r.pointAt(i), p)
		}
		i++
	}
	if i != len(n.points) {
		return fmt.Errorf("%d points yielded", i)
	}
	for _, h := range probes(n) {
		if err := compareOwners(r, n, h); err != nil {
			return err
		}
	}
	if got, want := r.Fingerprint(), n.fingerprint(); got != want {
		return fmt.Errorf("fingerprint %#x, want %#x", got, want)
	}
	if got, want := r.Digest(), n.digest(); got != want {
		return fmt.Errorf("digest %#x, want %#x", got, want)
	}
	return nil
}

// compareOwners looks a hash up in both rings.
func compareOwners(r *Ring, n *naive, h uint64) error {
	if r.NumPoints() == 0 {
		return nil
	}
	at := r.table.find(h)
	if got := r.Member(int(r.table.ownerAt(at))).ID; got != n.owner(h) {
		return fmt.Errorf("owner of %#x is %q, want %q", h, got, n.owner(h))
	}
	count := 1 + int(h%7)
	var ids []string
	for _, m := range r.clockwise(nil, at%r.NumPoints(), min(count, r.owners)) {
		ids = append(ids, r.Member(m).ID)
	}
	if want := n.owners(h, count); !slices.Equal(ids, want) {
		return fmt.Errorf("owners of %#x are %q, want %q", h, ids, want)
	}
	return nil
}

// probes are hashes at, before and after some points, and at both ends of the key space.
func probes(n *naive) []uint64 {
	hashes := []uint64{0, 1, 1<<64 - 1, 1 << 63}
	for i := 0; i < len(n.points); i += 1 + len(n.points)/40 {
		h := n.points[i].hash
		hashes = append(hashes, h-1, h, h+1)
	}
	return hashes
}

func TestRingEqualsNaive(t *testing.T) {
	rnd := seed.Rand(t)
	for range 60 {
		p, members := randomSet(rnd, 12)
		requireNaive(t, mustNew(t, p, members), newNaive(p, members))
	}
}

func TestHistoryEqualsNaive(t *testing.T) {
	rnd := seed.Rand(t)
	for range 3 {
		p, members := randomSet(rnd, 30)
		r := mustNew(t, p, members)
		for range 25 {
			if members = mutate(rnd, members); rnd.IntN(8) == 0 {
				p, _ = randomSet(rnd, 0)
			}
			before, digest := r, r.digest()
			r = mustWith(t, r, p, members)
			requireNaive(t, r, newNaive(p, members))
			if before.digest() != digest {
				t.Fatal("With changed the ring it started from")
			}
		}
	}
}

// collide passes the hashes of all points through a function, until the test ends.
func collide(t testing.TB, squeeze func(uint64) uint64) {
	t.Helper()
	place(t, func(id string, i int) uint64 {
		return squeeze(xxhash.Sum64String(id + "_" + strconv.Itoa(i)))
	})
}

// place replaces the hash of points, until the test ends.
func place(t testing.TB, hash func(id string, i int) uint64) {
	t.Helper()
	naiveHash = func(name string) uint64 {
		at := strings.LastIndexByte(name, '_')
		i, err := strconv.Atoi(name[at+1:])
		if err != nil {
			t.Error(err)
		}
		return hash(name[:at], i)
	}
	appendPointHashes = func(dst []uint64, id string, lo, hi int) []uint64 {
		for i := lo; i < hi; i++ {
			dst = append(dst, hash(id, i))
		}
		return dst
	}
	t.Cleanup(func() {
		naiveHash = func(name string) uint64 { return xxhash.Sum64([]byte(name)) }
		appendPointHashes = xxh64Points
	})
}

// Points that share a bucket, a head or the whole hash must neither get lost nor change places.
func TestCollisionsEqualNaive(t *testing.T) {
	for name, squeeze := range map[string]func(uint64) uint64{
		"one bucket":     func(h uint64) uint64 { return 0xabcd<<48 | h>>16 },
		"one head":       func(h uint64) uint64 { return 0xabcdef01<<32 | h>>32 },
		"one head, last": func(h uint64) uint64 { return 0xffffffff<<32 | h>>32 },
		"equal hashes":   func(h uint64) uint64 { return h &^ (1<<58 - 1) },
		"few, low":       func(h uint64) uint64 { return h & 0x1f },
		"two":            func(h uint64) uint64 { return h >> 63 << 5 },
	} {
		t.Run(name, func(t *testing.T) {
			collide(t, squeeze)
			rnd := seed.Rand(t)
			for range 4 {
				p, members := randomSet(rnd, 9)
				if strings.HasPrefix(name, "two") {
					p.Bound = 0
				}
				r := mustNew(t, p, members)
				requireNaive(t, r, newNaive(p, members))
				for range 6 {
					members = mutate(rnd, members)
					r = mustWith(t, r, p, members)
					requireNaive(t, r, newNaive(p, members))
				}
			}
		})
	}
}
