package fsm

import (
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// scratchDigest computes the digest from the records alone, with its own encoder:
// a tag, then each string with its length and each number, as uvarints.
func scratchDigest(s *State) uint64 {
	var sum uint64
	add := func(tag byte, fields ...any) {
		rec := []byte{tag}
		for _, f := range fields {
			switch v := f.(type) {
			case string:
				rec = append(binary.AppendUvarint(rec, uint64(len(v))), v...)
			case uint64:
				rec = binary.AppendUvarint(rec, v)
			}
		}
		sum += xxhash.Sum64(rec)
	}
	for g := range s.Groups {
		add(1, g.Name, uint64(g.Params.VirtualNodes), uint64(g.Params.Bound), g.Revision)
		for m := range g.Members {
			f := []any{g.Name, m.ID, m.Addr, uint64(m.Weight), uint64(len(m.Meta))}
			for _, p := range m.Meta {
				f = append(f, p.Key, p.Value)
			}
			f = append(f, uint64(m.State), m.Instance, m.LeaseID, m.Epoch, uint64(m.TTL),
				m.CreatedIndex, m.ModifiedIndex, uint64(m.RegisteredMS))
			if m.Hold != 0 || m.Token != "" {
				f = append(f, uint64(m.Hold))
			}
			if m.Token != "" {
				f = append(f, m.Token)
			}
			add(2, f...)
		}
	}
	for n := range s.Nodes {
		f := []any{n.ID, n.Bind, n.Addr, n.Version, n.Incarnation}
		if n.Nonvoter {
			f = append(f, uint64(1))
		}
		if n.Zone != "" {
			f = append(f, uint64(2), n.Zone)
		}
		add(3, f...)
	}
	s.fences.byInstance.Scan(func(_ string, f *Fence) bool {
		add(4, f.Group, f.ID, f.Instance, f.Index)
		return true
	})
	if s.Term() != 0 {
		add(5, s.Term(), s.Leader())
	}
	for t := range s.Tokens {
		f := []any{t.ID, t.Name, string(t.Hash[:]), uint64(len(t.Grants))}
		for _, g := range t.Grants {
			f = append(f, uint64(g.Rights), g.Prefix)
		}
		add(6, append(f, uint64(t.ExpiresMS), uint64(t.CreatedMS), string(t.PreviousHash[:]), uint64(t.PreviousExpiresMS), t.CreatedIndex, t.ModifiedIndex)...)
	}
	return sum
}

func TestDigestIsThatOfTheRecords(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	for range historyLength() {
		h.step()
		s := h.log.m.State()
		if got := scratchDigest(s); got != s.Digest() {
			t.Fatalf("entry %d: digest %016x, recomputed %016x", s.Index(), s.Digest(), got)
		}
		var groups uint64
		for g := range s.Groups {
			groups += g.Digest()
			var weight uint64
			for m := range g.Members {
				weight += uint64(m.Weight)
			}
			if weight != g.weight {
				t.Fatalf("entry %d: group %q counts weight %d, has %d", s.Index(), g.Name, g.weight, weight)
			}
		}
		rest := newState()
		rest.nodes, rest.fences, rest.tokens, rest.term, rest.leader = s.nodes, s.fences, s.tokens, s.term, s.leader
		if groups+scratchDigest(rest) != s.Digest() {
			t.Fatalf("entry %d: the groups' digests do not add up", s.Index())
		}
	}
}

// Every field of a record is in the digest.
func TestDigestSeesEveryField(t *testing.T) {
	base := func() *log {
		l := newLog(t)
		s := newRegistration("web", "a", "10.0.0.1:80", "one")
		s.Meta = []*fsmpb.Pair{{Key: "k", Value: "v"}}
		l.must(register(s))
		l.must(setNode(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "x"}))
		l.must(rootToken())
		return l
	}
	seen := map[uint64]string{base().m.State().Digest(): "base"}
	member := func(edit func(*Member)) func(*log) {
		return func(l *log) {
			b := newBatch(l.m.State(), new(metas))
			m := *l.member("web", "a")
			edit(&m)
			b.put(b.group("web"), &m)
			next, _ := b.finish()
			l.m.state.Store(next)
		}
	}
	token := func(edit func(*Token)) func(*log) {
		return func(l *log) {
			b := newBatch(l.m.State(), new(metas))
			was := *b.next.TokenNamed("root")
			edit(&was)
			b.putToken(&was)
			next, _ := b.finish()
			l.m.state.Store(next)
		}
	}
	node := func(n *fsmpb.Node) func(*log) { return func(l *log) { l.must(setNode(n)) } }
	for name, change := range map[string]func(*log){
		"addr":        member(func(m *Member) { m.Addr = "10.0.0.1:81" }),
		"weight":      member(func(m *Member) { m.Weight = 2 }),
		"meta key":    member(func(m *Member) { m.Meta = []Pair{{"kv", ""}} }),
		"meta value":  member(func(m *Member) { m.Meta = []Pair{{"k", "w"}} }),
		"meta split":  member(func(m *Member) { m.Meta = []Pair{{"", "kv"}} }),
		"no meta":     member(func(m *Member) { m.Meta = nil }),
		"state":       member(func(m *Member) { m.State = 1 }),
		"instance":    member(func(m *Member) { m.Instance = "two" }),
		"lease":       member(func(m *Member) { m.LeaseID = 77 }),
		"epoch":       member(func(m *Member) { m.Epoch = 78 }),
		"ttl":         member(func(m *Member) { m.TTL++ }),
		"created":     member(func(m *Member) { m.CreatedIndex = 79 }),
		"modified":    member(func(m *Member) { m.ModifiedIndex = 80 }),
		"hold":        member(func(m *Member) { m.Hold = 8 }),
		"owner":       member(func(m *Member) { m.Token = "12345678" }),
		"short owner": member(func(m *Member) { m.Token = "1" }),
		"hash":        token(func(t *Token) { t.Hash[31]++ }),
		"rights":      token(func(t *Token) { t.Grants = []Grant{{Rights: Admin}} }),
		"prefix":      token(func(t *Token) { t.Grants = []Grant{{Rights: allRights, Prefix: "p"}} }),
		"grants":      token(func(t *Token) { t.Grants = []Grant{{Rights: allRights}, {Rights: Admin}} }),
		"expiry":      token(func(t *Token) { t.ExpiresMS = 90 }),
		"made":        token(func(t *Token) { t.CreatedMS = 91 }),
		"previous":    token(func(t *Token) { t.PreviousHash[0] = 92 }),
		"overlap":     token(func(t *Token) { t.PreviousExpiresMS = 93 }),
		"made at":     token(func(t *Token) { t.CreatedIndex = 94 }),
		"rotated at":  token(func(t *Token) { t.ModifiedIndex = 95 }),
		"registered":  member(func(m *Member) { m.RegisteredMS = 81 }),
		"bind":        node(&fsmpb.Node{Id: "n1", Bind: "n1:3", Addr: "n1:2", Version: "v", Incarnation: "x"}),
		"node addr":   node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:3", Version: "v", Incarnation: "x"}),
		"version":     node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "w", Incarnation: "x"}),
		"incarnation": node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "y"}),
		"nonvoter":    node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "x", Nonvoter: true}),
		"zone":        node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "x", Zone: "z"}),
		"zone, too":   node(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "x", Zone: "z", Nonvoter: true}),
		"params":      func(l *log) { l.must(setGroup("web", 64, 0, 0)) },
		"bound":       func(l *log) { l.must(setGroup("web", 256, 1100, 0)) },
		"term":        func(l *log) { l.must(termStart("n1")) },
		"fence":       func(l *log) { l.must(deregister("web", "a", "late")) },
	} {
		l := base()
		change(l)
		got := l.m.State().Digest()
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[got] = name
		if got != scratchDigest(l.m.State()) {
			t.Errorf("%s: digest is not that of the records", name)
		}
	}
}
