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

// enqueueTimeout bounds the wait for a place in raft's queue.
const enqueueTimeout = 5 * time.Second

// Write commits a command and returns what the state machine answered. Only
// the leader writes. The command is checked first; see package fsm for the
// errors of commands, and this package's for what became of the entry.
func (s *Store) Write(ctx context.Context, cmd *fsmpb.Command) (fsm.Result, error) {
	return s.WriteOnce(ctx, cmd, Request{})
}

// WriteOnce is Write for a call that may be attempted several times, here and
// on other leaders: it takes effect once. A result from an earlier attempt has
// no Epoch and no Instance.
func (s *Store) WriteOnce(ctx context.Context, cmd *fsmpb.Command, r Request) (fsm.Result, error) {
	if n := len(r.ID); n != 0 && n != RequestIDSize {
		return fsm.Result{}, &fsm.FieldError{Field: "request_id", Limit: fmt.Sprintf("exactly %d bytes", RequestIDSize), Got: fmt.Sprintf("%d bytes", n)}
	}
	if err := fsm.Validate(cmd); err != nil {
		return fsm.Result{}, err
	}
	l, err := s.leading(ctx)
	if err != nil {
		return fsm.Result{}, err
	}
	cmd.Request = r.key()
	p, err := newProposal(cmd)
	if err != nil {
		return fsm.Result{}, err
	}
	p.lead = l
	if len(r.ID) > 0 {
		known, other, err := s.dedup.begin(r, s.State().Index(), p)
		switch {
		case err != nil:
			return fsm.Result{}, err
		case known != nil:
			return *known, nil
		case other != nil:
			return s.outcomeOf(ctx, other)
		}
	}
	if err := errors.Join(s.State().CheckRoom(cmd), s.roomFor(cmd)); err != nil {
		s.settle(p, outcome{err: err})
		return fsm.Result{}, err
	}
	start := time.Now()
	result, err := s.submit(ctx, p)
	if told := s.cfg.Instruments.Written; told != nil {
		told(time.Since(start), err)
	}
	return result, err
}

// leading waits until this node, if it leads, has opened its term.
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

// proposal is an entry on its way.
type proposal struct {
	data   []byte
	future raft.ApplyFuture // set by proposeLoop
	done   chan struct{}    // closed when out is set
	out    outcome
	// lead is the leadership in which it was looked up whether another attempt
	// took effect; nil: any. In a later one that has to be looked up again.
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

// propose puts a command into the log and waits for its result.
func (s *Store) propose(ctx context.Context, cmd *fsmpb.Command) (fsm.Result, error) {
	p, err := newProposal(cmd)
	if err != nil {
		return fsm.Result{}, err
	}
	return s.submit(ctx, p)
}

// submit gives the proposal to proposeLoop and waits for its outcome.
func (s *Store) submit(ctx context.Context, p *proposal) (fsm.Result, error) {
	if ctx.Err() == nil {
		select {
		case s.proposals <- p:
			return s.outcomeOf(ctx, p)
		case <-ctx.Done():
		case <-s.ctx.Done():
			return fsm.Result{}, givenUp(s.ctx)
		}
	}
	err := fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	s.settle(p, outcome{err: err})
	return fsm.Result{}, err
}

// settle tells everyone who waits for the proposal.
func (s *Store) settle(p *proposal, out outcome) {
	p.out = out
	close(p.done)
	s.dedup.settled(p)
}

func (s *Store) outcomeOf(ctx context.Context, p *proposal) (fsm.Result, error) {
	select {
	case <-p.done:
		if p.out.err != nil {
			return fsm.Result{}, p.out.err
		}
		return p.out.result, p.out.result.Err
	case <-ctx.Done():
		return fsm.Result{}, givenUp(ctx)
	case <-s.ctx.Done():
		return fsm.Result{}, givenUp(s.ctx)
	}
}

// proposeLoop gives raft what waits, batch by batch: while maxBatches are on
// their way, later proposals gather for the next. Given one by one as they
// come, raft writes them to its log in small groups, each with its own fsyncs
// here and on every follower; a batch shares them.
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
		case s.underWay <- struct{}{}:
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
				s.settle(p, outcome{err: ErrNotLeader})
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

// collectLoop waits for the futures. Raft answers them in about the order in
// which they were proposed, so one goroutine waits for all, and a caller that
// gives up leaves nothing behind.
func (s *Store) collectLoop() {
	defer close(s.collected)
	for {
		select {
		case batch := <-s.proposed:
			for _, p := range batch {
				s.progress.waits()
				out := await(p.future)
				s.progress.answered(out.err)
				s.settle(p, out)
			}
			<-s.underWay
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
		return outcome{err: fmt.Errorf("%w: the state machine answered %T", ErrOutcomeUnknown, f.Response())}
	}
	return outcome{result: *result}
}

// Renew gives leases their full TTL and returns those that are lost. It
// answers only after a quorum confirmed, after the call arrived, that this
// node still leads; until then a renewal counts but is not promised.
func (s *Store) Renew(ctx context.Context, ids []uint64) (lost []uint64, term uint64, err error) {
	if len(ids) > fsm.MaxBatch {
		return nil, 0, &fsm.FieldError{Field: "lease_ids", Limit: fmt.Sprintf("at most %d", fsm.MaxBatch), Got: fmt.Sprint(len(ids))}
	}
	l, err := s.leading(ctx)
	if err != nil {
		return nil, 0, err
	}
	lost = s.leases.Renew(ids)
	if err := s.confirm.wait(ctx, l); err != nil {
		return nil, 0, err
	}
	if l.ctx.Err() != nil {
		return nil, 0, ErrNotLeader // the table was emptied: nothing is lost
	}
	s.counters.renewed.Add(uint64(len(ids) - len(lost)))
	s.counters.notLeased.Add(uint64(len(lost)))
	return lost, l.term, nil
}

// AcceptLoss lets the members of a group go at once that the mass-loss guard
// holds, and says how many fell silent. Only the leader keeps leases.
func (s *Store) AcceptLoss(ctx context.Context, group string) (int, error) {
	if err := fsm.ValidateName("group", group); err != nil {
		return 0, err
	}
	if _, err := s.leading(ctx); err != nil {
		return 0, err
	}
	return s.leases.AcceptLoss(group), nil
}

// Guard tells what the mass-loss guard does with a group. Only the leader
// knows; other nodes return [ErrNotLeader]. A group without leases is idle.
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
