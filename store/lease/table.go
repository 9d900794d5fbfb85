package lease

import (
	"container/heap"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Table holds the deadlines of all leases while this node leads. It
// follows the state machine: a registration puts a lease in, a removal takes
// it out. Deadlines are on the process's monotonic clock and never leave it.
//
// A renewal only moves a deadline forward. The queue is ordered by the
// deadline that a lease had when it was queued; one that comes up early
// because it was renewed since is queued again, so that a renewal costs one
// atomic store whatever the number of leases.
//
//	t=0   lease 7, TTL 10 s: deadline 10, queued at 10
//	t=3   renewed: deadline 13, still queued at 10
//	t=10  7 comes up, deadline 13: queued again at 13
//	t=13  7 comes up, deadline 13: due
//
// A held member's lease has the time of its hold, if that is longer than its
// TTL; what is said of TTLs here and in guard.go goes for that.
type Table struct {
	start time.Time // origin of deadlines
	log   *slog.Logger

	mu     sync.RWMutex // guards the rest
	notes  journal      // logged when mu is released
	active bool         // whether this node leads
	byID   map[uint64]*lease
	groups map[string]*groupGuard
	guards *guards
	queue  leaseQueue
	wake   chan struct{} // signals that the head of the queue changed
}

type lease struct {
	id, epoch     uint64
	group, member string
	ttl           time.Duration // or the hold, if that is longer
	hold          time.Duration // 0 for a lease that the guard watches
	deadline      atomic.Int64  // nanoseconds since start

	queuedAt int64 // the deadline that the queue orders by
	index    int   // in the queue; -1 when it is not there
	expiring bool  // an expiry is on its way: no renewal counts any more

	// What the guard notes while the lease is past its deadline.
	guard    *groupGuard
	lapsed   bool
	lapsedAt int64
	slot     int64
}

// New returns the table of a node that does not lead. The logger is told of mass
// losses; nil: nobody is.
func New(log *slog.Logger) *Table {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Table{start: time.Now(), log: log, byID: make(map[uint64]*lease), groups: make(map[string]*groupGuard), guards: newGuards(), wake: make(chan struct{}, 1)}
}

func (t *Table) now() int64 { return int64(time.Since(t.start)) }

// Wake receives when the next deadline may have come nearer.
func (t *Table) Wake() <-chan struct{} { return t.wake }

// unlock also logs what happened, which is done without the lock: Apply waits
// for it.
func (t *Table) unlock() {
	notes := t.notes
	t.notes = nil
	t.mu.Unlock()
	notes.write(t.log)
}

// Applied follows the state machine (see fsm.Observer).
func (t *Table) Applied(u *fsm.Update) {
	t.mu.Lock()
	defer t.unlock()
	if !t.active {
		return
	}
	if len(u.Terms) > 0 {
		t.fillLocked(u.State)
		return
	}
	now := t.now()
	for _, c := range u.Changes {
		if c.Prev != nil && (c.Next == nil || c.Next.LeaseID != c.Prev.LeaseID) {
			t.removeLocked(c.Prev.LeaseID)
		}
		if c.Next != nil {
			t.putLocked(c.Group, c.Next, now)
		}
		t.noteReturnLocked(c)
	}
}

// noteReturnLocked logs that a held registration came back from another address:
// whoever uses the id may take it, and this shows who did.
func (t *Table) noteReturnLocked(c fsm.Change) {
	if c.Prev != nil && c.Next != nil && c.Prev.Hold > 0 && c.Next.LeaseID != c.Prev.LeaseID && c.Next.Addr != c.Prev.Addr {
		t.notes.Info("a held registration was taken from another address", "group", c.Group, "id", c.Next.ID, "was", c.Prev.Addr, "now", c.Next.Addr)
	}
}

// Restored gives every lease of the new state its full TTL.
func (t *Table) Restored(state *fsm.State) {
	t.mu.Lock()
	defer t.unlock()
	if t.active {
		t.fillLocked(state)
	}
}

// Lead makes the table follow the state machine; every lease starts with its
// full TTL. The state is read under the lock: what is published later comes
// through Applied.
func (t *Table) Lead(machine *fsm.Machine) {
	t.mu.Lock()
	defer t.unlock()
	t.active = true
	t.fillLocked(machine.State())
}

// Follow empties the table: another node leads.
func (t *Table) Follow() {
	t.mu.Lock()
	defer t.unlock()
	t.active = false
	t.emptyLocked()
}

func (t *Table) emptyLocked() {
	clear(t.byID)
	clear(t.groups)
	t.guards.reset()
	t.queue = nil
}

func (t *Table) fillLocked(state *fsm.State) {
	t.emptyLocked()
	now := t.now()
	for g := range state.Groups {
		for m := range g.Members {
			t.putLocked(g.Name, m, now)
		}
	}
}

// putLocked starts a lease, or gives one that was registered again its full TTL.
func (t *Table) putLocked(group string, m *fsm.Member, now int64) {
	l := t.byID[m.LeaseID]
	ttl := max(m.TTL, m.Hold)
	if l != nil && l.epoch == m.Epoch && l.ttl == ttl {
		return // changed on an operator's word: no sign of life
	}
	if l == nil {
		l = &lease{id: m.LeaseID, index: -1, guard: t.guardLocked(group)}
		l.guard.leases++
		l.guard.joins()
		t.byID[l.id] = l
	}
	l.guard.revived(l, &t.notes)
	l.keepLocked()
	l.watchLocked(m.Hold)
	l.group, l.member, l.epoch, l.ttl = group, m.ID, m.Epoch, ttl
	l.deadline.Store(now + int64(ttl))
	t.enqueueLocked(l)
}

func (t *Table) removeLocked(id uint64) {
	l := t.byID[id]
	if l == nil {
		return
	}
	delete(t.byID, id)
	if l.index >= 0 {
		heap.Remove(&t.queue, l.index)
	}
	if l.watched() {
		l.guard.leaves(l, &t.notes)
	} else {
		l.guard.settle(l, &t.notes) // it was counted as gone, or not at all
	}
	if l.guard.leases--; l.guard.leases == 0 && t.groups[l.group] == l.guard {
		delete(t.groups, l.group)
	}
}

// keepLocked takes back that an expiry is on its way.
func (l *lease) keepLocked() {
	if l.expiring {
		l.expiring = false
		if l.hold == 0 {
			l.guard.joins()
		}
	}
}

// watched says whether the guard counts the lease among its members.
func (l *lease) watched() bool { return l.hold == 0 && !l.expiring }

// watchLocked makes the guard watch a lease that is not held, and no other.
func (l *lease) watchLocked(hold time.Duration) {
	switch {
	case l.hold == 0 && hold != 0:
		l.guard.excused()
	case l.hold != 0 && hold == 0:
		l.guard.joins()
	}
	l.hold = hold
}

func (t *Table) guardLocked(group string) *groupGuard {
	g := t.groups[group]
	if g == nil {
		g = &groupGuard{group: group, all: t.guards}
		t.groups[group] = g
	}
	return g
}

// AcceptLoss lets the members of a group go that are past their deadline, and
// those that follow within their TTL; it returns how many the former are.
func (t *Table) AcceptLoss(group string) int {
	t.mu.Lock()
	defer t.unlock()
	g := t.groups[group]
	if g == nil || g.lapsed == 0 {
		return 0
	}
	now := t.now()
	for _, l := range t.byID {
		if l.guard == g && l.lapsed {
			g.accepted = max(g.accepted, now+int64(l.ttl))
			t.enqueueAtLocked(l, now)
		}
	}
	t.guards.accepted++
	t.notes.Warn("an operator accepted a group's loss: its silent members go at once", "group", group, "silent", g.lapsed, "members", g.members)
	return g.lapsed
}

func (t *Table) enqueueLocked(l *lease) { t.enqueueAtLocked(l, l.deadline.Load()) }

func (t *Table) enqueueAtLocked(l *lease, at int64) {
	l.queuedAt = at
	if l.index >= 0 {
		heap.Fix(&t.queue, l.index)
	} else {
		heap.Push(&t.queue, l)
	}
	if l.index == 0 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// Renew gives the leases their full TTL from now and returns those that it
// does not hold. The answer to the caller waits for the leadership check.
func (t *Table) Renew(ids []uint64) (lost []uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	now := t.now()
	for _, id := range ids {
		l := t.byID[id]
		if l == nil || l.expiring {
			lost = append(lost, id)
			continue
		}
		l.deadline.Store(now + int64(l.ttl))
	}
	return lost
}

// Due takes up to limit leases whose deadline has passed; no renewal of them
// counts any more. next is the time to the next deadline, or -1 without one.
func (t *Table) Due(limit int) (leases []*fsmpb.ExpiredLease, next time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for len(t.queue) > 0 {
		l := t.queue[0]
		if l.queuedAt > now {
			return leases, time.Duration(l.queuedAt - now)
		}
		if l.deadline.Load() > now {
			l.guard.revived(l, &t.notes)
			t.enqueueLocked(l)
			continue
		}
		if len(leases) == limit {
			return leases, 0
		}
		if l.hold == 0 {
			if wait := l.guard.lapse(l, now, &t.notes); wait > 0 {
				t.enqueueAtLocked(l, now+min(wait, int64(l.ttl)/guardLook))
				continue
			}
			l.guard.goes(l, &t.notes)
		}
		heap.Pop(&t.queue)
		l.expiring = true
		leases = append(leases, &fsmpb.ExpiredLease{LeaseId: l.id, Epoch: l.epoch, Group: l.group, Id: l.member})
	}
	return leases, -1
}

// Grace moves every deadline to at least that far from now. After the process
// stood still, heartbeats that arrived meanwhile wait to be read: they are
// taken before anything expires.
func (t *Table) Grace(d time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for _, l := range t.queue {
		if l.lapsed {
			continue // the guard has it: it was silent before
		}
		if least := now + int64(min(d, l.ttl)); l.deadline.Load() < least {
			l.deadline.Store(least)
		}
	}
}

// Len is the number of leases; 0 while another node leads.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// Expiring is the number of leases that Due returned and whose expiry is neither
// applied nor given back by Retry. It looks at every lease.
func (t *Table) Expiring() (n int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, l := range t.byID {
		if l.expiring {
			n++
		}
	}
	return n
}

// leaseQueue is a heap by queuedAt.
type leaseQueue []*lease

func (q leaseQueue) Len() int           { return len(q) }
func (q leaseQueue) Less(i, j int) bool { return q[i].queuedAt < q[j].queuedAt }
func (q leaseQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *leaseQueue) Push(x any) {
	l := x.(*lease)
	l.index = len(*q)
	*q = append(*q, l)
}

func (q *leaseQueue) Pop() any {
	old := *q
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	l.index = -1
	return l
}

// Retry starts leases over whose expiry was not proposed.
func (t *Table) Retry(leases []*fsmpb.ExpiredLease) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for _, e := range leases {
		if l := t.byID[e.LeaseId]; l != nil && l.expiring {
			l.keepLocked()
			l.deadline.Store(now + int64(l.ttl))
			t.enqueueLocked(l)
		}
	}
}
