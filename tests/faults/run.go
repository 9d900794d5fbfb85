//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/faults/load"
)

const (
	warmUp = time.Second             // of the load, before the fault
	tail   = 1500 * time.Millisecond // of the load, after the cluster is healthy
	// mendLimit is how long a cluster may take to become healthy.
	mendLimit = 30 * time.Second
	// settleLimit is how long nodes may take to agree when nothing happens.
	settleLimit = 15 * time.Second
	// linearLimit bounds the search for an order of one group's operations.
	linearLimit = time.Minute
	// injectLimit bounds one fault, beyond the longest of them.
	injectLimit = 2 * time.Minute
)

// Result of one run.
type Result struct {
	Kind       string            `json:"kind"`
	Seed       uint64            `json:"seed"`
	Operations int               `json:"operations"`
	Violations []check.Violation `json:"violations,omitempty"`
	// Recoveries are times from a fault, and from its healing, to the next
	// acknowledged registration, at every node that is expected to work then.
	Fault    []time.Duration `json:"fault_recoveries"`
	Heal     []time.Duration `json:"heal_recoveries"`
	Took     time.Duration   `json:"took"`
	Evidence string          `json:"evidence,omitempty"`
}

// session is a cluster that runs of one kind share.
type session struct {
	env     *Env
	kind    Kind
	cluster *cluster.Cluster
	digests *check.Digests
	scanned map[string]int64 // how far each log was looked through
	number  int
}

func newSession(ctx context.Context, env *Env, kind Kind, seed uint64) (*session, error) {
	cfg := cluster.Config{Binary: env.Binary, Isolated: env.Isolation == nil, Plain: env.Plain, Seed: seed}
	cfg.Env = []string{"REGISTRY_LOG_STORE=" + []string{"wal", "boltdb"}[seed%2]} // all kinds meet both
	if kind.Config != nil {
		if err := kind.Config(ctx, env, &cfg); err != nil {
			return nil, err
		}
	}
	limit, cancel := context.WithTimeout(ctx, mendLimit)
	defer cancel()
	c, err := cluster.Start(limit, cfg)
	if err != nil {
		return nil, err
	}
	return &session{env: env, kind: kind, cluster: c, digests: check.NewDigests(), scanned: make(map[string]int64)}, nil
}

// run is one run. An error is the harness's own; what the cluster does wrong
// is in the result.
func (s *session) run(ctx context.Context, seed uint64) (res Result, h *load.History, drawings map[string]check.Drawing, err error) {
	began := time.Now()
	s.number++
	res = Result{Kind: s.kind.Name, Seed: seed}
	l, err := load.Start(ctx, load.Config{Targets: s.targets(), Prefix: fmt.Sprintf("r%d-", s.number), Seed: seed, Digests: s.digests})
	if err != nil {
		return res, nil, nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r := &Run{Cluster: s.cluster, Load: l, Env: s.env, Seed: seed, Rand: rand.New(rand.NewPCG(seed, 1))}
	found := s.disturb(ctx, r)
	l.StopWork()
	found = append(found, s.settle(ctx, l)...)
	if err := l.Close(); err != nil {
		return res, nil, nil, err
	}
	if ctx.Err() != nil {
		return res, nil, nil, context.Cause(ctx)
	}
	h = l.History()
	found = append(found, h.Found...)
	linear, drawings := check.Linearizable(h.Ops, linearLimit)
	found = append(found, linear...)
	leases := make([]check.Lease, len(h.Leases))
	for i, l := range h.Leases {
		leases[i] = *l
	}
	found = append(found, check.Leases(leases, h.Removals, leaseBounds(h, s.kind.NoLoss))...)
	if n := len(h.Marks); s.kind.NoLoss && n > 0 {
		found = append(found, check.Shown(leases, h.Marks[0].At, h.Marks[n-1].At)...)
	}
	found = append(found, s.digests.Violations()...)
	found = append(found, s.scanLogs()...)
	var missing []check.Violation
	res.Fault, res.Heal, missing = recoveries(h, s.ids())
	res.Violations = append(found, missing...)
	res.Operations, res.Took = h.Operations(), time.Since(began)
	return res, h, drawings, nil
}

// disturb injects the fault and waits until the cluster is healthy again.
func (s *session) disturb(ctx context.Context, r *Run) (found []check.Violation) {
	if r.Hold(ctx, warmUp) != nil {
		return nil
	}
	limit, cancel := context.WithTimeoutCause(ctx, injectLimit, errors.New("the fault took too long"))
	err := s.kind.Inject(limit, r)
	cancel()
	if err != nil {
		found = append(found, check.Violation{Checker: "inject", Text: err.Error()})
	}
	found = append(found, s.dead()...)
	if err := s.cluster.Mend(); err != nil {
		found = append(found, check.Violation{Checker: "mend", Text: err.Error()})
	}
	limit, cancel = context.WithTimeoutCause(ctx, mendLimit, fmt.Errorf("not healthy within %v", mendLimit))
	defer cancel()
	if err := s.cluster.AwaitHealth(limit); err != nil {
		found = append(found, check.Violation{Checker: "recovery", Text: err.Error()})
	}
	_ = r.Hold(ctx, tail) // the caller sees that ctx ended
	return found
}

// settle compares what the nodes hold when nothing changes any more.
func (s *session) settle(ctx context.Context, l *load.Load) (found []check.Violation) {
	limit, cancel := context.WithTimeoutCause(ctx, settleLimit, fmt.Errorf("not settled within %v", settleLimit))
	defer cancel()
	listings, err := l.Listings(limit)
	if err != nil {
		found = append(found, check.Violation{Checker: "settle", Text: err.Error()})
	} else {
		found = append(found, check.Ledger(l.Entries(), listings)...)
	}
	if err := s.equalDigests(limit); err != nil {
		found = append(found, check.Violation{Checker: "digests", Text: err.Error()})
	}
	return append(found, s.dead()...)
}

// equalDigests waits until all nodes are at one index, and notes their digests.
func (s *session) equalDigests(ctx context.Context) error {
	return cluster.Await(ctx, func() error {
		st, err := s.cluster.Nodes[0].Status(ctx, "")
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if n.Role == "" || n.AppliedIndex != st.Nodes[0].AppliedIndex {
				return fmt.Errorf("the nodes are not at one index: %v", st.Nodes)
			}
		}
		for _, n := range st.Nodes {
			s.digests.Note(n.Id, n.AppliedIndex, n.Digest)
		}
		return nil
	})
}

// dead are nodes that ended by themselves.
func (s *session) dead() (found []check.Violation) {
	for _, n := range s.cluster.Nodes {
		if !n.Running() {
			found = append(found, check.Violation{Checker: "alive", Text: fmt.Sprintf("%s ended with exit code %d", n.ID, n.ExitCode())})
		}
	}
	return found
}

// unacceptable is what no node may write, whatever happens to it.
var unacceptable = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE).*|.*(node fails|state is wrong; this node answers nothing).*`)

// scanLogs looks through what the nodes wrote since the last run.
func (s *session) scanLogs() (found []check.Violation) {
	logs, err := s.cluster.Logs()
	if err != nil {
		return []check.Violation{{Checker: "log", Text: err.Error()}}
	}
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			found = append(found, check.Violation{Checker: "log", Text: err.Error()})
			continue
		}
		from := min(s.scanned[path], int64(len(data)))
		for _, line := range unacceptable.FindAllString(string(data[from:]), -1) {
			if s.kind.Expect == nil || !s.kind.Expect.MatchString(line) {
				found = append(found, check.Violation{Checker: "log", Text: path + ": " + line})
			}
		}
		s.scanned[path] = int64(len(data))
	}
	return found
}

func (s *session) targets() (targets []load.Target) {
	for _, n := range s.cluster.Nodes {
		targets = append(targets, load.Target{Node: n.ID, Connect: func() (*grpc.ClientConn, error) { return cluster.Connect(n) }})
	}
	return targets
}

func (s *session) ids() (ids []string) {
	for _, n := range s.cluster.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// recoveries measures from each mark to the next registration that was sent
// after it and acknowledged, at each node that should work.
func recoveries(h *load.History, nodes []string) (fault, heal []time.Duration, missing []check.Violation) {
	acks := slices.Clone(h.Acks)
	slices.SortFunc(acks, func(a, b load.Ack) int { return cmp.Compare(a.Acked, b.Acked) })
	for _, m := range h.Marks {
		for _, id := range nodes {
			if slices.Contains(m.Hit, id) {
				continue
			}
			i := slices.IndexFunc(acks, func(a load.Ack) bool { return a.Node == id && a.Sent >= m.At })
			switch {
			case i < 0 && m.Heals:
				missing = append(missing, check.Violation{Checker: "recovery", Text: fmt.Sprintf("%s acknowledged no registration in the %v after %q", id, h.End-m.At, m.Text)})
			case i < 0:
			case m.Heals:
				heal = append(heal, acks[i].Acked-m.At)
			default:
				fault = append(fault, acks[i].Acked-m.At)
			}
		}
	}
	return fault, heal, missing
}

// leaseSlack is for what stands between a lease's end and its being seen: the
// grace after a stall of the leader, the expiry's commit, and a busy machine.
const leaseSlack = 4 * time.Second

// outage is how long no registration may be acknowledged anywhere before that
// counts as time in which nothing could be committed.
const outage = 300 * time.Millisecond

func leaseBounds(h *load.History, noLoss bool) check.LeaseBounds {
	var acked []time.Duration
	for _, a := range h.Acks {
		acked = append(acked, a.Acked)
	}
	slices.Sort(acked)
	return check.LeaseBounds{
		Slack: leaseSlack, End: h.End, NoLoss: noLoss,
		Changes: func(from, to time.Duration) int { return termsBetween(h.Terms, from, to+termLag) },
		Unavailable: func(from, to time.Duration) (sum time.Duration) {
			for _, a := range append(acked, h.End) {
				if a <= from {
					continue
				}
				if gap := min(a, to) - from; gap > outage {
					sum += gap
				}
				if from = a; from >= to {
					break
				}
			}
			return sum
		},
	}
}

// termLag is how much later than it began a term is noted at the latest: a
// node is asked that often, and has that long to answer.
const termLag = 1500 * time.Millisecond

// termsBetween counts the terms that may have begun between two moments. Before
// the first that anybody noted there may have been none.
func termsBetween(terms []load.Term, from, to time.Duration) int {
	var lowest, before, last uint64
	for _, t := range terms {
		if lowest == 0 || t.Term < lowest {
			lowest = t.Term
		}
		if t.At <= from {
			before = max(before, t.Term)
		}
		if t.At <= to {
			last = max(last, t.Term)
		}
	}
	return int(last - min(max(before, lowest), last))
}
