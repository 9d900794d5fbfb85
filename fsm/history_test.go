package fsm

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// history draws commands over few names, so that they meet: refreshes,
// takeovers, conflicts, fences, expiries of this and of other terms, deletions.
type history struct {
	r    *rand.Rand
	log  *log
	done []Entry
}

func newHistory(tb testing.TB, r *rand.Rand) *history {
	return &history{r: r, log: newLog(tb)}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (h *history) group() string { return pick(h.r, "web", "db", "cache", "g\u00e9", "web2") }
func (h *history) id() string    { return "m" + itoa(h.r.IntN(12)) }

func (h *history) registration() *registration {
	s := newRegistration(h.group(), h.id(), "10.0.0."+itoa(1+h.r.IntN(3))+":80", "i"+itoa(h.r.IntN(5)))
	s.Weight = uint32(1 + h.r.IntN(4))
	s.TtlMs = pick(h.r, int64(1000), 10_000, 86_400_000)
	s.TakeOver = h.r.IntN(4) == 0
	for i := range h.r.IntN(3) {
		s.Meta = append(s.Meta, &fsmpb.Pair{Key: "k" + itoa(i), Value: "v" + itoa(h.r.IntN(2))})
	}
	return s
}

func (h *history) lease() *fsmpb.ExpiredLease {
	group := h.group()
	if m := h.log.member(group, h.id()); m != nil {
		l := leaseOf(group, m)
		l.Epoch -= uint64(h.r.IntN(4) / 3) // now and then one too old
		return l
	}
	return &fsmpb.ExpiredLease{Group: group, Id: "m0", LeaseId: 1, Epoch: 1}
}

// command draws one, of a caller with a token or without.
func (h *history) command() *fsmpb.Command {
	return as(pick(h.r, "", "t0", "t1"), h.r.IntN(3) == 0, h.anonymous())
}

func (h *history) token() string { return "t" + itoa(h.r.IntN(4)) }

func (h *history) tokenCommand() *fsmpb.Command {
	switch h.r.IntN(5) {
	case 0:
		return rootToken()
	case 1, 2:
		t := newTestToken(h.token(), grant(pick(h.r, Discover, Register|Operate), pick(h.r, "", "we", "db")), grant(allRights, ""))
		t.ExpiresMs = pick(h.r, int64(0), 1<<40)
		cmd := createToken(t)
		cmd.TimeMs = h.r.Int64N(1 << 40)
		return cmd
	case 3:
		return rotateToken(h.token(), "h"+itoa(h.r.IntN(3)), pick(h.r, int64(0), 1<<41))
	default:
		return revokeToken(pick(h.r, "root", h.token()))
	}
}

func (h *history) anonymous() *fsmpb.Command {
	switch n := h.r.IntN(106); {
	case n >= 100:
		return h.tokenCommand()
	case n < 50:
		cmd := register(h.registration())
		cmd.TimeMs = h.r.Int64N(1 << 40)
		return cmd
	case n < 65:
		return deregister(h.group(), h.id(), pick(h.r, "", "i0", "i1", "i2"))
	case n < 75:
		return expire(h.log.term-uint64(h.r.IntN(3)/2), h.lease(), h.lease(), h.lease())
	case n < 80:
		h.log.term += uint64(1 + h.r.IntN(2))
		return termStart("n" + itoa(h.r.IntN(3)))
	case n < 84:
		return setNode(&fsmpb.Node{Id: "n" + itoa(h.r.IntN(3)), Bind: "n:1", Addr: "n:2", Version: pick(h.r, "v1", "v2"), Nonvoter: h.r.IntN(2) == 0})
	case n < 86:
		return removeNode("n" + itoa(h.r.IntN(3)))
	case n < 91:
		return setGroup(h.group(), pick[uint32](h.r, 64, 128, 256), pick[uint32](h.r, 0, 0, 1100, 1500), uint64(h.r.IntN(2)*h.r.IntN(50)))
	case n < 94:
		return hold(h.group(), h.id(), pick(h.r, int64(1000), 30_000), pick(h.r, "", "i0", "i1", "i2", "i3", "i4"))
	case n < 95:
		return deregisterUnlessHeld(h.group(), h.id(), pick(h.r, "i0", "i1", "i2"))
	case n < 97:
		return deleteGroup(h.group(), h.r.IntN(3) > 0, h.r.IntN(4) == 0, uint64(h.r.IntN(2)*h.r.IntN(50)))
	default:
		return updateMember(h.group(), h.id(), uint32(h.r.IntN(5)), uint32(h.r.IntN(4)))
	}
}

// step applies one entry, now and then one without data.
func (h *history) step() {
	var e Entry
	if h.r.IntN(50) == 0 {
		h.log.index++
		e = Entry{Index: h.log.index, Term: h.log.term}
	} else {
		e = h.log.entry(h.command())
	}
	h.log.m.Apply([]Entry{e})
	h.done = append(h.done, e)
	checkFingerprints(h.log.tb, h.log.m.State())
}

// split replays entries in batches of random sizes.
func split(r *rand.Rand, m *Machine, entries []Entry) (results []Result) {
	for len(entries) > 0 {
		n := min(len(entries), 1+r.IntN(40))
		results = append(results, m.Apply(entries[:n])...)
		entries = entries[n:]
	}
	return results
}

func sameState(t *testing.T, what string, a, b *Machine) {
	t.Helper()
	if x, y := a.State(), b.State(); x.Digest() != y.Digest() || x.Index() != y.Index() {
		t.Errorf("%s: digest %016x at %d, and %016x at %d", what, x.Digest(), x.Index(), y.Digest(), y.Index())
	}
	if !bytes.Equal(snapshotBytes(t, a.State()), snapshotBytes(t, b.State())) {
		t.Errorf("%s: snapshots differ", what)
	}
	checkFingerprints(t, a.State())
	checkFingerprints(t, b.State())
}

func historyLength() int {
	if testing.Short() {
		return 400
	}
	return 2000
}

func TestBatchSplitsDoNotMatter(t *testing.T) {
	r := seed.Rand(t)
	h := newHistory(t, r)
	for range historyLength() {
		h.step()
	}
	one, other := newLog(t).m, newLog(t).m
	a, b := split(r, one, h.done), split(r, other, h.done)
	sameState(t, "one by one and in batches", h.log.m, one)
	sameState(t, "in batches and in other batches", one, other)
	for i := range a {
		a[i].Err, b[i].Err = errText(a[i].Err), errText(b[i].Err)
		if !cmp.Equal(a[i], b[i]) {
			t.Fatalf("entry %d is answered %+v and %+v", h.done[i].Index, a[i], b[i])
		}
	}
}

type textError string

func (e textError) Error() string { return string(e) }

// errText makes errors comparable by their text.
func errText(err error) error {
	if err == nil {
		return nil
	}
	return textError(err.Error())
}

func TestPublishedStatesNeverChange(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	type held struct {
		state  *State
		digest uint64
		bytes  []byte
	}
	var all []held
	for i := range historyLength() {
		h.step()
		s := h.log.m.State()
		if i%10 == 0 {
			all = append(all, held{s, s.Digest(), snapshotBytes(t, s)})
		}
	}
	for _, was := range all {
		if got := scratchDigest(was.state); got != was.digest {
			t.Fatalf("state at %d had digest %016x, its records now have %016x", was.state.Index(), was.digest, got)
		}
		if !bytes.Equal(snapshotBytes(t, was.state), was.bytes) {
			t.Fatalf("state at %d changed after it was published", was.state.Index())
		}
	}
}

func TestRestoredMachineGoesOn(t *testing.T) {
	r := seed.Rand(t)
	h := newHistory(t, r)
	for range historyLength() / 2 {
		h.step()
	}
	data := snapshotBytes(t, h.log.m.State())
	rec := &recorder{}
	restored := newLog(t, rec).m
	restored.Apply([]Entry{{Index: 1}})
	if err := restored.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if rec.restored != 1 {
		t.Errorf("observers were notified %d times", rec.restored)
	}
	sameState(t, "after the restore", h.log.m, restored)
	at := len(h.done)
	for range historyLength() / 2 {
		h.step()
	}
	split(r, restored, h.done[at:])
	sameState(t, "going on", h.log.m, restored)
	if got := scratchDigest(restored.State()); got != restored.State().Digest() {
		t.Errorf("digest %016x, recomputed %016x", restored.State().Digest(), got)
	}
}
