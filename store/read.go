package store

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/fsm/watch"
)

// State is this node's view, whatever its age.
func (s *Store) State() *fsm.State { return s.machine.State() }

// Machine is the state machine.
func (s *Store) Machine() *fsm.Machine { return s.machine }

// Watches tells of what changes.
func (s *Store) Watches() *watch.Hub { return s.watches }

// Rings are those of the groups that this node is asked about.
func (s *Store) Rings() *rings.Cache { return s.rings }

// WaitIndex waits until this node has applied the index.
func (s *Store) WaitIndex(ctx context.Context, index uint64) (*fsm.State, error) {
	return s.machine.WaitIndex(ctx, index)
}

// ReadIndex returns an index that includes every write acknowledged before the
// call. Only the leader knows one: having applied an entry of its term, it
// notes the commit index and then has a quorum confirm the term.
func (s *Store) ReadIndex(ctx context.Context) (uint64, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return 0, err
	}
	index := s.raft.CommitIndex()
	if err := s.confirm.wait(ctx, l); err != nil {
		return 0, err
	}
	return index, nil
}

// LinearizableIndex is ReadIndex from any node: a follower asks the leader.
func (s *Store) LinearizableIndex(ctx context.Context) (uint64, error) {
	if s.lead.Load() != nil {
		return s.ReadIndex(ctx)
	}
	leader, id := s.Leader()
	if leader == "" {
		return 0, fmt.Errorf("%w, and it knows none", ErrNotLeader)
	}
	return s.cfg.Peers.ReadIndex(ctx, s.target(leader, id))
}

// Leader returns the leader's bind address and id; both are empty while none
// is known.
func (s *Store) Leader() (bind, id string) {
	addr, server := s.raft.LeaderWithID()
	return string(addr), string(server)
}

// LeaderChanges returns a channel that receives after what Leader returns
// changed. Several changes may be one message: the channel has room for one, and
// raft drops what finds it full, when the reader has a message to read anyway.
func (s *Store) LeaderChanges() (changes <-chan raft.Observation, stop func()) {
	c := make(chan raft.Observation, 1)
	o := raft.NewObserver(c, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(o)
	return c, func() { s.raft.DeregisterObserver(o) }
}

// IsLeader says whether this node leads, to its own knowledge.
func (s *Store) IsLeader() bool { return s.lead.Load() != nil }

// Lag is the time since this node last heard from the leader, as far as what it
// heard counts (see staleness); 0 on a leader that a quorum answers. It is off by
// at most an election timeout and the time that a word takes on the wire.
func (s *Store) Lag() time.Duration { return s.staleness.lag(s.leads(), s.raft.LastContact()) }

// Ready is closed when this node has caught up since its start: it has applied
// everything that was acknowledged before it came. A node that is not ready
// may hold a state from long ago.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// IsReady says whether Ready is closed.
func (s *Store) IsReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// readyLoop asks for a confirmed index until it gets one, and applies up to it.
func (s *Store) readyLoop(ctx context.Context) {
	for {
		if s.catchUp(ctx) == nil {
			close(s.ready)
			s.integrity.wake()
			s.log.Info("ready", "index", s.State().Index())
			return
		}
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

func (s *Store) catchUp(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	index, err := s.LinearizableIndex(ask)
	if err != nil {
		return err
	}
	_, err = s.WaitIndex(ctx, index)
	return err
}

// pause waits between two attempts; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Status is what the node knows of itself.
type Status struct {
	ID, Cluster   string
	Bind, Addr    string
	Version       string
	Role          string // leader, follower, candidate or nonvoter
	Voter         bool
	Ready         bool
	Term          uint64
	AppliedIndex  uint64
	CommitIndex   uint64
	Digest        uint64 // of the state at AppliedIndex
	Lag           time.Duration
	LeaderID      string
	LeaderBind    string
	Leases        int // that this node keeps deadlines for: 0 unless it leads
	Configuration []raft.Server
	Alarms        []string // what an operator should know
}

// Status reports this node.
func (s *Store) Status() Status {
	state := s.State()
	st := Status{
		ID: s.cfg.ID, Cluster: s.cfg.Cluster, Bind: s.cfg.BindAdvertise, Addr: s.cfg.Addr, Version: s.cfg.Version,
		Ready: s.Serving() == nil, Alarms: s.alarms(), Term: s.raft.CurrentTerm(), AppliedIndex: state.Index(), CommitIndex: s.raft.CommitIndex(),
		Digest: state.Digest(), Lag: s.Lag(), Leases: s.leases.Len(),
	}
	st.LeaderBind, st.LeaderID = s.Leader()
	if f := s.raft.GetConfiguration(); f.Error() == nil {
		st.Configuration = f.Configuration().Servers
	}
	for _, server := range st.Configuration {
		if server.ID == raft.ServerID(s.cfg.ID) {
			st.Voter = server.Suffrage == raft.Voter
		}
	}
	st.Role = role(s.raft.State(), st.Voter)
	return st
}

func role(state raft.RaftState, voter bool) string {
	switch {
	case state == raft.Leader:
		return "leader"
	case !voter:
		return "nonvoter"
	case state == raft.Candidate:
		return "candidate"
	}
	return "follower"
}

// ID is this node's name.
func (s *Store) ID() string { return s.cfg.ID }

// ClientAddr is where clients reach this node.
func (s *Store) ClientAddr() string { return s.cfg.Addr }

// Term is raft's current term.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }
