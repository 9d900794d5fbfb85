package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm"
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

// rest forgets what goes on, not what was counted.
func (a *guards) rest() {
	clear(a.holding)
	a.silent = 0
}

// GuardPhase is what the mass-loss guard does with a group.
type GuardPhase int

// The phases of a guard.
const (
	// GuardIdle: members go when their leases run out.
	GuardIdle GuardPhase = iota
	// GuardWaiting: some fell silent, and it is seen whether others follow.
	GuardWaiting
	// GuardHolding: many fell silent, and all of them are held.
	GuardHolding
	// GuardReleasing: the hold is over, and those that stayed silent go one
	// after another.
	GuardReleasing
	// GuardAccepted: an operator accepted the loss; nobody is held.
	GuardAccepted
)

func (p GuardPhase) String() string {
	return [...]string{"idle", "waiting", "holding", "releasing", "accepted"}[p]
}

// GuardStatus is the mass-loss guard's view of one group. It is the leader's:
// no other node keeps deadlines.
type GuardStatus struct {
	Group string
	Phase GuardPhase
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

// GuardStats sums up the guards of all groups.
type GuardStats struct {
	// Silent leases are past their deadline and still there. Holding lists the
	// groups whose guard holds members or releases them, by name. Both are of
	// the leader; a follower has none.
	Silent  int
	Holding []GuardStatus
	// Holds began, Returned members beat again in one and Gone did not, and
	// Accepted losses were an operator's word, all since the store was opened.
	Holds, Returned, Gone, Accepted uint64
}

// Guard tells what the mass-loss guard does with a group. Only the leader
// knows; other nodes return [ErrNotLeader]. A group without leases is idle.
func (s *Store) Guard(ctx context.Context, group string) (GuardStatus, error) {
	if err := fsm.ValidateName("group", group); err != nil {
		return GuardStatus{}, err
	}
	if _, err := s.leading(ctx); err != nil {
		return GuardStatus{}, err
	}
	if s.State().Group(group) == nil {
		return GuardStatus{}, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, group)
	}
	return s.leases.guardStatus(group), nil
}

// GuardStats tells what the guards of all groups do and did.
func (s *Store) GuardStats() GuardStats { return s.leases.guardStats() }

func (t *leaseTable) guardStatus(group string) GuardStatus {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if g := t.groups[group]; g != nil {
		return g.status(t.now())
	}
	return GuardStatus{Group: group}
}

func (t *leaseTable) guardStats() GuardStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a := t.guards
	s := GuardStats{Silent: a.silent, Holds: a.holds, Returned: a.returned, Gone: a.gone, Accepted: a.accepted}
	now := t.now()
	for _, g := range a.holding {
		s.Holding = append(s.Holding, g.status(now))
	}
	slices.SortFunc(s.Holding, func(a, b GuardStatus) int { return cmp.Compare(a.Group, b.Group) })
	return s
}

func (g *groupGuard) status(now int64) GuardStatus {
	s := GuardStatus{Group: g.group, Members: g.members, Silent: g.lapsed}
	if g.lapsed > 0 {
		s.Phase, s.Lost = GuardWaiting, g.lost()
	}
	if g.holding {
		s.Phase, s.Returned, s.Gone = GuardReleasing, g.returned, g.gone
		if now < g.until {
			s.Phase, s.HoldLeft = GuardHolding, time.Duration(g.until-now)
		}
	}
	if now < g.accepted {
		s.Phase, s.HoldLeft = GuardAccepted, 0
	}
	return s
}
