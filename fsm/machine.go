package fsm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

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
	// Removed says that a Deregister or a RevokeToken found something to remove.
	Removed bool
	// Members that were removed with a deleted group.
	Members int
	// Request is the command's request, if it has one: see fsmpb.Command.
	Request []byte
	// Err is one of the package's sentinels, with detail.
	Err error
}

// Change is one member that an entry added, changed or removed.
type Change struct {
	Group string
	// Prev is nil when the member is new, Next when it is gone.
	Prev, Next *Member
}

// GroupChange is the visible change of one group, from the revision of Prev to
// that of Next. A group that one call of Apply deleted and created again has both.
type GroupChange struct {
	Prev, Next *Group // Prev is nil for a new group, Next for a deleted one
	// Removed is to be applied before Put: a member that was removed and added again
	// is in both. Both are ordered by id.
	Removed []string
	Put     []*Member
}

// Update is what one call of Apply did.
type Update struct {
	Before  uint64 // index of the state before
	State   *State
	Changes []Change      // of members, in the order of the log
	Groups  []GroupChange // one for each group with a visible change
	Terms   []uint64      // terms whose first entry was applied, in order
}

// Observer is notified of every change, on the goroutine that applies: it must
// return quickly and must not call the Machine's writing methods.
type Observer interface {
	// Applied is called after the state was published.
	Applied(*Update)
	// Restored is called after a snapshot, or an entry that restores one, replaced the
	// state.
	Restored(*State)
}

// Machine applies the log. Apply and Restore are called by one goroutine at a
// time; everything else may be called by any.
type Machine struct {
	state     atomic.Pointer[State]
	observers []Observer
	metas     *metas // used by Apply alone

	mu      sync.Mutex // guards the rest
	waiters indexWaiters
	tokens  chan struct{}             // closed and replaced by every change of the tokens
	marks   btree.Map[uint64, uint64] // digests by index
	marked  chan struct{}             // closed and replaced by every mark
}

// New returns an empty machine. The observers are notified in the given order.
func New(observers ...Observer) *Machine {
	m := &Machine{observers: observers, metas: new(metas), marked: make(chan struct{}), tokens: make(chan struct{})}
	m.state.Store(newState())
	return m
}

// State returns the current state; it costs one atomic load.
func (m *Machine) State() *State { return m.state.Load() }

// Apply applies committed entries in order and publishes the outcome once. It
// panics with a [CorruptEntryError] when an entry cannot be decoded.
func (m *Machine) Apply(entries []Entry) []Result {
	before := m.State()
	b := newBatch(before, m.metas)
	results := make([]Result, len(entries))
	for i, e := range entries {
		cmd := commandOf(e)
		if cmd.GetRestoreEnd() != nil && i > 0 { // it may replace the state of the entry before
			m.finish(before, b)
			before = m.State()
			b = newBatch(before, m.metas)
		}
		b.begin(e)
		if cmd != nil {
			results[i] = b.apply(cmd)
			results[i].Request = cmd.Request
		}
		results[i].Index = e.Index
		if b.restored != nil {
			before = b.restored
			m.replace(before)
			b = newBatch(before, m.metas)
		}
	}
	m.finish(before, b)
	return results
}

// commandOf returns nil for an entry without data.
func commandOf(e Entry) *fsmpb.Command {
	if len(e.Data) == 0 {
		return nil
	}
	cmd, err := decode(e.Data)
	if err != nil {
		panic(&CorruptEntryError{Index: e.Index, Cause: err})
	}
	return cmd
}

// finish publishes what a batch has made of the state.
func (m *Machine) finish(before *State, b *batch) {
	next, groups := b.finish()
	m.noteMarks(b.marks) // before publish wakes waiters for the indexes of marks
	m.publish(next)
	for _, o := range m.observers {
		o.Applied(&Update{Before: before.index, State: next, Changes: b.changes, Groups: groups, Terms: b.terms})
	}
}

// replace publishes a state of which nothing follows from the one before.
func (m *Machine) replace(next *State) {
	m.publish(next)
	for _, o := range m.observers {
		o.Restored(next)
	}
}

func (m *Machine) publish(next *State) {
	before := m.state.Swap(next)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters.reached(next.index)
	if next.tokens != before.tokens {
		close(m.tokens)
		m.tokens = make(chan struct{})
	}
}

// TokensChanged is closed when a state with other tokens was published.
func (m *Machine) TokensChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tokens
}

// WaitIndex waits until the index is applied and returns a state that has it.
func (m *Machine) WaitIndex(ctx context.Context, index uint64) (*State, error) {
	for {
		if s := m.State(); s.index >= index {
			return s, nil
		}
		m.mu.Lock()
		if m.State().index >= index { // published before the lock was taken
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

// apply dispatches a command. The switch has every command of this version: any
// other was written by a newer one.
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
	case *fsmpb.Command_DeleteGroup:
		return b.deleteGroup(op.DeleteGroup)
	case *fsmpb.Command_UpdateMember:
		return b.updateMember(op.UpdateMember)
	case *fsmpb.Command_CreateToken:
		return b.createToken(op.CreateToken, cmd.TimeMs)
	case *fsmpb.Command_RotateToken:
		return b.rotateToken(op.RotateToken)
	case *fsmpb.Command_RevokeToken:
		return b.revokeToken(op.RevokeToken)
	case *fsmpb.Command_Check:
		return b.check()
	case *fsmpb.Command_RestoreBegin:
		return b.beginRestore()
	case *fsmpb.Command_RestorePart:
		return b.stage(op.RestorePart)
	case *fsmpb.Command_RestoreEnd:
		return b.endRestore(op.RestoreEnd)
	case *fsmpb.Command_SetFeatureLevel:
		b.raiseLevel(op.SetFeatureLevel.Level)
		return Result{}
	}
	panic(&CorruptEntryError{Index: b.index, Cause: errCommand})
}
