package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry/store/storetest/seed"
)

func TestFingerprintKeptByDifferences(t *testing.T) {
	rnd := seed.Rand(t)
	for range 20 {
		p, members := randomSet(rnd, 30)
		in, r := InputsOf(p, members), mustNew(t, p, members)
		for step := range 30 {
			q, next := p, mutate(rnd, members)
			if rnd.IntN(5) == 0 {
				q, _ = randomSet(rnd, 0)
			}
			follow(&in, p, members, q, next)
			r = mustWith(t, r, q, next)
			p, members = q, next
			want := (&naive{params: p, members: members}).fingerprint()
			if in != InputsOf(p, members) || in.Fingerprint(p) != want || r.Fingerprint() != want {
				t.Fatalf("step %d: kept %#x, of the ring %#x, want %#x\nparams %+v\nmembers %+v",
					step, in.Fingerprint(p), r.Fingerprint(), want, p, members)
			}
		}
		for _, m := range members {
			in.Remove(m.ID, m.Points(p.VirtualNodes))
		}
		if in != (Inputs{}) {
			t.Fatalf("%+v is left without members", in)
		}
	}
}

// follow changes a sum by what differs between two sets of members.
func follow(in *Inputs, p Params, before []Member, q Params, after []Member) {
	stays := func(m Member, other []Member) bool {
		return p.VirtualNodes == q.VirtualNodes && slices.Contains(other, m)
	}
	for _, m := range before {
		if !stays(m, after) {
			in.Remove(m.ID, m.Points(p.VirtualNodes))
		}
	}
	for _, m := range after {
		if !stays(m, before) {
			in.Add(m.ID, m.Points(q.VirtualNodes))
		}
	}
}

// Sets are so small that many are drawn several times, in another order or with other states.
func TestFingerprintNamesTheInputs(t *testing.T) {
	rnd := seed.Rand(t)
	texts, prints, digests := map[uint64]string{}, map[string]uint64{}, map[uint64]uint64{}
	again := 0
	for range 2000 {
		p, members := smallSet(rnd)
		r, text := mustNew(t, p, members), inputsText(p, members)
		print, digest := r.Fingerprint(), r.Digest()
		if was, ok := prints[text]; ok && was != print {
			t.Fatalf("%s has fingerprints %#x and %#x", text, was, print)
		}
		if was, ok := texts[print]; ok && was != text {
			t.Fatalf("fingerprint %#x names %s and %s", print, was, text)
		}
		if was, ok := digests[print]; ok && was != digest {
			t.Fatalf("rings of fingerprint %#x, %s, have digests %#x and %#x", print, text, was, digest)
		} else if ok {
			again++
		}
		texts[print], prints[text], digests[print] = text, print, digest
	}
	if again < 500 || len(texts) < 100 {
		t.Errorf("%d sets, %d drawn again", len(texts), again)
	}
}

func smallSet(rnd *rand.Rand) (Params, []Member) {
	p := Params{64 << rnd.IntN(2), []int{0, 1100, 1200}[rnd.IntN(3)]}
	var members []Member
	for _, id := range []string{"a", "ab", "b"} {
		if rnd.IntN(4) > 0 {
			members = append(members, Member{id, 1 + rnd.IntN(2), State(rnd.IntN(3))})
		}
	}
	rnd.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return p, members
}

// inputsText says what a fingerprint names.
func inputsText(p Params, members []Member) string {
	var parts []string
	for _, m := range members {
		if m.State != Draining {
			parts = append(parts, fmt.Sprintf("%s×%d", m.ID, m.Weight))
		}
	}
	slices.Sort(parts)
	return fmt.Sprintf("K=%d B=%d %s", p.VirtualNodes, p.Bound, strings.Join(parts, " "))
}

func TestFingerprintHasTheWeight(t *testing.T) {
	one, two := []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}}, []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 2}}
	k := Params{VirtualNodes: 64}
	if mustNew(t, k, one).Fingerprint() == mustNew(t, k, two).Fingerprint() {
		t.Error("weights 1 and 2 have one fingerprint")
	}
	swapped := []Member{{ID: "a", Weight: 2}, {ID: "b", Weight: 1}}
	if mustNew(t, k, two).Fingerprint() == mustNew(t, k, swapped).Fingerprint() {
		t.Error("exchanged weights have one fingerprint")
	}
	twos := []Member{{ID: "a", Weight: 2}, {ID: "b", Weight: 2}}
	light, heavy := mustNew(t, Params{VirtualNodes: 128}, one), mustNew(t, k, twos)
	if light.Digest() != heavy.Digest() || light.Fingerprint() == heavy.Fingerprint() {
		t.Error("rings of equal points, with other virtual nodes and weights, have one fingerprint")
	}
}

func TestFingerprintNamesTheParameters(t *testing.T) {
	members := []Member{{ID: "a", Weight: 1}}
	prints := map[uint64]Params{}
	for _, p := range []Params{{64, 0}, {128, 0}, {64, 1100}, {64, 1200}} {
		r := mustNew(t, p, members)
		if other, ok := prints[r.Fingerprint()]; ok {
			t.Errorf("%+v and %+v have one fingerprint", p, other)
		}
		prints[r.Fingerprint()] = p
	}
	v := vectorInputs["bound-raised"]
	r := mustNew(t, v.Params, v.Members)
	raised := mustNew(t, Params{v.Params.VirtualNodes, r.Bound()}, v.Members)
	if r.Bound() == v.Params.Bound || r.Fingerprint() == raised.Fingerprint() {
		t.Errorf("the fingerprint names the bound %d that is in force", r.Bound())
	}
}
