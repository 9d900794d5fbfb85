package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

const (
	// MaxRestorePart bounds the data of one part of a restoration, so that it fits into a
	// record of a snapshot.
	MaxRestorePart = 48 << 10
	// MaxRestore bounds all parts of a restoration together. They are in the log and in
	// the memory of every node until it ends.
	MaxRestore = 1 << 30
)

// ErrNoRestore: the parts of a restoration are no longer staged, because another leader
// was elected or another restoration began; nothing was restored.
var ErrNoRestore = errors.New("the restoration was dropped")

// staged has the parts of a snapshot whose restoration has not ended. It is part of the
// state, because the log's entry that ends the restoration means the same on a node that
// installed a snapshot in between. A published one never changes: to append to parts
// leaves the parts that it has.
type staged struct {
	id     uint64 // index of the entry that began the restoration
	parts  [][]byte
	size   int
	digest uint64 // of all parts
}

// beginRestore drops what was staged before.
func (b *batch) beginRestore() Result {
	b.dropStaged()
	b.next.staged = &staged{id: b.index}
	return Result{}
}

func (b *batch) dropStaged() {
	if old := b.next.staged; old != nil {
		b.next.digest -= old.digest
		b.next.staged = nil
	}
}

func (b *batch) stage(c *fsmpb.RestorePart) Result {
	old := b.next.staged
	switch {
	case old == nil || old.id != c.Id || uint64(len(old.parts)) != c.Number:
		return Result{Err: ErrNoRestore}
	case old.size+len(c.Data) > MaxRestore:
		return Result{Err: exhausted("bytes of a snapshot that is restored", MaxRestore)}
	}
	b.addPart(c.Data)
	return Result{}
}

func (b *batch) addPart(data []byte) {
	next := *b.next.staged
	digest := stagedDigest(next.id, len(next.parts), data)
	next.parts = append(next.parts, data)
	next.size += len(data)
	next.digest += digest
	b.next.staged = &next
	b.next.digest += digest
}

// endRestore ends the restoration. The Machine replaces the state by the one that it
// leaves in b.restored.
func (b *batch) endRestore(c *fsmpb.RestoreEnd) Result {
	parts := b.next.staged
	if parts == nil || parts.id != c.Id {
		return Result{Err: ErrNoRestore}
	}
	b.dropStaged()
	if c.Discard {
		return Result{}
	}
	from, err := ReadSnapshot(parts.reader())
	if err == nil && from.digest != c.Digest {
		err = fmt.Errorf("%w: staged is a state with digest %016x, to be restored is %016x", ErrCorruptSnapshot, from.digest, c.Digest)
	}
	if err != nil {
		return Result{Err: err}
	}
	b.restored, err = b.next.restore(from, b.index, c.SameLog)
	return Result{Revision: b.index, Err: err}
}

func (s *staged) reader() io.Reader {
	readers := make([]io.Reader, len(s.parts))
	for i, p := range s.parts {
		readers[i] = bytes.NewReader(p)
	}
	return io.MultiReader(readers...)
}

func (s *State) stagedID() uint64 {
	if s.staged == nil {
		return 0
	}
	return s.staged.id
}

// WithoutStaged is the state without the parts of a restoration that has not ended.
func (s *State) WithoutStaged() *State {
	if s.staged == nil {
		return s
	}
	out := *s
	out.digest -= out.staged.digest
	out.staged = nil
	return &out
}
