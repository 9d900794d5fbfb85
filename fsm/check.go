package fsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/werbenhu/registry/ring"
)

// DigestVersion numbers the way in which digests are computed. Digests of two
// versions say nothing about each other.
const DigestVersion = 1

// Mark is this node's digest at the log index of a check entry. All nodes of a
// cluster that apply the same log have equal marks, however the entries came to
// them in batches.
type Mark struct{ Index, Digest uint64 }

// maxMarks is how many marks a machine remembers: those that a slower node may
// still ask about.
const maxMarks = 256

// check notes the digest at the entry. The groups that the batch has open are
// not in the batch's sum until it is closed.
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

// noteMarks keeps what a batch marked and wakes those who wait for marks.
func (m *Machine) noteMarks(marks []Mark) {
	if len(marks) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks = append(m.marks, marks...)
	if over := len(m.marks) - maxMarks; over > 0 {
		m.marks = slices.Delete(m.marks, 0, over)
	}
	close(m.marked)
	m.marked = make(chan struct{})
}

// forgetMarks drops the marks of a state that another one replaced.
func (m *Machine) forgetMarks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks = nil
}

// Mark returns this machine's digest at the check entry with that index; false
// when it applied no such entry, or too long ago.
func (m *Machine) Mark(index uint64) (digest uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := slices.BinarySearchFunc(m.marks, index, func(k Mark, at uint64) int {
		switch {
		case k.Index < at:
			return -1
		case k.Index > at:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return m.marks[i].Digest, true
}

// LastMark returns the newest mark; the zero Mark before the first.
func (m *Machine) LastMark() Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.marks) == 0 {
		return Mark{}
	}
	return m.marks[len(m.marks)-1]
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

// ErrDamaged is what every finding of [State.Verify] is.
var ErrDamaged = errors.New("state is damaged in memory")

// Verify computes every record's digest anew and compares it with the one that
// was kept since the record was written, and each group's fingerprint likewise: a
// difference is memory that changed by itself. It costs about 0.3 µs a member, and
// stops when ctx ends.
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
	s.fences.byAge.Root().Walk(func(_ []byte, f *Fence) bool {
		sum += fenceDigest(f)
		return false
	})
	if s.term != 0 {
		sum += termDigest(s.term, s.leader)
	}
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
