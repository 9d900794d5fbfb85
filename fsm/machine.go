package fsm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Entry is one committed log entry. An entry without data (a configuration
// change of the cluster) only moves the index.
type Entry struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// Result answers one entry. When Err is set the command had no effect.
type Result struct {
	// Index is the entry's log index.
	Index uint64
	// Revision of the group after the entry.
	Revision uint64
	LeaseID  uint64
	Epoch    uint64
	Instance string
	TTL      time.Duration
	// Removed says that a Deregister found something to remove.
	Removed bool
	// Call is the command's token, if it has one: see fsmpb.Command.
	Call string
	// Err is one of the package's sentinels, with detail.
	Err error
}

// Change is one member that an entry added, changed or removed.
type Change struct {
	Group string
	// Prev is nil when the member is new, Next when it is gone.
	Prev, Next *Member
}

// Observer is told of every change, on the goroutine that applies: it must be
// quick and must not call back into the Machine's writing methods.
type Observer interface {
	// Applied is called after the state was published. terms holds the terms
	// whose first entry was in the batch, in order.
	Applied(state *State, changes []Change, terms []uint64)
	// Restored is called after a snapshot replaced the state.
	Restored(state *State)
}

// Machine applies the log. Apply and Restore are called by one goroutine at a
// time; everything else may be called by any.
type Machine struct {
	state     atomic.Pointer[State]
	observers []Observer
	rings     *ringBuilder
	hub       hub // of groups' revisions

	mu      sync.Mutex // guards the rest
	waiters indexWaiters
	created chan struct{} // closed and replaced whenever groups come or go
	nodes   chan struct{} // closed and replaced whenever nodes or the leader change
	marks   []Mark        // by index
	marked  chan struct{} // closed and replaced by every mark
}

// New returns an empty machine. The observers are told in their order.
func New(observers ...Observer) *Machine {
	m := &Machine{observers: observers, created: make(chan struct{}), marked: make(chan struct{}), nodes: make(chan struct{})}
	m.rings = newRingBuilder(m)
	m.state.Store(newState())
	return m
}

// Close waits for the ring builds that are under way; no more are started.
func (m *Machine) Close() { m.rings.close() }

// State is the present state; it costs one atomic load.
func (m *Machine) State() *State { return m.state.Load() }

// Apply applies committed entries in order and publishes the outcome once. It
// panics with a [CorruptEntryError] when an entry cannot be decoded.
func (m *Machine) Apply(entries []Entry) []Result {
	b := newBatch(m.State(), m.rings)
	results := make([]Result, len(entries))
	for i, e := range entries {
		b.begin(e)
		if len(e.Data) > 0 {
			cmd, err := decode(e.Data)
			if err != nil {
				panic(&CorruptEntryError{Index: e.Index, Cause: err})
			}
			results[i] = b.apply(cmd)
			results[i].Call = string(cmd.Call)
		}
		results[i].Index = e.Index
	}
	next, dirty := b.finish()
	m.noteMarks(b.marks) // before those are woken who wait for the index of one
	m.publish(next, b.created > 0)
	for _, o := range m.observers {
		o.Applied(next, b.changes, b.terms)
	}
	m.announce(dirty)
	return results
}

// announce tells watchers of what changed, and then has the rings built.
func (m *Machine) announce(dirty []changed) {
	if len(dirty) == 0 {
		return
	}
	groups := m.State().GroupCount()
	names := make([]string, len(dirty))
	wakes := make([]chan struct{}, 0, len(dirty)+1)
	for i, d := range dirty {
		names[i] = d.group.Name
		built := uint64(0)
		if v := d.group.Ring(); v != nil {
			built = v.Revision
		}
		wakes = append(wakes, d.group.cell.revisions.publish(d.change, groups, built))
	}
	m.rings.wake(append(wakes, m.hub.publish(names...)))
	for _, d := range dirty {
		m.rings.build(d.group)
	}
}

func (m *Machine) publish(next *State, created bool) {
	old := m.state.Swap(next)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters.reached(next.index)
	if created {
		close(m.created)
		m.created = make(chan struct{})
	}
	if !old.sameNodes(next) {
		close(m.nodes)
		m.nodes = make(chan struct{})
	}
}

func (s *State) sameNodes(other *State) bool {
	return s.nodes == other.nodes && s.term == other.term && s.leader == other.leader
}

// groupCreated returns a channel that is closed when groups come or go.
func (m *Machine) groupCreated() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.created
}

// nodesChanged returns a channel that is closed when nodes or the leader change.
func (m *Machine) nodesChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes
}

// WaitIndex waits until the index is applied and returns a state that has it.
func (m *Machine) WaitIndex(ctx context.Context, index uint64) (*State, error) {
	for {
		if s := m.State(); s.index >= index {
			return s, nil
		}
		m.mu.Lock()
		if m.State().index >= index { // published before the lock was ours
			m.mu.Unlock()
			continue
		}
		w := m.waiters.add(index)
		m.mu.Unlock()
		select {
		case <-w.done:
		case <-ctx.Done():
			m.mu.Lock()
			m.waiters.remove(w)
			m.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
}

// apply dispatches a command. The switch names every command of the log; one
// that is missing here is one that a newer version wrote.
func (b *batch) apply(cmd *fsmpb.Command) Result {
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		return b.register(op.Register, cmd.TimeMs)
	case *fsmpb.Command_Deregister:
		return b.deregister(op.Deregister)
	case *fsmpb.Command_Expire:
		return b.expire(op.Expire)
	case *fsmpb.Command_TermStart:
		return b.termStart(op.TermStart)
	case *fsmpb.Command_SetNode:
		return b.setNode(op.SetNode.GetNode())
	case *fsmpb.Command_RemoveNode:
		return b.removeNode(op.RemoveNode)
	case *fsmpb.Command_SetGroup:
		return b.setGroup(op.SetGroup)
	case *fsmpb.Command_UpdateMember:
		return b.updateMember(op.UpdateMember)
	case *fsmpb.Command_Check:
		return b.check()
	}
	panic(&CorruptEntryError{Index: b.index, Cause: errCommand})
}
