package ring

import (
	"fmt"
	"strings"
)

// nextOwners is the number of members that Locate lists after the owner.
const nextOwners = 3

// Location says where a key is and why.
type Location struct {
	Key   string `json:"key"`
	Hash  Hex64  `json:"hash"`            // of the key
	Owner string `json:"owner,omitempty"` // id; empty if no member has points
	State State  `json:"state"`           // of the owner
	// Point is the first point clockwise whose hash is at least the key's. Its member is the owner
	// unless Bounded is set.
	Point *PointRecord `json:"point,omitempty"`
	Next  []string     `json:"next,omitempty"` // the next distinct members clockwise, up to three
	// Fallback is the first of Next that is not held, if the owner is held.
	Fallback string `json:"fallback,omitempty"`
	Wrapped  bool   `json:"wrapped"` // the key is after the last point, so the first point is its own
	Bounded  bool   `json:"bounded"` // the bound gave the arc to another member than the point's
	Why      string `json:"why"`     // the above as a sentence
}

// Locate explains what Match(key) does. It is meant for people: it allocates, and hashes the points of one member.
func (r *Ring) Locate(key string) Location {
	loc := Location{Key: key, Hash: Hex64(Hash(key))}
	if r.table.n == 0 {
		loc.Why = "no member has points"
		return loc
	}
	at := r.table.find(uint64(loc.Hash))
	if loc.Wrapped = at == r.table.n; loc.Wrapped {
		at = 0
	}
	list := r.clockwise(nil, at, min(nextOwners+1, r.owners))
	owner := r.members[list[0]]
	loc.Owner, loc.State = owner.ID, owner.State
	for _, m := range list[1:] {
		loc.Next = append(loc.Next, r.members[m].ID)
		if owner.State == Held && loc.Fallback == "" && r.members[m].State == Active {
			loc.Fallback = r.members[m].ID
		}
	}
	point := r.Record(r.pointAt(at))
	loc.Point, loc.Bounded = &point, point.Owner != ""
	loc.Why = loc.why(r.bound)
	return loc
}

// pointAt returns the point at a position. Of a member's points with equal hashes, the lower index comes first.
func (r *Ring) pointAt(at int) Point {
	p := Point{Hash: r.table.hashAt(at), Member: r.plainOwner(at), Owner: int(r.table.ownerAt(at))}
	rank := 0
	for i := at - 1; i >= 0 && r.plainOwner(i) == p.Member && r.table.hashAt(i) == p.Hash; i-- {
		rank++
	}
	m := r.members[p.Member]
	for i, h := range appendPointHashes(nil, m.ID, 0, m.Points(r.params.VirtualNodes)) {
		if h != p.Hash {
			continue
		}
		if p.Index = i; rank == 0 {
			break
		}
		rank--
	}
	return p
}

func (l Location) why(bound int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the first point at or after %v is %v, number %d of %q", l.Hash, l.Point.Hash, l.Point.Index, l.Point.ID)
	if l.Wrapped {
		b.WriteString(", past the end of the circle")
	}
	if l.Bounded {
		fmt.Fprintf(&b, "; that member would be above %d per mille of its fair share, so this arc went to %q", bound, l.Owner)
	}
	if l.State == Held {
		fmt.Fprintf(&b, "; %q is held", l.Owner)
		if l.Fallback != "" {
			fmt.Fprintf(&b, ", and %q is next", l.Fallback)
		}
	}
	return b.String()
}
