package lease

import "time"

// The mass-loss guard. If many members of a group are silent at once, a network
// failure is more likely than that many crashes, and their expiry would move most keys
// to the few remaining members. The guard decides by the share of silent members. It
// delays expiry and never prevents it.
//
// In a group of more than guardMembers, within a window of one TTL:
//
//	the first 2 %, at least 3        expire at once
//	up to 30 %                       expire after TTL/3 more, to see whether more
//	                                 members fall silent
//	above 30 %                       all are held for one TTL more, and then expire
//	                                 at 10 % of the group per second, at least 10
//
// A silent member that sends a heartbeat stays. An operator may accept the loss; then
// all expire at once. Example: 10,000 members with TTL 10 s, 4,000 killed at t = 0.
// Their deadlines pass between 6.7 and 10 s; 200 expire then, the others are held until
// about 18 s, and the last one expires at about 22 s.
//
// Members that are held for a restart are not counted: their absence was announced and
// says nothing about the network. At the end of its hold a member expires at once, and
// the guard does not count it as lost.
//
// The bound for one member, from its last heartbeat, whatever the others do: its TTL,
// TTL/3 of waiting, one TTL of hold, and 10 s of release. Later losses do not extend a
// hold: members that fall silent during a release are released with it. The guard
// is in the leader's memory: a new leader gives every lease its full TTL, and its guard
// starts empty.
const (
	guardMembers = 20
	guardShare   = 30 // per cent
	guardAtOnce  = 2  // per cent
	guardAtLeast = 3  // members
	guardWait    = 3  // wait for more losses: TTL / guardWait
	guardRate    = 10 // per cent of the group per second
	guardMinRate = 10 // members per second
	guardRecheck = 4  // check delayed leases for renewals every TTL / guardRecheck
	// guardDrain bounds the wait in a release: the time for the whole group at the
	// rate. Members that returned may have left slots unused.
	guardDrain = 100 / guardRate * time.Second
)

// groupGuard is the guard of one group. The lease table's lock guards it.
type groupGuard struct {
	group string
	all   *guards

	leases  int // in the table
	members int // those that are neither held nor expiring
	silent  int // members past their deadline

	// peak is the maximum of members in the window that began at since.
	peak  int
	since int64

	holding  bool
	released bool  // while holding: the release has begun
	until    int64 // while holding: when the release begins
	nextSlot int64 // while releasing: when the next member may expire
	accepted int64 // an operator accepted losses until then

	returned, gone int // since the hold began
}

// delay is how long to delay the expiry of a lease past its deadline; 0: it may expire
// now. The caller calls it again after that time.
func (g *groupGuard) delay(l *lease, now int64, log *journal) (wait int64) {
	if l.silence == nil {
		l.silence = &silence{since: now}
		g.silent++
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
	return max(0, l.silence.since+int64(l.ttl)/guardWait-now)
}

// lost counts the members that expired in this window or are silent, without those
// that returned.
func (g *groupGuard) lost() int { return max(0, g.peak-(g.members-g.silent)) }

func (g *groupGuard) hold(until int64, log *journal) {
	g.holding, g.released, g.until, g.nextSlot, g.returned, g.gone = true, false, until, 0, 0, 0
	g.all.began(g)
	log.Warn("many members of a group fell silent at once: they are held for one more TTL",
		"group", g.group, "silent", g.silent, "lost", g.lost(), "members", g.members)
}

// release spaces out the expiries after the hold. No member is held for longer than its
// own TTL, whichever lease began the hold.
func (g *groupGuard) release(l *lease, all int, now int64, log *journal) (wait int64) {
	if from := min(g.until, l.silence.since+int64(l.ttl)); now < from {
		return from - now
	}
	if !g.released {
		g.released = true
		log.Warn("members that stayed silent during the hold expire", "group", g.group, "silent", g.silent, "returned", g.returned)
	}
	if l.silence.slot == 0 {
		step := int64(time.Second) / int64(max(guardMinRate, all*guardRate/100))
		g.nextSlot = min(max(g.nextSlot, now)+step, now+int64(guardDrain))
		l.silence.slot = g.nextSlot
	}
	return max(0, l.silence.slot-now)
}

// renewed notes that a lease is renewed or registered again.
func (g *groupGuard) renewed(l *lease, log *journal) {
	if l.silence != nil && g.holding {
		g.returned++
		g.all.returned++
	}
	g.clearSilent(l, log)
}

// clearSilent subtracts a silent lease, and ends the hold with the last one.
func (g *groupGuard) clearSilent(l *lease, log *journal) {
	if l.silence != nil {
		l.silence = nil
		g.silent--
		g.all.silent--
	}
	if g.silent == 0 && g.holding {
		g.holding = false
		g.all.ended(g)
		log.Info("a group's mass loss is over", "group", g.group, "returned", g.returned, "gone", g.gone, "members", g.members)
	}
}

// expires subtracts a member whose lease is to expire.
func (g *groupGuard) expires(l *lease, log *journal) {
	g.members--
	if g.holding {
		g.gone++
		g.all.gone++
	}
	g.clearSilent(l, log)
}

// removed subtracts a member that was removed for another reason than expiry: that is
// no loss, so the peak shrinks too.
func (g *groupGuard) removed(l *lease, log *journal) {
	g.members--
	g.peak--
	g.clearSilent(l, log)
}

// held subtracts a member that is held for a restart: that is no loss.
func (g *groupGuard) held() {
	g.members--
	g.peak--
}

// added adds a member, or one whose expiry or hold ended.
func (g *groupGuard) added() {
	g.members++
	g.peak = max(g.peak, g.members)
}
