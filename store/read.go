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

// State is this node's latest state.
func (s *Store) State() *fsm.State { return s.machine.State() }

// Machine is the state machine.
func (s *Store) Machine() *fsm.Machine { return s.machine }

// Watches is the hub of watches of this node's state.
func (s *Store) Watches() *watch.Hub { return s.watches }

// Rings is the cache of rings.
func (s *Store) Rings() *rings.Cache { return s.rings }

// WaitIndex waits until this node has applied the index.
func (s *Store) WaitIndex(ctx context.Context, index uint64) (*fsm.State, error) {
	return s.machine.WaitIndex(ctx, index)
}

// ReadIndex returns an index that includes every write acknowledged before the
// call. Only the leader has one: after it has applied an entry of its term, it
// takes the commit index and then has a quorum confirm the term.
func (s *Store) ReadIndex(ctx context.Context) (uint64, error) {
	l, err := s.leading(ctx)
	if err != nil {
		return 0, err
	}
	return l.confirm.wait(ctx)
}

// LinearizableIndex is ReadIndex from any node: a follower asks the leader.
func (s *Store) LinearizableIndex(ctx context.Context) (uint64, error) {
	if s.lead.Load() != nil {
		return s.ReadIndex(ctx)
	}
	leader, id := s.Leader()
	if leader == "" {
		return 0, fmt.Errorf("%w, and no leader is known", ErrNotLeader)
	}
	return s.askLeader(ctx, s.target(leader, id))
}

// Leader returns the leader's bind address and id; both are empty while no leader
// is known.
func (s *Store) Leader() (bind, id string) {
	addr, server := s.raft.LeaderWithID()
	return string(addr), string(server)
}

// LeaderChanges returns a channel that receives after the result of Leader changed.
// Several changes may be one message: the channel has a buffer of one, and raft drops
// a message when it is full, while the reader has one to read anyway.
func (s *Store) LeaderChanges() (changes <-chan raft.Observation, stop func()) {
	c := make(chan raft.Observation, 1)
	o := raft.NewObserver(c, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(o)
	return c, func() { s.raft.DeregisterObserver(o) }
}

// IsLeader reports whether this node believes that it leads.
func (s *Store) IsLeader() bool { return s.lead.Load() != nil }

// Lag is the time since the last valid contact with the leader (see staleness); 0 on
// a leader that a quorum answers. Its error is at most an election timeout and the
// network latency. It is [UnknownLag] while the node is [Store.Stale].
func (s *Store) Lag() time.Duration {
	if s.Stale() {
		return UnknownLag
	}
	return s.staleness.lag(s.leads(), s.raft.LastContact())
}

// Ready is closed once this node has caught up since its start: it has applied
// everything that was acknowledged before. The state of a node that is not ready
// may be very old.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// IsReady reports whether Ready is closed.
func (s *Store) IsReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// readyLoop closes Ready once this node has applied a confirmed index.
func (s *Store) readyLoop(ctx context.Context) {
	for {
		if s.catchUp(ctx) == nil {
			close(s.ready)
			s.integrity.wake(nil)
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

// pause waits for d; false if ctx ended first.
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

// Status is the state of this node.
type Status struct {
	ID, Cluster   string
	Bind, Addr    string
	Version       string
	Zone          string // that the node was started in
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
	Alarms        []string // conditions that an operator should know of
	// FeatureLevel is the cluster's, and Supports the newest that this node supports.
	FeatureLevel, Supports uint32
}

// Status returns the state of this node.
func (s *Store) Status() Status {
	state := s.State()
	st := Status{
		ID: s.cfg.ID, Cluster: s.cfg.Cluster, Bind: s.cfg.BindAdvertise, Addr: s.cfg.Addr, Version: s.cfg.Version, Zone: s.cfg.Zone,
		Ready: s.IsReady() && s.Serving() == nil, Alarms: s.alarms(), Term: s.raft.CurrentTerm(), AppliedIndex: state.Index(), CommitIndex: s.raft.CommitIndex(),
		Digest: state.Digest(), Lag: s.Lag(), Leases: s.leases.Len(),
		FeatureLevel: state.FeatureLevel(), Supports: s.cfg.FeatureLevel,
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

// Alive returns nil until the node fails or is closed, whether it is ready or not. It takes
// the locks that Status takes, none of which is held for long, and does not return while
// one of them is held: a deadlock shows.
func (s *Store) Alive() error {
	if err := s.Failure(); err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return ErrClosed
	}
	_ = s.Status()
	return nil
}

// ID is this node's name.
func (s *Store) ID() string { return s.cfg.ID }

// ClientAddr is where clients reach this node.
func (s *Store) ClientAddr() string { return s.cfg.Addr }

// Term is raft's current term.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }
