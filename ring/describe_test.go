package ring

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocateExplains(t *testing.T) {
	members := []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1, State: Held}, {ID: "c", Weight: 1}, {ID: "d", Weight: 2, State: Draining}}
	r := mustNew(t, Params{VirtualNodes: 64, Bound: 1010}, members)
	seen := map[string]bool{}
	for _, key := range benchKeys()[:20000] {
		loc := r.Locate(key)
		requireLocation(t, r, loc)
		seen["wrapped"] = seen["wrapped"] || loc.Wrapped
		seen["bounded"] = seen["bounded"] || loc.Bounded
		seen["held"] = seen["held"] || loc.State == Held
	}
	if diff := cmp.Diff(map[string]bool{"wrapped": true, "bounded": true, "held": true}, seen); diff != "" {
		t.Errorf("cases not met: %s", diff)
	}
}

// requireLocation checks every field of a location against the lookup.
func requireLocation(t *testing.T, r *Ring, loc Location) {
	t.Helper()
	list := r.MatchN(nil, loc.Key, 4)
	ids := make([]string, len(list))
	for i, m := range list {
		ids[i] = r.Member(m).ID
	}
	ok := loc.Owner == ids[0] && cmp.Equal(loc.Next, ids[1:]) && loc.State == r.Member(list[0]).State
	ok = ok && uint64(loc.Point.Hash) == naiveHash(loc.Point.ID+"_"+itoa(loc.Point.Index))
	ok = ok && loc.Wrapped == (loc.Point.Hash < loc.Hash) && loc.Bounded == (loc.Point.ID != loc.Owner)
	ok = ok && (loc.State == Held) == (loc.Fallback != "")
	ok = ok && loc.Bounded == strings.Contains(loc.Why, strconv.Itoa(r.Bound())+" per mille") && loc.Wrapped == strings.Contains(loc.Why, "past the end")
	if !ok {
		t.Fatalf("%+v, point %+v; owners %v", loc, *loc.Point, ids)
	}
}

func itoa(i int) string { return string(json.Number(mustJSON(i))) }

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestStatsOfKnownShares(t *testing.T) {
	collide(t, func(h uint64) uint64 { return h>>62<<62 | 1 }) // quarters: 1, 2^62+1, 2^63+1, 3·2^62+1
	r := mustNew(t, Params{VirtualNodes: 64}, []Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 3}, {ID: "c", Weight: 1, State: Draining}})
	s := r.Stats()
	want := []MemberShare{ // all four points of a come before those of b
		{Member{"a", 1, Active}, 64, Share{Hi: 1}, 4_000_000},
		{Member{"b", 3, Active}, 192, Share{}, 0},
		{Member{"c", 1, Draining}, 0, Share{}, 0},
	}
	if diff := cmp.Diff(want, s.Shares); diff != "" {
		t.Error(diff)
	}
	if s.Largest != 4_000_000 || s.Smallest != 0 || s.Deviation != 2_236_067 { // √((3² + 1²) ÷ 2)
		t.Errorf("%+v", s)
	}
}

func TestBalance(t *testing.T) {
	s := mustNew(t, DefaultParams(), benchMembers(100)).Stats()
	if s.Largest < 1_100_000 || s.Largest > 1_250_000 || s.Deviation < 45_000 || s.Deviation > 80_000 {
		t.Errorf("largest %d ppm, deviation %d ppm; want about 1.16 and 0.0625", s.Largest, s.Deviation)
	}
}

func TestMovedShareOfABound(t *testing.T) {
	plain := mustNew(t, DefaultParams(), benchMembers(100))
	r := mustWith(t, plain, Params{DefaultVirtualNodes, 1100}, plain.Members())
	var moved Share
	for _, d := range Diff(plain, r) {
		moved = moved.Add(d.Share())
	}
	s := r.Stats()
	if s.MovedShare != moved || s.MovedArcs == 0 || s.Largest > 1_100_000 {
		t.Errorf("%v in %d arcs, want %v; largest %d", s.MovedShare, s.MovedArcs, moved, s.Largest)
	}
	if back := mustWith(t, r, DefaultParams(), r.Members()); Diff(back, plain) != nil || back.MovedArcs() != 0 {
		t.Error("without the bound the ring is not the plain one")
	}
}

// MovedArcs is what Stats reports.
func (r *Ring) MovedArcs() int { return len(r.moved) }

func TestParseShare(t *testing.T) {
	for text, want := range map[string]Share{
		"0%": {}, "100%": {Hi: 1}, "100.000%": {Hi: 1}, "50%": {Lo: 1 << 63}, "12.5%": {Lo: 1 << 61},
		"0.000000000001%": {Lo: 184468}, "5%": {Lo: 922337203685477581},
	} {
		if got, err := ParseShare(text); err != nil || got != want {
			t.Errorf("ParseShare(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "5", "-1%", "+1%", "1e1%", "100.1%", "101%", "300%", ".5%", "5.%", "0.0000000000001%", "1.-1%", "1_0%", " 5%"} {
		if got, err := ParseShare(text); !errors.Is(err, ErrShare) {
			t.Errorf("ParseShare(%q) = %v, %v; want an error", text, got, err)
		}
	}
	if s := (Share{Lo: 1 << 58}).String(); s != "1.562500%" {
		t.Error(s)
	}
}

func TestSharePercent(t *testing.T) {
	for want, s := range map[string]Share{
		"0.00%": {}, "100.00%": {Hi: 1}, "1.56%": {Lo: 1 << 58}, "0.78%": {Lo: 1 << 57}, "12.50%": {Lo: 1 << 61},
		"66.05%": {Lo: 1<<63 + 2960695045132752896}, "0.01%": {Lo: 1 << 50}, // 66.0499…% and 0.0061…%
	} {
		if got := s.Percent(); got != want {
			t.Errorf("%v is %s, want %s", s, got, want)
		}
	}
}

func TestJSONRoundTrips(t *testing.T) {
	roundTrip(t, Share{Lo: 12345})
	roundTrip(t, Share{Hi: 1})
	roundTrip(t, Range{Lo: 5, Hi: 0, From: "a", To: "b"})
	roundTrip(t, Range{Lo: 0, Hi: 1, To: "b"})
	roundTrip(t, Member{"a", 2, Held})
	r := mustNew(t, Params{64, 1100}, benchMembers(9))
	roundTrip(t, r.Stats())
	roundTrip(t, r.Save())
	roundTrip(t, r.Locate("k"))
}

func roundTrip[T any](t *testing.T, v T) {
	t.Helper()
	var back T
	if err := json.Unmarshal([]byte(mustJSON(v)), &back); err != nil {
		t.Errorf("%s: %v", mustJSON(v), err)
	} else if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("%s: %s", mustJSON(v), diff)
	}
}

func TestParseSaved(t *testing.T) {
	r := mustNew(t, Params{64, 1100}, benchMembers(9))
	good := mustJSON(r.Save())
	back, err := ParseSaved([]byte(good))
	if err != nil || Diff(r, back) != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"another weight":   {strings.Replace(good, `"weight":1`, `"weight":2`, 1), ErrFingerprint},
		"a draining one":   {strings.Replace(good, `"weight":1`, `"weight":1,"state":"draining"`, 1), ErrFingerprint},
		"another bound":    {strings.Replace(good, `"bound":1100`, `"bound":1200`, 1), ErrFingerprint},
		"another digest":   {strings.Replace(good, `"digest":"0x`, `"digest":"0xf`, 1), ErrSaved},
		"no digest":        {strings.Replace(good, mustJSON(Hex64(r.Digest())), `"0x0"`, 1), ErrDigest},
		"an unknown field": {strings.Replace(good, `"params"`, `"x":1,"params"`, 1), ErrSaved},
		"data after it":    {good + "{}", ErrSaved},
		"half of it":       {good[:len(good)/2], ErrSaved},
		"an unknown state": {strings.Replace(good, `"weight":1`, `"weight":1,"state":"gone"`, 1), ErrSaved},
		"bad parameters":   {strings.Replace(good, `"virtual_nodes":64`, `"virtual_nodes":65`, 1), ErrParams},
	} {
		if _, err := ParseSaved([]byte(test.text)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	collide(t, func(h uint64) uint64 { return h ^ 1 })
	if _, err := ParseSaved([]byte(good)); !errors.Is(err, ErrDigest) {
		t.Errorf("a ring built differently: %v, want %v", err, ErrDigest)
	}
}
