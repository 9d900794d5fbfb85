package lease

import "time"

// The mass-loss guard. When many members of a group fall silent at once, the
// network in between is a likelier cause than their deaths, and dropping them
// would move most keys to the few that are left. The guard tells the two apart
// by share, and it is bounded: it delays expiry and never prevents it.
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
//
// The bound for one member, counted from its last heartbeat, whatever the
// others do: its TTL, TTL/3 of waiting for others, one TTL of hold, and 10 s of
// release. Later losses do not lengthen a hold that began: those that fall
// silent while a group is being released are released with it. A new leader
// knows no silence: it gives everyone a full TTL, and the guard starts over.
const (
	guardMembers   = 20
	guardShare     = 30 // per cent
	guardAtOnce    = 2  // per cent
	guardAtLeast   = 3  // members
	guardSettle    = 3  // a TTL's part to wait for others
	guardRate      = 10 // per cent of the group a second
	guardRateFloor = 10 // members a second
	guardLook      = 4  // a TTL's part after which it shows who came back
	// guardDrain bounds the wait for a place in the release: the whole group at
	// the rate. Members that came back may have left places unused.
	guardDrain = 100 / guardRate * time.Second
)

// groupGuard is the guard's view of one group. The lease table's lock guards it.
type groupGuard struct {
	group string
	all   *guards

	leases  int // in the table
	members int // of them, those that are not held and on whose expiry nothing is decided
	lapsed  int // of these, those past their deadline and not renewed

	// peak is the most members there were in the window that began at since.
	peak  int
	since int64

	holding  bool
	released bool  // while holding: some went since
	until    int64 // while holding: when releasing starts
	nextSlot int64 // while releasing: when the next one may go
	accepted int64 // until then an operator accepts losses

	returned, gone int // since the hold began
}

// lapse decides about a lease that is past its deadline: 0 lets it go, and
// otherwise it is to be looked at again after the returned time.
func (g *groupGuard) lapse(l *lease, now int64, log *journal) (wait int64) {
	if !l.lapsed {
		l.lapsed, l.lapsedAt, l.slot = true, now, 0
		g.lapsed++
		g.all.silent++
	}
	if now-g.since > int64(l.ttl) && !g.holding {
		g.peak, g.since = g.members, now
	}
	all := g.peak
	lost := g.lost()
	switch {
	case all <= guardMembers || now < g.accepted:
		return 0
	case g.holding:
		return g.release(l, all, now, log)
	case lost*100 > all*guardShare:
		g.hold(now+int64(l.ttl), log)
		return int64(l.ttl)
	case lost <= max(guardAtLeast, all*guardAtOnce/100):
		return 0
	}
	return max(0, l.lapsedAt+int64(l.ttl)/guardSettle-now)
}

// lost counts those that went in this window or are silent; a member that came
// back is not lost.
func (g *groupGuard) lost() int { return max(0, g.peak-(g.members-g.lapsed)) }

func (g *groupGuard) hold(until int64, log *journal) {
	g.holding, g.released, g.until, g.nextSlot, g.returned, g.gone = true, false, until, 0, 0, 0
	g.all.began(g)
	log.Warn("many members of a group fell silent at once: they are held for one more TTL",
		"group", g.group, "silent", g.lapsed, "lost", g.lost(), "members", g.members)
}

// release spaces the members that go after the hold. No member is held for
// longer than its own TTL, whoever began the hold.
func (g *groupGuard) release(l *lease, all int, now int64, log *journal) (wait int64) {
	if from := min(g.until, l.lapsedAt+int64(l.ttl)); now < from {
		return from - now
	}
	if !g.released {
		g.released = true
		log.Warn("members that stayed silent while they were held are let go", "group", g.group, "silent", g.lapsed, "returned", g.returned)
	}
	if l.slot == 0 {
		step := int64(time.Second) / int64(max(guardRateFloor, all*guardRate/100))
		g.nextSlot = min(max(g.nextSlot, now)+step, now+int64(guardDrain))
		l.slot = g.nextSlot
	}
	return max(0, l.slot-now)
}

// revived notes that a lease counts as alive again.
func (g *groupGuard) revived(l *lease, log *journal) {
	if l.lapsed && g.holding {
		g.returned++
		g.all.returned++
	}
	g.settle(l, log)
}

// settle takes a lease out of those that fell silent.
func (g *groupGuard) settle(l *lease, log *journal) {
	if l.lapsed {
		l.lapsed = false
		g.lapsed--
		g.all.silent--
	}
	if g.lapsed == 0 && g.holding {
		g.holding = false
		g.all.ended(g)
		log.Info("a group's mass loss is over", "group", g.group, "returned", g.returned, "gone", g.gone, "members", g.members)
	}
}

// goes notes that a lapsed lease is let go; it is counted as gone from now on.
func (g *groupGuard) goes(l *lease, log *journal) {
	g.members--
	if g.holding {
		g.gone++
		g.all.gone++
	}
	g.settle(l, log)
}

// leaves notes that a lease went for another reason than silence: that is no
// loss, and the group is smaller from now on.
func (g *groupGuard) leaves(l *lease, log *journal) {
	g.members--
	g.peak--
	g.settle(l, log)
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
