package ring

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// isDocumented reports whether an error is one of those that New may return.
func isDocumented(err error) bool {
	return errors.Is(err, ErrParams) || errors.Is(err, ErrMember) || errors.Is(err, ErrDuplicate) || errors.Is(err, ErrTooLarge)
}

// FuzzNew builds rings of arbitrary parameters and members: a documented error, or the naive ring.
func FuzzNew(f *testing.F) {
	f.Add(64, 0, "a\nb\nc", 1, uint8(0))
	f.Add(128, 1100, "a\nb\n\xff", 3, uint8(1))
	f.Add(-1, 1, "", 0, uint8(9))
	f.Fuzz(func(t *testing.T, k, bound int, ids string, weight int, state uint8) {
		var members []Member
		for i, id := range strings.Split(ids, "\n") {
			members = append(members, Member{ID: id, Weight: 1})
			if i == 0 {
				members[0].Weight, members[0].State = weight, State(state)
			}
		}
		p := Params{k, bound}
		if k > 256 || weight > 10 && weight <= MaxWeight || len(members) > 8 {
			return // slow in the naive implementation, and nothing new
		}
		r, err := New(p, members)
		if err != nil {
			if !isDocumented(err) {
				t.Fatal(err)
			}
			return
		}
		requireNaive(t, r, newNaive(p, members))
	})
}

// FuzzMatch looks arbitrary keys up.
func FuzzMatch(f *testing.F) {
	members := benchMembers(100)
	members[4].State, members[5].State, members[6].Weight = Held, Draining, 9
	rings := []*Ring{mustNew(f, Params{64, 0}, members), mustNew(f, Params{64, 1050}, members), mustNew(f, Params{64, 0}, nil)}
	naives := []*naive{newNaive(rings[0].params, members), newNaive(rings[1].params, members)}
	f.Add("", 0)
	f.Add("user-id-1", 3)
	f.Add(strings.Repeat("k", 4096), -7)
	f.Fuzz(func(t *testing.T, key string, n int) {
		for i, r := range rings {
			owner := r.Match(key)
			if batch := r.MatchBatch(nil, []string{key}); int(batch[0]) != owner {
				t.Fatalf("Match %d, MatchBatch %v", owner, batch)
			}
			loc := r.Locate(key)
			if i == 2 {
				continue
			}
			var ids []string
			for _, m := range r.MatchN(nil, key, n) {
				ids = append(ids, r.Member(m).ID)
			}
			want := naives[i].owners(Hash(key), n)
			if !slices.Equal(ids, want) || loc.Owner != r.Member(owner).ID {
				t.Fatalf("MatchN %v, want %v; Match %d; located at %+v", ids, want, owner, loc)
			}
			requireLocation(t, r, loc)
		}
	})
}

// FuzzHistory interprets the input as changes of a set, with point hashes squeezed into a few bits.
func FuzzHistory(f *testing.F) {
	f.Add(uint64(0), uint64(1<<64-1), 0, []byte{1, 2, 3, 0x41, 0x82, 1})
	f.Add(uint64(0xff<<56), uint64(0xff), 1100, []byte{1, 2, 3, 4, 5, 6, 0xc3})
	f.Fuzz(func(t *testing.T, set, keep uint64, bound int, ops []byte) {
		p := Params{VirtualNodes: 64, Bound: bound}
		if p.Validate() != nil || len(ops) > 24 || bound != 0 && keep>>40 == 0 {
			return // a bound on a handful of distinct hashes is beyond the specification
		}
		collide(t, func(h uint64) uint64 { return h&keep | set&^keep })
		var members []Member
		r := mustNew(t, p, nil)
		for _, op := range ops {
			members = applyOp(members, op)
			r = mustWith(t, r, p, members)
			requireNaive(t, r, newNaive(p, members))
		}
	})
}

// applyOp makes one change: four bits for the id, the others for what happens to it.
func applyOp(members []Member, op byte) []Member {
	id := string('a' + rune(op&15))
	members = slices.Clone(members)
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
	switch {
	case i < 0:
		return append(members, Member{ID: id, Weight: 1 + int(op>>6)})
	case op>>4&1 == 0:
		return slices.Delete(members, i, i+1)
	}
	members[i].Weight, members[i].State = 1+int(op>>6), State(op>>5&1)
	return members
}

// FuzzPlan plans arbitrary changes: a documented error, or the difference of the two rings.
func FuzzPlan(f *testing.F) {
	r := mustNew(f, Params{VirtualNodes: 64}, []Member{{"a", 1, Active}, {"b", 2, Held}, {"c", 1, Draining}})
	f.Add([]byte(`{"join":[{"id":"x","weight":1}],"leave":["a"],"drain":["b"],"activate":["c"],"virtual_nodes":128}`))
	f.Add([]byte(`{"weights":{"a":3},"hold":["b"],"bound":1100}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Change
		if json.Unmarshal(data, &c) != nil || c.VirtualNodes > 256 || len(data) > 400 {
			return
		}
		for _, m := range c.Join {
			if m.Weight > 20 && m.Weight <= MaxWeight {
				return
			}
		}
		for _, w := range c.Weights {
			if w > 20 && w <= MaxWeight {
				return
			}
		}
		plan, err := NewPlan(r, c)
		if err != nil {
			if !isDocumented(err) && !errors.Is(err, ErrChange) {
				t.Fatal(err)
			}
			return
		}
		p, members, _ := c.Apply(r.Params(), r.Members())
		after := mustNew(t, p, members)
		if !slices.Equal(plan.Ranges(), naiveDiff(newNaive(r.params, r.members), newNaive(p, members))) {
			t.Fatalf("plan for %s is not the difference", data)
		}
		requirePlanSums(t, plan, r, after)
	})
}

// FuzzParseSaved reads arbitrary saved rings; what it accepts it must save again alike.
func FuzzParseSaved(f *testing.F) {
	for _, v := range vectorInputs {
		f.Add([]byte(mustJSON(mustNew(f, v.Params, v.Members).Save())))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4000 {
			return
		}
		r, err := ParseSaved(data)
		if err != nil {
			if !isDocumented(err) && !errors.Is(err, ErrSaved) && !errors.Is(err, ErrFingerprint) && !errors.Is(err, ErrDigest) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseSaved([]byte(mustJSON(r.Save())))
		if err != nil || again.Fingerprint() != r.Fingerprint() || again.Digest() != r.Digest() {
			t.Fatalf("%s: %v", data, err)
		}
	})
}

// FuzzText reads every text form of the package; what is accepted must survive being written and read.
func FuzzText(f *testing.F) {
	for _, s := range []string{"5%", "0.25%", "held", "0x00ff", `{"percent":"1%","units":"0x01"}`, `{"lo":"0x01","hi":"0x10000000000000000","from":"a","to":""}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseShare(text); err == nil && s.Cmp(Share{Hi: 1}) > 0 || err != nil && !errors.Is(err, ErrShare) {
			t.Fatal(s, err)
		}
		var h Hex64
		if err := h.UnmarshalText([]byte(text)); err == nil {
			roundTrip(t, h)
		} else if !errors.Is(err, ErrHash) {
			t.Fatal(err)
		}
		var state State
		if err := state.UnmarshalText([]byte(text)); err == nil && state.String() != text {
			t.Fatal(state)
		}
		var share Share
		if json.Unmarshal([]byte(text), &share) == nil {
			roundTrip(t, share)
		}
		var r Range
		if json.Unmarshal([]byte(text), &r) == nil && utf8.ValidString(r.From+r.To) {
			roundTrip(t, r)
		}
	})
}
