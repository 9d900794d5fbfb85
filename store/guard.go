package store

import (
	"log/slog"
	"time"
)

// The mass-loss guard. When many members of a group fall silent at once, the
// network in between is a likelier cause than their deaths, and dropping them
// would move most keys to the few that are left. The guard tells the two apart
// by share, and it is bounded: it delays, it never keeps.
//
// In a group of more than guardMembers, within a window of one TTL:
//
//	the first 2 %, at least 3        go at once
//	up to 30 %                       go after a third of a TTL more, in which
//	                                 it shows whether others follow
//	above 30 %                       all are held for one TTL more, and then go
//	                                 at 10 % of the group a second, at least 10
//
// A member that the guard keeps and that beats again stays. An operator may
// accept the loss; then all go at once. Worked example, 10,000 members at TTL 10 s, 4,000 killed at
// t = 0: their deadlines pass between 6.7 and 10 s; 200 go then, the others
// are kept until about 18 s, and the last one is gone at about 22 s.
//
// Members that are held for a restart are not counted: their absence was
// announced and says nothing about the network. When a hold is over its member
// goes at once, and however many do, the others' leases are judged without them.
const (
	guardMembers   = 20
	guardShare     = 30 // per cent
	guardAtOnce    = 2  // per cent
	guardAtLeast   = 3  // members
	guardSettle    = 3  // a TTL's part to wait for others
	guardRate      = 10 // per cent of the group a second
	guardRateFloor = 10 // members a second
)

// groupGuard is the guard's view of one group. The lease table's lock guards it.
type groupGuard struct {
	leases  int // in the table
	members int // of them, those that are not held and on whose expiry nothing is decided
	lapsed  int // of these, those past their deadline and not renewed

	// peak is the most members there were in the window that began at since.
	peak  int
	since int64

	holding  bool
	until    int64 // while holding: when releasing starts
	nextSlot int64 // while releasing: when the next one may go
	accepted int64 // until then an operator accepts losses
}

// lapse decides about a lease that is past its deadline: 0 lets it go, and
// otherwise it is to be looked at again after the returned time.
func (g *groupGuard) lapse(l *lease, now int64, log *slog.Logger) (wait int64) {
	if !l.lapsed {
		l.lapsed, l.lapsedAt, l.slot = true, now, 0
		g.lapsed++
	}
	if now-g.since > int64(l.ttl) && !g.holding {
		g.peak, g.since = g.members, now
	}
	all := g.peak
	lost := all - (g.members - g.lapsed) // a member that came back is not lost
	switch {
	case all <= guardMembers || now < g.accepted:
		return 0
	case g.holding:
		return g.release(l, all, now)
	case lost*100 > all*guardShare:
		g.holding, g.until, g.nextSlot = true, now+int64(l.ttl), 0
		log.Warn("many members of a group fell silent at once: they are held for one more TTL",
			"group", l.group, "silent", g.lapsed, "lost", lost, "members", g.members, "hold", l.ttl)
		return g.until - now
	case lost <= max(guardAtLeast, all*guardAtOnce/100):
		return 0
	}
	return max(0, l.lapsedAt+int64(l.ttl)/guardSettle-now)
}

// release spaces the members that go after the hold.
func (g *groupGuard) release(l *lease, all int, now int64) (wait int64) {
	if now < g.until {
		return g.until - now
	}
	if l.slot == 0 {
		g.nextSlot = max(g.nextSlot, now) + int64(time.Second)/int64(max(guardRateFloor, all*guardRate/100))
		l.slot = g.nextSlot
	}
	return max(0, l.slot-now)
}

// revived notes that a lease counts as alive again, or left the table.
func (g *groupGuard) revived(l *lease) {
	if l.lapsed {
		l.lapsed = false
		g.lapsed--
	}
	if g.lapsed == 0 {
		g.holding = false
	}
}

// goes notes that a lapsed lease is let go; it is counted as gone from now on.
func (g *groupGuard) goes(l *lease) {
	g.members--
	g.revived(l)
}

// excused notes that a member is held for a restart: it is neither there nor lost.
func (g *groupGuard) excused() {
	g.members--
	g.peak--
}

// joins notes a lease more, or takes back that one went.
func (g *groupGuard) joins() {
	g.members++
	g.peak = max(g.peak, g.members)
}
