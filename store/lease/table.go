package lease

import (
	"container/heap"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Table keeps the deadlines of all leases while this node leads. It follows the state
// machine: a registration adds a lease, a removal removes it. Deadlines are on the
// process's monotonic clock.
//
// A renewal only moves a deadline forward. The queue is ordered by the deadline that a
// lease had when it was queued. When a lease that was renewed since reaches the head,
// it is queued again. So a renewal costs one atomic store, whatever the number of
// leases.
//
//	t=0   lease 7, TTL 10 s: deadline 10, queued at 10
//	t=3   renewed: deadline 13, still queued at 10
//	t=10  7 is at the head, deadline 13: queued again at 13
//	t=13  7 is at the head, deadline 13: due
//
// The lease of a held member runs for its hold, if that is longer than its TTL; then
// "TTL" here and in guard.go means the hold.
type Table struct {
	start time.Time // origin of deadlines
	log   *slog.Logger

	mu     sync.RWMutex // guards the rest
	events journal      // logged after mu is released
	active bool         // whether this node leads
	byID   map[uint64]*lease
	groups map[string]*groupGuard
	guards *guards
	queue  leaseQueue
	wake   chan struct{} // signals that the head of the queue changed
}

// lease takes one cache line of 64 bytes: there are as many as members, and a renewal
// touches nothing else of a member, unless tokens are on: then it reads whose it is.
type lease struct {
	member   *fsm.Member   // as it is now: the guard counts the lease unless it is held
	guard    *groupGuard   // of its group
	ttl      time.Duration // or the hold, if that is longer
	deadline atomic.Int64  // nanoseconds since start
	queuedAt int64         // the queue's key: the deadline when it was queued
	silence  *silence      // nil: not past its deadline, or let go by the guard
	index    int32         // in the queue; -1: not queued
	expiring bool          // an expiry is proposed: renewals are refused
}

// silence is of a lease past its deadline.
type silence struct {
	since int64
	slot  int64 // when the guard releases it; 0: not scheduled
}

// New returns the table of a node that does not lead. The logger gets the events of
// the guard; it may be nil.
func New(log *slog.Logger) *Table {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Table{start: time.Now(), log: log, byID: make(map[uint64]*lease), groups: make(map[string]*groupGuard), guards: newGuards(), wake: make(chan struct{}, 1)}
}

func (t *Table) now() int64 { return int64(time.Since(t.start)) }

// Wake receives when the next deadline may be sooner.
func (t *Table) Wake() <-chan struct{} { return t.wake }

// unlock logs the events after it has released the lock, so that renewals do not wait
// for the log.
func (t *Table) unlock() {
	events := t.events
	t.events = nil
	t.mu.Unlock()
	events.write(t.log)
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
		t.logTakeoverLocked(c)
	}
}

// logTakeoverLocked logs that a held registration was taken from another address: any
// process with the id may take it, and the log shows which one did.
func (t *Table) logTakeoverLocked(c fsm.Change) {
	if c.Prev != nil && c.Next != nil && c.Prev.Hold > 0 && c.Next.LeaseID != c.Prev.LeaseID && c.Next.Addr != c.Prev.Addr {
		t.events.Info("a held registration was taken from another address", "group", c.Group, "id", c.Next.ID, "old_addr", c.Prev.Addr, "new_addr", c.Next.Addr)
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

// Lead activates the table; every lease gets its full TTL. The state is read under the
// lock: later changes come by Applied.
func (t *Table) Lead(machine *fsm.Machine) {
	t.mu.Lock()
	defer t.unlock()
	t.active = true
	t.fillLocked(machine.State())
}

// Follow deactivates and empties the table.
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

// putLocked adds a lease, or gives the lease of a new registration its full TTL.
func (t *Table) putLocked(group string, m *fsm.Member, now int64) {
	l := t.byID[m.LeaseID]
	ttl := max(m.TTL, m.Hold)
	if l != nil && l.member.Epoch == m.Epoch && l.ttl == ttl {
		l.member = m
		return // changed by an operator: no sign of life
	}
	if l == nil {
		l = &lease{member: m, index: -1, guard: t.guardLocked(group)}
		l.guard.leases++
		if m.Hold == 0 {
			l.guard.added()
		}
		t.byID[m.LeaseID] = l
	}
	l.guard.renewed(l, &t.events)
	l.cancelExpiryLocked()
	l.setMemberLocked(m)
	l.ttl = ttl
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
		heap.Remove(&t.queue, int(l.index))
	}
	if l.counted() {
		l.guard.removed(l, &t.events)
	} else {
		l.guard.clearSilent(l, &t.events) // not counted, or subtracted already
	}
	if l.guard.leases--; l.guard.leases == 0 && t.groups[l.guard.group] == l.guard {
		delete(t.groups, l.guard.group)
	}
}

// cancelExpiryLocked makes an expiring lease renewable again.
func (l *lease) cancelExpiryLocked() {
	if l.expiring {
		l.expiring = false
		if l.member.Hold == 0 {
			l.guard.added()
		}
	}
}

// counted reports whether the guard counts the lease among its members.
func (l *lease) counted() bool { return l.member.Hold == 0 && !l.expiring }

// setMemberLocked sets the member. The guard counts those that are not held.
func (l *lease) setMemberLocked(m *fsm.Member) {
	switch before := l.member.Hold; {
	case before == 0 && m.Hold != 0:
		l.guard.held()
	case before != 0 && m.Hold == 0:
		l.guard.added()
	}
	l.member = m
}

func (t *Table) guardLocked(group string) *groupGuard {
	g := t.groups[group]
	if g == nil {
		g = &groupGuard{group: group, all: t.guards}
		t.groups[group] = g
	}
	return g
}

// AcceptLoss lets the silent leases of a group expire at once, and those that become
// silent within their TTL. It returns the number of the former.
func (t *Table) AcceptLoss(group string) int {
	t.mu.Lock()
	defer t.unlock()
	g := t.groups[group]
	if g == nil || g.silent == 0 {
		return 0
	}
	now := t.now()
	for _, l := range t.byID {
		if l.guard == g && l.silence != nil {
			g.accepted = max(g.accepted, now+int64(l.ttl))
			t.enqueueAtLocked(l, now)
		}
	}
	t.guards.accepted++
	t.events.Warn("an operator accepted a group's loss: its silent members expire at once", "group", group, "silent", g.silent, "members", g.members)
	return g.silent
}

func (t *Table) enqueueLocked(l *lease) { t.enqueueAtLocked(l, l.deadline.Load()) }

func (t *Table) enqueueAtLocked(l *lease, at int64) {
	l.queuedAt = at
	if l.index >= 0 {
		heap.Fix(&t.queue, int(l.index))
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

// NotOwnerError is an [fsm.ErrNotOwner] for leases.
type NotOwnerError struct {
	LeaseIDs []uint64 // at most maxRefused, and there may be more
}

// maxRefused bounds the leases that an error names. A caller with more of them needs
// several calls to learn all.
const maxRefused = 100

func (e *NotOwnerError) Error() string {
	return fmt.Sprintf("%v: lease %d", fsm.ErrNotOwner, e.LeaseIDs[0])
}

func (e *NotOwnerError) Unwrap() error { return fsm.ErrNotOwner }

// Renew gives the leases their full TTL from now and returns those that are lost. The
// caller acknowledges it after the leadership check.
//
// It asks allowed about the group and the owner, the id of a token or empty, of each
// lease that exists. If one is refused, it renews none and returns a [NotOwnerError].
// A nil allowed refuses nothing.
func (t *Table) Renew(ids []uint64, allowed func(group, owner string) bool) (lost []uint64, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if refused := t.refusedLocked(ids, allowed); len(refused) > 0 {
		return nil, &NotOwnerError{refused}
	}
	now := t.now()
	for _, id := range ids {
		l := t.byID[id]
		if l == nil || l.expiring {
			lost = append(lost, id)
			continue
		}
		l.deadline.Store(now + int64(l.ttl))
	}
	return lost, nil
}

func (t *Table) refusedLocked(ids []uint64, allowed func(group, owner string) bool) (refused []uint64) {
	if allowed == nil {
		return nil
	}
	for _, id := range ids {
		if l := t.byID[id]; l != nil && !allowed(l.guard.group, l.member.Token) && len(refused) < maxRefused {
			refused = append(refused, id)
		}
	}
	return refused
}

// Due returns up to limit leases to expire; renewals of them are refused from then on.
// next is the time to the next deadline, or -1 if there is none.
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
			l.guard.renewed(l, &t.events)
			t.enqueueLocked(l)
			continue
		}
		if len(leases) == limit {
			return leases, 0
		}
		if l.member.Hold == 0 {
			if wait := l.guard.delay(l, now, &t.events); wait > 0 {
				t.enqueueAtLocked(l, now+min(wait, int64(l.ttl)/guardRecheck))
				continue
			}
			l.guard.expires(l, &t.events)
		}
		heap.Pop(&t.queue)
		l.expiring = true
		leases = append(leases, &fsmpb.ExpiredLease{LeaseId: l.member.LeaseID, Epoch: l.member.Epoch, Group: l.guard.group, Id: l.member.ID})
	}
	return leases, -1
}

// Grace moves every deadline to at least d from now. After a pause of the process,
// heartbeats that arrived meanwhile are read before any lease expires.
func (t *Table) Grace(d time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for _, l := range t.queue {
		if l.silence != nil {
			continue // silent before the pause
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

// Expiring is the number of leases that Due returned and whose expiry is neither applied
// nor reverted by Retry. It iterates over all leases.
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
	q[i].index, q[j].index = int32(i), int32(j)
}

func (q *leaseQueue) Push(x any) {
	l := x.(*lease)
	l.index = int32(len(*q))
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

// Retry gives leases their full TTL again if their expiry has no known outcome.
func (t *Table) Retry(leases []*fsmpb.ExpiredLease) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for _, e := range leases {
		if l := t.byID[e.LeaseId]; l != nil && l.expiring {
			l.cancelExpiryLocked()
			l.deadline.Store(now + int64(l.ttl))
			t.enqueueLocked(l)
		}
	}
}
