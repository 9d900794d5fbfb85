package lease

import (
	"cmp"
	"slices"
	"time"
)

// guards is what the guards of all groups did. The lease table's lock guards it.
type guards struct {
	holding map[string]*groupGuard // those that hold members or release them
	silent  int                    // leases past their deadline that are still there

	// Since the store was opened.
	holds, returned, gone, accepted uint64
}

func newGuards() *guards { return &guards{holding: make(map[string]*groupGuard)} }

func (a *guards) began(g *groupGuard) {
	a.holds++
	a.holding[g.group] = g
}

func (a *guards) ended(g *groupGuard) {
	if a.holding[g.group] == g {
		delete(a.holding, g.group)
	}
}

// reset forgets what goes on, not what was counted.
func (a *guards) reset() {
	clear(a.holding)
	a.silent = 0
}

// Phase is what the mass-loss guard does with a group.
type Phase int

// The phases of a guard.
const (
	// Idle: members go when their leases run out.
	Idle Phase = iota
	// Waiting: some fell silent, and it is seen whether others follow.
	Waiting
	// Holding: many fell silent, and all of them are held.
	Holding
	// Releasing: the hold is over, and those that stayed silent go one
	// after another.
	Releasing
	// Accepted: an operator accepted the loss; nobody is held.
	Accepted
)

func (p Phase) String() string {
	return [...]string{"idle", "waiting", "holding", "releasing", "accepted"}[p]
}

// Status is the mass-loss guard's view of one group. It is the leader's:
// no other node keeps deadlines.
type Status struct {
	Group string
	Phase Phase
	// Members has leases in the group, Silent of them are past their deadline
	// and still there.
	Members, Silent int
	// Lost went or fell silent within the guard's window.
	Lost int
	// Returned and Gone count since the hold began; both are 0 without one.
	Returned, Gone int
	// HoldLeft is the time until the first held member may go; 0 unless holding.
	HoldLeft time.Duration
}

// Stats sums up the guards of all groups.
type Stats struct {
	// Silent leases are past their deadline and still there. Holding lists the
	// groups whose guard holds members or releases them, by name. Both are of
	// the leader; a follower has none.
	Silent  int
	Holding []Status
	// Holds began, Returned members beat again in one and Gone did not, and
	// Accepted losses were an operator's word, all since the store was opened.
	Holds, Returned, Gone, Accepted uint64
}

// Status tells what the mass-loss guard does with a group. A group without
// leases is idle.
func (t *Table) Status(group string) Status {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if g := t.groups[group]; g != nil {
		return g.status(t.now())
	}
	return Status{Group: group}
}

// Stats sums up the guards of all groups.
func (t *Table) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a := t.guards
	s := Stats{Silent: a.silent, Holds: a.holds, Returned: a.returned, Gone: a.gone, Accepted: a.accepted}
	now := t.now()
	for _, g := range a.holding {
		s.Holding = append(s.Holding, g.status(now))
	}
	slices.SortFunc(s.Holding, func(a, b Status) int { return cmp.Compare(a.Group, b.Group) })
	return s
}

func (g *groupGuard) status(now int64) Status {
	s := Status{Group: g.group, Members: g.members, Silent: g.lapsed}
	if g.lapsed > 0 {
		s.Phase, s.Lost = Waiting, g.lost()
	}
	if g.holding {
		s.Phase, s.Returned, s.Gone = Releasing, g.returned, g.gone
		if now < g.until {
			s.Phase, s.HoldLeft = Holding, time.Duration(g.until-now)
		}
	}
	if now < g.accepted {
		s.Phase, s.HoldLeft = Accepted, 0
	}
	return s
}
