package fsm

import (
	"encoding/binary"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// MaxFences bounds the fences that the state remembers; the oldest goes first.
// A fence matters for as long as a process that lost its seat, or a delayed
// retry of its registration, may still be on its way: a few TTLs.
const MaxFences = 10_000

// Fence bars one instance from a seat that it lost: it was deregistered, or
// another instance took the id. Without it, a retry that arrives late would
// bring a deregistered service back, and two processes could fight for an id.
type Fence struct {
	Group, ID, Instance string
	// Index of the log entry that took the seat away.
	Index uint64
}

// fences holds them by seat, for the check, and by age, for the bound.
type fences struct {
	bySeat *iradix.Tree[*Fence]
	byAge  *iradix.Tree[*Fence]
}

func newFences() fences {
	return fences{bySeat: iradix.New[*Fence](), byAge: iradix.New[*Fence]()}
}

func seatKey(group, id, instance string) []byte {
	k := make([]byte, 0, len(group)+len(id)+len(instance)+2)
	k = append(k, group...)
	k = append(k, '/') // no name holds one
	k = append(k, id...)
	k = append(k, '/')
	return append(k, instance...)
}

func ageKey(f *Fence) []byte {
	return append(binary.BigEndian.AppendUint64(nil, f.Index), seatKey(f.Group, f.ID, f.Instance)...)
}

func (f fences) has(group, id, instance string) bool {
	_, ok := f.bySeat.Get(seatKey(group, id, instance))
	return ok
}

func (f fences) len() int { return f.bySeat.Len() }

// add returns the fences with one more, and how the digest changes.
func (f fences) add(fence *Fence) (next fences, delta uint64) {
	seat := seatKey(fence.Group, fence.ID, fence.Instance)
	if old, ok := f.bySeat.Get(seat); ok {
		f.byAge, _, _ = f.byAge.Delete(ageKey(old))
		delta -= fenceDigest(old)
	}
	f.bySeat, _, _ = f.bySeat.Insert(seat, fence)
	f.byAge, _, _ = f.byAge.Insert(ageKey(fence), fence)
	delta += fenceDigest(fence)
	for f.bySeat.Len() > MaxFences {
		key, oldest, _ := f.byAge.Root().Minimum()
		f.byAge, _, _ = f.byAge.Delete(key)
		f.bySeat, _, _ = f.bySeat.Delete(seatKey(oldest.Group, oldest.ID, oldest.Instance))
		delta -= fenceDigest(oldest)
	}
	return f, delta
}
