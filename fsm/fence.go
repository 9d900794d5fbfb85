package fsm

import (
	"encoding/binary"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// MaxFences bounds the fences of the state; the oldest is dropped first. A fence
// matters while a process that lost its registration, or a delayed retry of it, may
// still register: a few TTLs.
const MaxFences = 10_000

// Fence keeps an instance from registering an id again that it lost: it was
// deregistered, or another instance took the id. Without it, a late retry would
// bring back a deregistered service, and two processes could fight for an id.
type Fence struct {
	Group, ID, Instance string
	// Index of the log entry that made the fence.
	Index uint64
}

// fences holds them by instance, for the check, and by age, for the bound.
type fences struct {
	byInstance *iradix.Tree[*Fence]
	byAge      *iradix.Tree[*Fence]
}

func newFences() fences {
	return fences{byInstance: iradix.New[*Fence](), byAge: iradix.New[*Fence]()}
}

func instanceKey(group, id, instance string) []byte {
	k := make([]byte, 0, len(group)+len(id)+len(instance)+2)
	k = append(k, group...)
	k = append(k, '/') // no name holds one
	k = append(k, id...)
	k = append(k, '/')
	return append(k, instance...)
}

func ageKey(f *Fence) []byte {
	return append(binary.BigEndian.AppendUint64(nil, f.Index), instanceKey(f.Group, f.ID, f.Instance)...)
}

func (f fences) has(group, id, instance string) bool {
	_, ok := f.byInstance.Get(instanceKey(group, id, instance))
	return ok
}

func (f fences) len() int { return f.byInstance.Len() }

// add returns the fences with one more, and how the digest changes.
func (f fences) add(fence *Fence) (next fences, delta uint64) {
	key := instanceKey(fence.Group, fence.ID, fence.Instance)
	if old, ok := f.byInstance.Get(key); ok {
		f.byAge, _, _ = f.byAge.Delete(ageKey(old))
		delta -= fenceDigest(old)
	}
	f.byInstance, _, _ = f.byInstance.Insert(key, fence)
	f.byAge, _, _ = f.byAge.Insert(ageKey(fence), fence)
	delta += fenceDigest(fence)
	for f.byInstance.Len() > MaxFences {
		key, oldest, _ := f.byAge.Root().Minimum()
		f.byAge, _, _ = f.byAge.Delete(key)
		f.byInstance, _, _ = f.byInstance.Delete(instanceKey(oldest.Group, oldest.ID, oldest.Instance))
		delta -= fenceDigest(oldest)
	}
	return f, delta
}
