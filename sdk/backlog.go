package sdk

import (
	"slices"

	"github.com/werbenhu/registry/ring"
)

// state is what a group was after a step of its watch, without its members.
type state struct {
	number                       uint64 // counts the steps, whatever the revision
	revision, index, fingerprint uint64
	cluster                      string
	params                       ring.Params
	epoch                        int  // counts the rebuilds of the cluster
	deleted                      bool // the group does not exist any more
}

// backlog is the newest state that the watch has brought and what changed until
// then since the builder last took a backlog. It holds one entry an id, of members
// now and then, so it is bounded by the group's size, however long a build takes.
//
// Example: m-1 gets another weight, m-2 comes, m-3 goes, m-2 goes: what is left
// is {m-1: its newest form, m-3: gone}.
type backlog struct {
	state            // without steps, its number is 0
	reset   bool     // whole is the group that the changes are of
	whole   []Member // ordered by id
	changes map[string]pending
}

// pending is the change of one member.
type pending struct {
	member *Member // as it is now; nil if it is gone
	based  bool    // the builder, or whole, has it
}

// add takes a step over.
func (b *backlog) add(st *step, now state) {
	b.state = now
	if st.reset {
		b.reset, b.whole, b.changes = true, st.put, nil
		return
	}
	if b.changes == nil {
		b.changes = map[string]pending{}
	}
	for _, id := range st.gone {
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
