package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/ring"
)

func TestEveryContenderRuns(t *testing.T) {
	c := config{members: 10, keys: 5000, rounds: 1, duration: time.Millisecond}
	results, err := measureAll(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.skipped != "" || r.serial <= 0 || r.parallel <= 0 || r.build <= 0 || r.join <= 0 || r.largest < 1 || r.moved < 1 {
			t.Errorf("%+v", r)
		}
	}
	if text := table(c, results); strings.Count(text, "\n") != len(entries)+5 {
		t.Error(text)
	}
}

// With a ring size of K · members the ring of gRPC and the registry's have the same points.
func TestGRPCHasTheSamePoints(t *testing.T) {
	for _, n := range []int{2, 16, 100} {
		ids := makeIDs(n)
		built, err := newGRPC(256*n, 256*n)(ids)
		if err != nil {
			t.Fatal(err)
		}
		mine, err := ours(ring.Params{VirtualNodes: 256})(ids)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []ring.PointRecord
		for _, p := range built.(*grpcRing).points {
			want = append(want, ring.PointRecord{Hash: ring.Hex64(p.hash), ID: p.key})
		}
		r := mine.(*registryRing).ring.Load()
		for p := range r.Points() {
			got = append(got, ring.PointRecord{Hash: ring.Hex64(p.Hash), ID: r.Member(p.Member).ID})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d members: the points differ", n)
		}
		for _, key := range makeKeys(1000) {
			if built.lookup(key) != mine.lookup(key) {
				t.Errorf("%d members: %s", n, key)
			}
		}
	}
}

func TestRunRefusesBadFlags(t *testing.T) {
	good := config{keys: 10, rounds: 1, duration: time.Millisecond}
	for _, members := range []string{"", "x", "1", "100001", "10,"} {
		if run(members, good) == nil {
			t.Errorf("members %q accepted", members)
		}
	}
	if run("10", config{}) == nil {
		t.Error("an empty config accepted")
	}
}
