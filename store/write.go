package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/lease"
)

// enqueueTimeout bounds the wait for room in raft's queue.
const enqueueTimeout = 5 * time.Second

// Write commits a command and returns the state machine's result. Only the leader
// writes. The command is validated first; see package fsm for the errors of
// commands, and this package's errors for the outcome of the entry.
func (s *Store) Write(ctx context.Context, cmd *fsmpb.Command) (fsm.Result, error) {
	return s.WriteOnce(ctx, cmd, Request{})
}

// WriteOnce is Write for a request that may be retried, here and on other leaders:
// it takes effect once. The result of an earlier attempt has no Epoch and no
// Instance.
func (s *Store) WriteOnce(ctx context.Context, cmd *fsmpb.Command, r Request) (fsm.Result, error) {
	return s.begin(ctx, cmd, r)()
}

// Write is a command with the request that it is of.
type Write struct {
	Command *fsmpb.Command
	Request Request
}

// Outcome is what became of a write.
type Outcome struct {
	Result fsm.Result
	Err    error
}

// WriteMany is WriteOnce for many writes: they are proposed in their order, before the
// first is waited for, and each has an outcome of its own.
func (s *Store) WriteMany(ctx context.Context, writes []Write) []Outcome {
	waits := make([]func() (fsm.Result, error), len(writes))
	for i, w := range writes {
		waits[i] = s.begin(ctx, w.Command, w.Request)
	}
	outcomes := make([]Outcome, len(writes))
	for i, wait := range waits {
		outcomes[i].Result, outcomes[i].Err = wait()
	}
	return outcomes
}

// begin proposes a command, unless an earlier attempt of the request did. wait returns
// what WriteOnce returns.
func (s *Store) begin(ctx context.Context, cmd *fsmpb.Command, r Request) (wait func() (fsm.Result, error)) {
	failed := func(err error) func() (fsm.Result, error) {
		return func() (fsm.Result, error) { return fsm.Result{}, err }
	}
	if n := len(r.ID); n != 0 && n != RequestIDSize {
		return failed(&fsm.FieldError{Field: "request_id", Limit: fmt.Sprintf("exactly %d bytes", RequestIDSize), Got: fmt.Sprintf("%d bytes", n)})
	}
	if err := fsm.Validate(cmd); err != nil {
		return failed(err)
	}
	l, err := s.leading(ctx)
	if err != nil {
		return failed(err)
	}
	if err := s.allow(ctx, cmd); err != nil {
		return failed(err)
	}
	cmd.Request = r.key()
	p, err := newProposal(cmd)
	if err != nil {
		return failed(err)
	}
	p.lead = l
	if len(r.ID) > 0 {
		known, other, err := s.dedup.begin(r, s.State().Index(), p)
		switch {
		case err != nil:
			return failed(err)
		case known != nil:
			return func() (fsm.Result, error) { return *known, nil }
		case other != nil:
			return func() (fsm.Result, error) { return s.outcomeOf(ctx, other) }
		}
	}
	if err := errors.Join(s.State().CheckRoom(cmd), s.roomFor(cmd)); err != nil {
		s.complete(p, outcome{err: err})
		return failed(err)
	}
	start := time.Now()
	err = s.enqueue(ctx, p)
	return func() (result fsm.Result, _ error) {
		if err == nil {
			result, err = s.outcomeOf(ctx, p)
		}
		if observe := s.cfg.Instruments.Written; observe != nil {
			observe(time.Since(start), err)
		}
		return result, err
	}
}

// AwaitTerm waits until this node, if it leads, has applied the first entry of its term,
// and with it everything that was acknowledged under leaders before. Otherwise the error
// is [ErrNotLeader], or [ErrBusy] when ctx ends first.
func (s *Store) AwaitTerm(ctx context.Context) error {
	_, err := s.leading(ctx)
	return err
}

// leading waits until this node, if it leads, has opened its term for writes.
func (s *Store) leading(ctx context.Context) (*leadership, error) {
	l := s.lead.Load()
	if l == nil || l.ctx.Err() != nil || s.Diverged() != nil {
		return nil, ErrNotLeader
	}
	select {
	case <-l.opened:
		return l, nil
	case <-l.ctx.Done():
		return nil, ErrNotLeader
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
}

// proposal is an entry that is not applied yet.
type proposal struct {
	data   []byte
	future raft.ApplyFuture // set by proposeLoop
	done   chan struct{}    // closed when out is set
	out    outcome
	// lead is the leadership in which deduplication found no earlier attempt; nil:
	// not deduplicated. In a later leadership it has to check again.
	lead *leadership

	request requestID // see Request
	hash    uint64
	tracked bool // by dedup
}

type outcome struct {
	result fsm.Result
	err    error
}

func newProposal(cmd *fsmpb.Command) (*proposal, error) {
	cmd.TimeMs = time.Now().UnixMilli()
	data, err := fsm.Encode(cmd)
	if err != nil {
		return nil, err
	}
	return &proposal{data: data, done: make(chan struct{})}, nil
}

// propose commits a command and waits for its result.
func (s *Store) propose(ctx context.Context, cmd *fsmpb.Command) (fsm.Result, error) {
	p, err := newProposal(cmd)
	if err != nil {
		return fsm.Result{}, err
	}
	if err := s.enqueue(ctx, p); err != nil {
		return fsm.Result{}, err
	}
	return s.outcomeOf(ctx, p)
}

// enqueue passes the proposal to proposeLoop.
func (s *Store) enqueue(ctx context.Context, p *proposal) error {
	if ctx.Err() == nil {
		select {
		case s.proposals <- p:
			return nil
		case <-ctx.Done():
		case <-s.ctx.Done():
			return canceled(s.ctx)
		}
	}
	err := fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	s.complete(p, outcome{err: err})
	return err
}

// complete sets the proposal's outcome and wakes its waiters.
func (s *Store) complete(p *proposal, out outcome) {
	p.out = out
	close(p.done)
	s.dedup.completed(p)
}

func (s *Store) outcomeOf(ctx context.Context, p *proposal) (fsm.Result, error) {
	select {
	case <-p.done:
		if p.out.err != nil {
			return fsm.Result{}, p.out.err
		}
		return p.out.result, p.out.result.Err
	case <-ctx.Done():
		return fsm.Result{}, canceled(ctx)
	case <-s.ctx.Done():
		return fsm.Result{}, canceled(s.ctx)
	}
}

// proposeLoop passes proposals to raft in batches: while maxBatches are in flight,
// later proposals collect for the next batch. If they were passed one by one, raft
// would write them in small groups, each with its own fsyncs here and on every
// follower.
func (s *Store) proposeLoop(ctx context.Context) {
	for {
		var batch []*proposal
		select {
		case p := <-s.proposals:
			batch = append(batch, p)
		case <-ctx.Done():
			return
		}
		select {
		case s.inFlight <- struct{}{}:
		case <-ctx.Done():
			return
		}
		for more := true; more && len(batch) < maxBatchSize; {
			select {
			case p := <-s.proposals:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		batch = slices.DeleteFunc(batch, func(p *proposal) bool {
			if p.lead != nil && p.lead.ctx.Err() != nil {
				s.complete(p, outcome{err: ErrNotLeader})
				return true
			}
			p.future = s.raft.Apply(p.data, enqueueTimeout)
			return false
		})
		select {
		case s.proposed <- batch:
		case <-ctx.Done():
			return
		}
	}
}

const (
	// maxBatches is two, so that one is written while the other is replicated.
	maxBatches = 2
	// maxBatchSize is the most entries that raft writes at a time.
	maxBatchSize = 1024
)

// collectLoop waits for the futures. raft completes them in roughly the order in
// which they were proposed, so one goroutine waits for all, and a caller that
// returns early leaks nothing.
func (s *Store) collectLoop() {
	defer close(s.collected)
	for {
		select {
		case batch := <-s.proposed:
			for _, p := range batch {
				s.progress.entryWaits()
				out := await(p.future)
				s.progress.entryDone(out.err)
				s.complete(p, out)
			}
			<-s.inFlight
		case <-s.ctx.Done():
			return
		}
	}
}

func await(f raft.ApplyFuture) outcome {
	if err := f.Error(); err != nil {
		return outcome{err: writeError(err)}
	}
	result, ok := f.Response().(*fsm.Result)
	if !ok {
		return outcome{err: fmt.Errorf("%w: the state machine returned %T", ErrOutcomeUnknown, f.Response())}
	}
	return outcome{result: *result}
}

// Renew gives leases their full TTL and returns those that are lost. It returns only
// after a quorum has confirmed, later than the call's arrival, that this node still
// leads; until then a renewal has an effect but is not acknowledged.
//
// If allowed refuses the group and the owner of a lease, none is renewed and the error
// is a [lease.NotOwnerError]; see [lease.Table.Renew].
func (s *Store) Renew(ctx context.Context, ids []uint64, allowed func(group, owner string) bool) (lost []uint64, term uint64, err error) {
	if len(ids) > fsm.MaxBatch {
		return nil, 0, &fsm.FieldError{Field: "lease_ids", Limit: fmt.Sprintf("at most %d", fsm.MaxBatch), Got: fmt.Sprint(len(ids))}
	}
	l, err := s.leading(ctx)
	if err != nil {
		return nil, 0, err
	}
	lost, err = s.leases.Renew(ids, allowed)
	if err != nil {
		return nil, 0, err
	}
	if _, err := l.confirm.wait(ctx); err != nil {
		return nil, 0, err
	}
	if l.ctx.Err() != nil {
		return nil, 0, ErrNotLeader // the table was emptied: nothing is lost
	}
	s.counters.renewed.Add(uint64(len(ids) - len(lost)))
	s.counters.notLeased.Add(uint64(len(lost)))
	return lost, l.term, nil
}

// AcceptLoss lets the leases that the mass-loss guard holds in a group expire at
// once, and returns how many are silent. Only the leader keeps leases.
func (s *Store) AcceptLoss(ctx context.Context, group string) (int, error) {
	if err := fsm.ValidateName("group", group); err != nil {
		return 0, err
	}
	if _, err := s.leading(ctx); err != nil {
		return 0, err
	}
	return s.leases.AcceptLoss(group), nil
}

// Guard is the state of the mass-loss guard for a group. Only the leader has it;
// other nodes return [ErrNotLeader]. A group without leases is idle.
func (s *Store) Guard(ctx context.Context, group string) (lease.Status, error) {
	if err := fsm.ValidateName("group", group); err != nil {
		return lease.Status{}, err
	}
	if _, err := s.leading(ctx); err != nil {
		return lease.Status{}, err
	}
	if s.State().Group(group) == nil {
		return lease.Status{}, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, group)
	}
	return s.leases.Status(group), nil
}
