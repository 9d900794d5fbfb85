package sdk

import (
	"sync"

	"github.com/werbenhu/registry/ring"
)

// View is one state of a Ring. It never changes, so its answers are consistent.
type View struct {
	group   string
	ring    *ring.Ring
	members []Member // by the ring's index
	state

	refuse error // why Match fails
	empty  error // of Match, if the ring has no points
	held   bool  // a member is held: Match checks the owner's state
}

func newView(group string, s state, members []Member, r *ring.Ring) *View {
	v := &View{
		group: group, ring: r, members: members, state: s,
		empty: refusal(group, reasonEmptyGroup, "no member of the group owns keys"),
	}
	if s.deleted {
		v.empty = refusal(group, reasonUnknownGroup, "the group was deleted")
	}
	for i := range members {
		v.held = v.held || members[i].State == StateHeld
	}
	return v
}

// Match returns the member that owns the key. It belongs to the view and must not be
// changed; a held owner is a copy with its fallback.
func (v *View) Match(key string) (*Member, error) {
	if v.refuse != nil {
		return nil, v.refuse
	}
	i := v.ring.Match(key)
	if i < 0 {
		return nil, v.empty
	}
	if v.held && v.members[i].State == StateHeld {
		return v.heldOwner(i, key), nil
	}
	return &v.members[i], nil
}

// heldOwner returns the held owner of a key with its fallback.
func (v *View) heldOwner(i int, key string) *Member {
	m := v.members[i]
	v.standIn(&m, key)
	return &m
}

// standIn sets the fallback of the held owner of a key.
func (v *View) standIn(owner *Member, key string) {
	if f := v.ring.Fallback(key); f >= 0 {
		owner.Fallback = &v.members[f]
	}
}

// MatchN appends to dst the first n distinct owners of the key.
func (v *View) MatchN(dst []Member, key string, n int) ([]Member, error) {
	first := len(dst)
	dst, err := v.list(dst, key, n, (*ring.Ring).MatchN)
	if err == nil && dst[first].State == StateHeld {
		v.standIn(&dst[first], key)
	}
	return dst, err
}

// Serving appends to dst the first n members to ask for the key: its owners, held
// ones last. A routing.Owner accepts the key at the first one.
func (v *View) Serving(dst []Member, key string, n int) ([]Member, error) {
	return v.list(dst, key, n, (*ring.Ring).Serving)
}

func (v *View) list(dst []Member, key string, n int, match func(*ring.Ring, []int, string, int) []int) ([]Member, error) {
	if v.refuse != nil {
		return dst, v.refuse
	}
	if _, err := owners("match", n); err != nil {
		return dst, err
	}
	buf := indexes.Get().(*[]int)
	defer indexes.Put(buf)
	*buf = match(v.ring, (*buf)[:0], key, n)
	if len(*buf) == 0 {
		return dst, v.empty
	}
	for _, i := range *buf {
		dst = append(dst, v.members[i])
	}
	return dst, nil
}

// indexes has room for what a ring's MatchN returns.
var indexes = sync.Pool{New: func() any { return new([]int) }}

// MatchBatch appends to dst the owner of each key. The members belong to the view,
// must not be changed, and have no Fallback.
func (v *View) MatchBatch(dst []*Member, keys []string) ([]*Member, error) {
	if v.refuse != nil {
		return dst, v.refuse
	}
	if v.ring.NumPoints() == 0 {
		return dst, v.empty
	}
	var buf [128]int32
	for len(keys) > 0 {
		n := min(len(keys), len(buf))
		for _, i := range v.ring.MatchBatch(buf[:0], keys[:n]) {
			dst = append(dst, &v.members[i])
		}
		keys = keys[n:]
	}
	return dst, nil
}

// Err is why Match fails whatever the key; nil if it does not.
func (v *View) Err() error { return v.refuse }

// Members returns all members, ordered by id. The slice must not be changed.
func (v *View) Members() []Member { return v.members }

// Group returns the name of the group.
func (v *View) Group() string { return v.group }

// Revision of the group.
func (v *View) Revision() uint64 { return v.revision }

// Index is an applied index of the log at which the group was at the revision.
func (v *View) Index() uint64 { return v.index }

// ClusterID is the id of the revision's cluster; empty if it is not known.
func (v *View) ClusterID() string { return v.cluster }

// Fingerprint of the inputs of the ring.
func (v *View) Fingerprint() uint64 { return v.fingerprint }

// Ring returns the bare ring, whose indexes are those of Members; nil before the
// first state.
func (v *View) Ring() *ring.Ring { return v.ring }
