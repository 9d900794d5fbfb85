package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

// Target is a node that clients are pinned to.
type Target struct {
	Node    string
	Connect func() (*grpc.ClientConn, error)
}

// Config says what to load.
type Config struct {
	Targets []Target
	Prefix  string // of all groups
	Seed    uint64
	Digests *check.Digests
}

const (
	linearGroups  = 3
	linearClients = 3 // at each node
	linearIDs     = 4 // ids in a group
	// virtualNodes is the fewest: rings are rebuilt at every change.
	virtualNodes = 64
	// forEver is longer than any run: nothing expires that should stay.
	forEver = time.Hour
)

// Load is clients at work.
type Load struct {
	cfg   Config
	start time.Time
	nodes []*node
	views *check.Views

	stopWork, stopWatch context.CancelFunc
	work, watch         sync.WaitGroup

	mu sync.Mutex // guards history
	h  History
}

type node struct {
	Target
	conn     *grpc.ClientConn
	registry registrypb.RegistryClient
	cluster  registrypb.ClusterClient
	group    *groupWatch
	prefix   *prefixWatch
}

// History is what the clients noted. Times are since the start of the load.
type History struct {
	Ops      []check.Op      `json:"ops"`
	Ledger   []check.Entry   `json:"ledger"`
	Acks     []Ack           `json:"acks"`
	Leases   []*check.Lease  `json:"leases"`
	Removals []check.Removal `json:"removals"`
	Terms    []Term          `json:"terms"`
	Marks    []Mark          `json:"marks"`
	Index    uint64          `json:"index"` // the highest that was acknowledged
	End      time.Duration   `json:"end"`

	Found []check.Violation `json:"found"` // on the way
}

// Ack is a registration that was acknowledged.
type Ack struct {
	Node  string        `json:"node"`
	Sent  time.Duration `json:"sent"`
	Acked time.Duration `json:"acked"`
}

// Term is one node's word on the term and its leader.
type Term struct {
	At     time.Duration `json:"at"`
	Node   string        `json:"node"`
	Term   uint64        `json:"term"`
	Leader string        `json:"leader"`
}

// Mark is what was done to the cluster, and when.
type Mark struct {
	At   time.Duration `json:"at"`
	Text string        `json:"text"`
	// Heals: from here on all nodes should work.
	Heals bool `json:"heals,omitzero"`
	// Hit nodes are not expected to work after it.
	Hit []string `json:"hit,omitempty"`
}

// Start makes the groups and starts the clients.
func Start(ctx context.Context, cfg Config) (_ *Load, err error) {
	l := &Load{cfg: cfg, start: time.Now(), views: check.NewViews()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start the load: %w", err), l.Close())
		}
	}()
	for _, t := range cfg.Targets {
		conn, err := t.Connect()
		if err != nil {
			return l, err
		}
		n := &node{Target: t, conn: conn, registry: registrypb.NewRegistryClient(conn), cluster: registrypb.NewClusterClient(conn)}
		l.nodes = append(l.nodes, n)
	}
	for _, group := range l.Groups() {
		if err := l.create(ctx, group); err != nil {
			return l, err
		}
	}
	work, stopWork := context.WithCancel(context.Background())
	watch, stopWatch := context.WithCancel(context.Background())
	l.stopWork, l.stopWatch = stopWork, stopWatch
	l.startWatches(watch)
	for i, n := range l.nodes {
		for c := range linearClients {
			l.goWork(func(r *rand.Rand) { l.linearClient(work, n, i*linearClients+c, r) })
		}
		l.goWork(func(r *rand.Rand) { l.ledger(work, n, r) })
		for _, stream := range []bool{true, false} {
			l.goWork(func(r *rand.Rand) { l.beater(work, i, stream, r) })
		}
		l.goWork(func(r *rand.Rand) { l.session(work, fmt.Sprintf("session %d", i), r) })
		l.watch.Go(func() { l.poll(watch, n) })
	}
	return l, nil
}

// goWork starts a client with a generator of its own.
func (l *Load) goWork(f func(*rand.Rand)) {
	l.cfg.Seed++
	r := rand.New(rand.NewPCG(l.cfg.Seed, 3))
	l.work.Go(func() { f(r) })
}

// Groups of the load.
func (l *Load) Groups() (groups []string) {
	for i := range linearGroups {
		groups = append(groups, l.linearGroup(i))
	}
	for _, n := range l.nodes {
		groups = append(groups, l.ledgerGroup(n), l.beatGroup(n))
	}
	return groups
}

// StableGroups are those that nothing changes any more after StopWork.
func (l *Load) StableGroups() (groups []string) {
	for i := range linearGroups {
		groups = append(groups, l.linearGroup(i))
	}
	for _, n := range l.nodes {
		groups = append(groups, l.ledgerGroup(n))
	}
	return groups
}

func (l *Load) linearGroup(i int) string   { return fmt.Sprintf("%slinear-%d", l.cfg.Prefix, i) }
func (l *Load) ledgerGroup(n *node) string { return l.cfg.Prefix + "ledger-" + n.Node }
func (l *Load) beatGroup(n *node) string   { return l.cfg.Prefix + "beat-" + n.Node }

func (l *Load) create(ctx context.Context, group string) (err error) {
	for _, n := range l.nodes { // the first that can
		_, err = n.registry.SetGroup(ctx, &registrypb.SetGroupRequest{Group: group, Config: &registrypb.GroupConfig{VirtualNodes: virtualNodes}})
		if err == nil {
			return nil
		}
	}
	return err
}

// Now is the time since the start.
func (l *Load) Now() time.Duration { return time.Since(l.start) }

// Mark notes what is done to the cluster.
func (l *Load) Mark(text string, heals bool, hit ...string) {
	l.note(func(h *History) { h.Marks = append(h.Marks, Mark{At: l.Now(), Text: text, Heals: heals, Hit: hit}) })
}

func (l *Load) note(f func(*History)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.h)
}

// StopWork ends the writers, readers and beaters; watches go on.
func (l *Load) StopWork() {
	l.stopWork()
	l.work.Wait()
	l.note(func(h *History) { h.End = l.Now() })
}

// Close ends what still works. It is safe to call more than once.
func (l *Load) Close() error {
	if l.stopWork != nil {
		l.stopWork()
		l.stopWatch()
	}
	l.work.Wait()
	l.watch.Wait()
	var errs []error
	for _, n := range l.nodes {
		if n.conn != nil {
			errs = append(errs, n.conn.Close())
			n.conn = nil
		}
	}
	return errors.Join(errs...)
}

// History returns what was noted; the load must be closed.
func (l *Load) History() *History {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		l.h.Found = append(l.h.Found, n.watchViolations()...)
	}
	l.h.Found = append(l.h.Found, l.views.Violations()...)
	return &l.h
}

// pause waits, and says whether the context still lives.
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

// between draws a duration.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// Outcome tells what became of a write from the reason that its error carries.
func Outcome(err error) check.Outcome {
	if err == nil {
		return check.OK
	}
	switch Reason(err) {
	case registrypb.ErrorDetail_CONFLICT:
		return check.Conflict
	case registrypb.ErrorDetail_UNKNOWN_MEMBER:
		return check.Absent
	case registrypb.ErrorDetail_NO_LEADER, registrypb.ErrorDetail_NOT_READY, registrypb.ErrorDetail_INVALID_ARGUMENT:
		return check.Failed
	}
	// No answer of the node, or one that tells of an attempt that it made
	// again: a fresh instance that is fenced was registered, and replaced.
	return check.Unknown
}

func Reason(err error) registrypb.ErrorDetail_Reason {
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*registrypb.ErrorDetail); ok {
			return detail.Reason
		}
	}
	return registrypb.ErrorDetail_UNSPECIFIED
}

func membersOf(members []*registrypb.Member) []check.Member {
	ms := make([]check.Member, len(members))
	for i, m := range members {
		ms[i] = check.Member{ID: m.Id, Addr: m.Addr, Weight: m.Weight}
	}
	return ms
}

func forever() *durationpb.Duration { return durationpb.New(forEver) }

// Entries of the ledger; the work must have stopped.
func (l *Load) Entries() []check.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.h.Ledger
}

// Operations is how many calls were answered or given up.
func (h *History) Operations() int {
	n := len(h.Ops) + len(h.Ledger)
	for _, l := range h.Leases {
		n += len(l.Beats)
	}
	return n
}
