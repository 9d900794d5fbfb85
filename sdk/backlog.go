package sdk

import (
	"slices"

	"github.com/werbenhu/registry/ring"
)

// state is a group after a step of its watch, without its members.
type state struct {
	number                       uint64 // counts the steps, whatever the revision
	revision, index, fingerprint uint64
	cluster                      string
	params                       ring.Params
	epoch                        int  // counts the rebuilds of the cluster
	deleted                      bool // the group was deleted
}

// backlog is the newest state from the watch and the changes since the builder last
// took a backlog. It has at most one entry for each old and new member, so the
// group's size bounds it, however long a build takes.
//
// Example: m-1 changes its weight, m-2 joins, m-3 leaves, m-2 leaves: the backlog is
// {m-1: changed, m-3: removed}.
type backlog struct {
	state            // its number is 0 without steps
	reset   bool     // the changes are relative to whole
	whole   []Member // ordered by id
	changes map[string]pending
}

// pending is the change of one member.
type pending struct {
	member *Member // its newest form; nil if it was removed
	based  bool    // the builder, or whole, has the member
}

// add adds a step.
func (b *backlog) add(st *step, now state) {
	b.state = now
	if st.reset {
		b.reset, b.whole, b.changes = true, st.put, nil
		return
	}
	if b.changes == nil {
		b.changes = map[string]pending{}
	}
	for _, id := range st.left {
		if p, known := b.changes[id]; known && !p.based {
			delete(b.changes, id)
		} else {
			b.changes[id] = pending{based: true}
		}
	}
	for i, m := range st.put {
		p, known := b.changes[m.ID]
		b.changes[m.ID] = pending{member: &m, based: p.based || !known && !st.added[i]}
	}
}

// after returns the members of the state; old are those that the builder has.
func (b *backlog) after(old []Member) []Member {
	if b.reset {
		old = b.whole
	}
	if len(b.changes) == 0 {
		return old
	}
	var put []Member
	var removed []string
	for id, p := range b.changes {
		if p.member == nil {
			removed = append(removed, id)
		} else {
			put = append(put, *p.member)
		}
	}
	slices.SortFunc(put, byID)
	slices.Sort(removed)
	return merge(old, put, removed)
}
