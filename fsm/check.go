package fsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/werbenhu/registry/ring"
)

// DigestVersion is the version of the digest's definition. Digests of two versions
// cannot be compared.
const DigestVersion = 1

// Mark is this node's digest at the log index of a check entry. All nodes that
// apply the same log have equal marks, whatever the batches.
type Mark struct{ Index, Digest uint64 }

// maxMarks bounds the marks that a machine keeps for the checks of slower nodes.
const maxMarks = 256

// check records the digest at the entry. The heads of open groups are not in the
// batch's sum.
func (b *batch) check() Result {
	digest := b.next.digest
	for _, g := range b.order {
		if !g.deleted {
			digest += groupHeadDigest(&g.Group)
		}
	}
	b.marks = append(b.marks, Mark{Index: b.index, Digest: digest})
	return Result{}
}

// noteMarks keeps a batch's marks and wakes the waiters.
func (m *Machine) noteMarks(marks []Mark) {
	if len(marks) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range marks {
		m.marks.Set(k.Index, k.Digest)
	}
	for m.marks.Len() > maxMarks {
		m.marks.PopMin()
	}
	close(m.marked)
	m.marked = make(chan struct{})
}

// forgetMarks drops the marks of a state that was replaced.
func (m *Machine) forgetMarks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks.Clear()
}

// Mark returns this machine's digest at the check entry with that index; false if
// it has none, or none any more.
func (m *Machine) Mark(index uint64) (digest uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks.Get(index)
}

// LastMark returns the newest mark; the zero Mark before the first.
func (m *Machine) LastMark() Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	index, digest, _ := m.marks.Max()
	return Mark{index, digest}
}

// WaitMark waits for a mark after the index and returns the newest.
func (m *Machine) WaitMark(ctx context.Context, after uint64) (Mark, error) {
	for {
		m.mu.Lock()
		marked := m.marked
		m.mu.Unlock()
		if k := m.LastMark(); k.Index > after {
			return k, nil
		}
		select {
		case <-marked:
		case <-ctx.Done():
			return Mark{}, context.Cause(ctx)
		}
	}
}

// ErrDamaged is the error of [State.Verify].
var ErrDamaged = errors.New("state is damaged in memory")

// Verify recomputes the digests of all records and the fingerprints of all groups,
// and compares them with those that the log gave: a difference is damaged memory.
// It costs about 0.3 µs a member, and stops when ctx ends.
func (s *State) Verify(ctx context.Context) error {
	var sum uint64
	for g := range s.Groups {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		digest, err := g.verify()
		if err != nil {
			return err
		}
		sum += digest
	}
	for n := range s.Nodes {
		sum += nodeDigest(n)
	}
	s.fences.byAge.Scan(func(_ string, f *Fence) bool {
		sum += fenceDigest(f)
		return true
	})
	for t := range s.Tokens {
		sum += tokenDigest(t)
	}
	if s.term != 0 {
		sum += termDigest(s.term, s.leader)
	}
	if s.staged != nil {
		for i, data := range s.staged.parts {
			sum += stagedDigest(s.staged.id, i, data)
		}
	}
	sum += leasesDigest(s.restoredLeases) + levelDigest(s.level)
	if sum != s.digest {
		return fmt.Errorf("%w: the records have digest %016x, the log gave %016x", ErrDamaged, sum, s.digest)
	}
	return nil
}

func (g *Group) verify() (digest uint64, err error) {
	digest = groupHeadDigest(g)
	var inputs ring.Inputs
	for m := range g.Members {
		digest += memberDigest(g.Name, m)
		inputs.Add(m.ID, g.points(m))
	}
	if digest != g.digest {
		return 0, fmt.Errorf("%w: group %q has digest %016x, the log gave %016x", ErrDamaged, g.Name, digest, g.digest)
	}
	if inputs != g.inputs {
		return 0, fmt.Errorf("%w: group %q has fingerprint %016x, the log gave %016x", ErrDamaged, g.Name, inputs.Fingerprint(g.Params), g.Fingerprint())
	}
	return digest, nil
}
