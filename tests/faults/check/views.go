package check

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
)

// Views holds every node's and every client's word on a group at a revision:
// equal (group, revision) must mean an equal ring and equal members, whoever
// says so and whenever. Safe for concurrent use.
type Views struct {
	mu    sync.Mutex // guards the rest
	known map[viewKey]view
	found []Violation
}

type viewKey struct {
	group    string
	revision uint64
}

type view struct {
	fingerprint uint64
	members     uint64
	listed      bool // members is known
	by          string
}

// NewViews returns an empty table.
func NewViews() *Views { return &Views{known: make(map[viewKey]view)} }

// Note adds what somebody said of a group at a revision.
func (v *Views) Note(group string, revision, fingerprint uint64, members []Member, by string) {
	v.note(group, revision, view{fingerprint, hashMembers(members), true, by})
}

// NoteRing is Note for an answer that does not list the members.
func (v *Views) NoteRing(group string, revision, fingerprint uint64, by string) {
	v.note(group, revision, view{fingerprint: fingerprint, by: by})
}

func (v *Views) note(group string, revision uint64, got view) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := viewKey{group, revision}
	before, known := v.known[key]
	switch {
	case !known:
		v.known[key] = got
		return
	case before.fingerprint != got.fingerprint:
		v.found = append(v.found, violation("views", "group %s at revision %d has the fingerprint %016x by %s and %016x by %s",
			group, revision, before.fingerprint, before.by, got.fingerprint, got.by))
		return
	case before.listed && got.listed && before.members != got.members:
		v.found = append(v.found, violation("views", "group %s at revision %d has other members by %s than by %s", group, revision, got.by, before.by))
		return
	}
	if !before.listed {
		before.members, before.listed = got.members, got.listed
	}
	v.known[key] = before
}

// Violations returns what was found.
func (v *Views) Violations() []Violation {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.found)
}

func hashMembers(members []Member) uint64 {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	var h maphash.Hash
	h.SetSeed(hashSeed)
	for _, m := range members {
		maphash.WriteComparable(&h, m)
	}
	return h.Sum64()
}

// Digests holds the nodes' digests of their whole state: an equal applied
// index must mean an equal digest. Safe for concurrent use.
type Digests struct {
	mu    sync.Mutex // guards the rest
	known map[uint64]digest
	found []Violation
}

type digest struct {
	digest uint64
	node   string
}

// NewDigests returns an empty table.
func NewDigests() *Digests { return &Digests{known: make(map[uint64]digest)} }

// Note adds one node's digest.
func (d *Digests) Note(node string, index, sum uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, known := d.known[index]
	switch {
	case !known:
		d.known[index] = digest{sum, node}
	case before.digest != sum:
		d.found = append(d.found, violation("digests", "at index %d %s has the digest %016x and %s has %016x", index, before.node, before.digest, node, sum))
	}
}

// Violations returns what was found.
func (d *Digests) Violations() []Violation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.found)
}
