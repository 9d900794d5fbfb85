package lease

import (
	"cmp"
	"slices"
	"time"
)

// guards sums up the guards of all groups. The lease table's lock guards it.
type guards struct {
	holding map[string]*groupGuard // those that hold members or release them
	silent  int                    // members past their deadline

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

// reset keeps only the counters.
func (a *guards) reset() {
	clear(a.holding)
	a.silent = 0
}

// Phase is what the mass-loss guard does with a group.
type Phase int

// The phases of a guard.
const (
	// Idle: leases expire when they are due.
	Idle Phase = iota
	// Waiting: some members are silent, and the guard waits for more.
	Waiting
	// Holding: many members are silent, and all of them are held.
	Holding
	// Releasing: the hold is over, and silent members expire one by one.
	Releasing
	// Accepted: an operator accepted the loss; no member is held.
	Accepted
)

func (p Phase) String() string {
	return [...]string{"idle", "waiting", "holding", "releasing", "accepted"}[p]
}

// Status is the state of the mass-loss guard of one group. Only the leader has one.
type Status struct {
	Group string
	Phase Phase
	// Members have leases in the group; Silent of them are past their deadline.
	Members, Silent int
	// Lost expired or fell silent within the guard's window.
	Lost int
	// Returned and Gone (expired) count since the hold began; 0 without one.
	Returned, Gone int
	// HoldLeft is the time until the first held member may expire; 0 unless holding.
	HoldLeft time.Duration
}

// Stats sums up the guards of all groups.
type Stats struct {
	// Silent leases are past their deadline. Holding lists the groups whose guard holds members or
	// releases them, by name. Only the leader has them.
	Silent  int
	Holding []Status
	// Holds that began, members that Returned in one, members that expired in one (Gone),
	// and losses that an operator Accepted, since the store was opened.
	Holds, Returned, Gone, Accepted uint64
}

// Status is the state of the mass-loss guard of a group. A group without leases is idle.
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
	s := Status{Group: g.group, Members: g.members, Silent: g.silent}
	if g.silent > 0 {
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
