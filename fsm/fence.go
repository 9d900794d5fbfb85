package fsm

import "encoding/binary"

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
	byInstance, byAge *table[*Fence]
}

func newFences() fences {
	return fences{byInstance: newTable[*Fence](), byAge: newTable[*Fence]()}
}

func instanceKey(group, id, instance string) string {
	return group + "/" + id + "/" + instance // no name holds a slash
}

func ageKey(f *Fence) string {
	return string(binary.BigEndian.AppendUint64(nil, f.Index)) + instanceKey(f.Group, f.ID, f.Instance)
}

func (f fences) has(group, id, instance string) bool {
	_, ok := f.byInstance.Get(instanceKey(group, id, instance))
	return ok
}

// add returns the fences with one more, and how the digest changes.
func (f fences) add(fence *Fence) (next fences, delta uint64) {
	f.byInstance, f.byAge = f.byInstance.IsoCopy(), f.byAge.IsoCopy()
	if old, had := f.byInstance.Set(instanceKey(fence.Group, fence.ID, fence.Instance), fence); had {
		f.byAge.Delete(ageKey(old))
		delta -= fenceDigest(old)
	}
	f.byAge.Set(ageKey(fence), fence)
	delta += fenceDigest(fence)
	for f.byInstance.Len() > MaxFences {
		_, oldest, _ := f.byAge.PopMin()
		f.byInstance.Delete(instanceKey(oldest.Group, oldest.ID, oldest.Instance))
		delta -= fenceDigest(oldest)
	}
	return f, delta
}

// remove returns the fences without the one with that key, and how the digest changes.
func (f fences) remove(key string) (next fences, delta uint64) {
	f.byInstance, f.byAge = f.byInstance.IsoCopy(), f.byAge.IsoCopy()
	old, _ := f.byInstance.Delete(key)
	f.byAge.Delete(ageKey(old))
	return f, -fenceDigest(old)
}
