package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

const (
	openPrefix = "open-" // of all groups of the load
	openGroups = 8       // of the registrations
	openTTL    = time.Hour

	// A group of more than 20 members has the mass-loss guard, which would delay what
	// the test looks for.
	leasedGroups, leasedMembers = 10, 20

	openTimeout = 10 * time.Second // of a call, the SDK's own
)

// openRate is the number of registrations a second. Programs with the race detector have
// enough to do as it is.
func openRate() int {
	if raceEnabled {
		return 50
	}
	return 500
}

// leasedTTL is that of the leases that heartbeats keep.
func leasedTTL() time.Duration {
	if raceEnabled {
		return 30 * time.Second
	}
	return 5 * time.Second
}

// longTests asks for more rounds.
var longTests = os.Getenv("REGISTRY_LONG_TESTS") != ""

// openLoad registers through the SDK while nodes restart, in an open loop: calls begin at
// fixed times, whether or not earlier ones have ended. One registration in four is
// deregistered a second later. Other registrations have short leases, which the SDK's
// heartbeats keep, and every node has a watch of all groups. There is a client for each
// node, which knows no other one to begin with.
//
// The latency of a call counts from when it should have begun. A registration that is due
// while those of a second are under way is left out, and counted: a machine that is too
// busy for the rate would fall behind more and more.
type openLoad struct {
	t       *testing.T
	clients []*sdk.Client
	watches []*openWatch
	ring    *sdk.Ring // of a leased group
	end     context.CancelFunc
	pace    sync.WaitGroup // begins calls
	calls   sync.WaitGroup
	watched sync.WaitGroup

	mu     sync.Mutex // guards the rest
	ops    []*openOp
	leased map[string]bool // GROUP/ID
	phases []openPhase
	errs   []error // that SDK callers got
	lost   []string
	late   time.Duration
	active int // registrations under way
	left   int // out

	wrong    map[string]int // what is wrong, by kind
	examples []string       // one of each
}

// bad notes what is wrong, by the kind and with the first of its kind. The caller holds
// l.mu.
func (l *openLoad) bad(kind, format string, args ...any) {
	if l.wrong[kind]++; l.wrong[kind] == 1 {
		l.examples = append(l.examples, kind+": "+fmt.Sprintf(format, args...))
	}
}

// openOp is a registration, and what became of it. Times are zero for what did not happen.
type openOp struct {
	group, id   string
	reg         *sdk.Registration
	due, acked  time.Time // of the registration
	leave, left time.Time // of the deregistration: when it was due, and acknowledged
}

func (o *openOp) key() string { return o.group + "/" + o.id }

// openPhase is what the nodes went through, with the latencies of the calls that were to
// begin in it.
type openPhase struct {
	name  string
	began time.Time
	took  []time.Duration
}

// startOpenLoad returns when a second of calls is acknowledged: then every client knows
// all nodes.
func startOpenLoad(t *testing.T, c *cluster) *openLoad {
	ctx, end := context.WithCancel(t.Context())
	watching, unwatch := context.WithCancel(t.Context())
	l := &openLoad{t: t, end: end, leased: make(map[string]bool), wrong: make(map[string]int)}
	for _, n := range c.nodes {
		// Thousands of registrations need not be undone at the end of the test.
		client := dial(t, n.addr, sdk.WithCloseTimeout(100*time.Millisecond))
		l.clients = append(l.clients, client)
		watch, err := client.WatchPrefix(watching, openPrefix)
		if err != nil {
			t.Fatal(err)
		}
		w := &openWatch{node: n.id, groups: make(map[string]*watchedGroup)}
		l.watches = append(l.watches, w)
		l.watched.Go(func() { w.follow(watching, watch) })
	}
	t.Cleanup(func() { l.stopCalls(); unwatch(); l.watched.Wait() })
	l.begin("before")
	for g := range leasedGroups {
		for i := range leasedMembers {
			l.calls.Go(func() { l.lease(ctx, g, fmt.Sprintf("leased-%d-%d", g, i)) })
		}
	}
	l.calls.Wait()
	var err error
	if l.ring, err = l.clients[0].Ring(ctx, leasedGroup(0)); err != nil {
		t.Fatal(err)
	}
	l.pace.Go(func() { l.register(ctx) })
	l.pace.Go(func() { l.read(ctx) })
	eventually(t, patience, "a second of load", func() error { return l.goesOn(0, openRate()) })
	return l
}

// goesOn is nil when that many registrations after the first ones are acknowledged.
func (l *openLoad) goesOn(after, many int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	acked := 0
	for _, op := range l.ops[after:] {
		if !op.acked.IsZero() {
			acked++
		}
	}
	if acked < many {
		return fmt.Errorf("%d registrations of %d", acked, many)
	}
	return nil
}

func leasedGroup(g int) string { return fmt.Sprintf("%sleased-%d", openPrefix, g) }

// begin begins a phase.
func (l *openLoad) begin(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, openPhase{name: name, began: time.Now()})
}

// ended counts a call, which was to begin at due.
func (l *openLoad) ended(what string, due time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.phases) - 1
	for i > 0 && l.phases[i].began.After(due) {
		i--
	}
	l.phases[i].took = append(l.phases[i].took, time.Since(due))
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s in %q: %w", what, l.phases[i].name, err))
	}
}

// lease registers a member whose lease is short, and keeps it.
func (l *openLoad) lease(ctx context.Context, group int, id string) {
	due := time.Now()
	s := sdk.Service{Group: leasedGroup(group), ID: id, Addr: "10.0.0.1:80", TTL: leasedTTL(), OnEvent: func(e sdk.Event) {
		if e.Kind == sdk.EventRegistered || e.Kind == sdk.EventEnded && errors.Is(e.Err, sdk.ErrClosed) {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lost = append(l.lost, fmt.Sprintf("%s: %v (%v)", e.ID, e.Kind, e.Err))
	}}
	_, err := l.clients[group%len(l.clients)].Register(ctx, s)
	l.ended("lease "+id, due, err)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.leased[s.Group+"/"+id] = true
	}
}

// register begins the registrations and deregistrations, until ctx ends.
func (l *openLoad) register(ctx context.Context) {
	rate := openRate()
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if !waitUntil(ctx, time.Until(due)) {
			return
		}
		op, leaving := l.due(i, due)
		if op != nil {
			l.calls.Go(func() { l.join(op, l.clients[i%len(l.clients)]) })
		}
		if leaving != nil {
			l.calls.Go(func() { l.leave(leaving) })
		}
	}
}

// due returns the registration, and the deregistration, that are to begin.
func (l *openLoad) due(i int, at time.Time) (joining, leaving *openOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = max(l.late, time.Since(at))
	rate := openRate()
	op := &openOp{group: fmt.Sprint(openPrefix, i%openGroups), id: fmt.Sprintf("m%06d", i), due: at}
	l.ops = append(l.ops, op)
	if l.active < rate {
		l.active++
		joining = op
	} else {
		l.left++
	}
	if i >= rate && i%4 == 0 && !l.ops[i-rate].acked.IsZero() {
		leaving = l.ops[i-rate]
		leaving.leave = at
	}
	return joining, leaving
}

func waitUntil(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// join registers. Calls that are under way at the end of the load end by themselves.
func (l *openLoad) join(op *openOp, client *sdk.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	reg, err := client.Register(ctx, sdk.Service{Group: op.group, ID: op.id, Addr: "10.0.0.1:80", TTL: openTTL})
	l.ended("register "+op.key(), op.due, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	if err == nil {
		op.reg, op.acked = reg, time.Now()
	}
}

func (l *openLoad) leave(op *openOp) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	err := op.reg.CloseContext(ctx)
	l.ended("deregister "+op.key(), op.leave, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		op.left = time.Now()
	}
}

// read looks for what was acknowledged before by linearizable reads, at every node in turn.
func (l *openLoad) read(ctx context.Context) {
	for i := 0; waitUntil(ctx, 100*time.Millisecond); i++ {
		group := fmt.Sprint(openPrefix, i%openGroups)
		due := time.Now()
		members, err := l.clients[i%len(l.clients)].Members(ctx, group, sdk.Linearizable())
		if ctx.Err() != nil {
			return
		}
		l.ended("members "+group, due, err)
		if err != nil {
			continue
		}
		l.mu.Lock()
		for _, key := range l.missing(group, members, due) {
			l.bad("a linearizable read lacks what was acknowledged before", "%s", key)
		}
		l.mu.Unlock()
	}
}

// missing returns what was acknowledged before a time and is not among the members, except
// what is to leave. The caller holds l.mu.
func (l *openLoad) missing(group string, members []sdk.Member, before time.Time) (keys []string) {
	have := make(map[string]bool, len(members))
	for _, m := range members {
		have[m.ID] = true
	}
	for _, op := range l.ops {
		if op.group == group && !op.acked.IsZero() && op.acked.Before(before) && op.leave.IsZero() && !have[op.id] {
			keys = append(keys, op.key())
		}
	}
	return keys
}

// finish ends the load, checks it and logs its figures.
func (l *openLoad) finish(c *cluster) {
	t := l.t
	t.Helper()
	l.begin("after")
	eventually(t, patience, "all nodes ready", func() error { return allReady(t, c.nodes[0]) })
	l.mu.Lock()
	n := len(l.ops)
	l.mu.Unlock()
	eventually(t, patience, "load after the last restart", func() error { return l.goesOn(n, openRate()/2) })
	l.stopCalls()
	groups, members := l.final(c)
	for _, w := range l.watches {
		eventually(t, patience, "the last change in every watch", func() error { return w.behind(groups) })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report()
	l.checkState(members)
	l.checkOrder()
	for _, w := range l.watches {
		w.check(l, groups, members)
	}
	for _, lost := range l.lost {
		l.bad("an event of a lease", "%s", lost)
	}
	for _, err := range l.errs {
		l.bad(errorKind(err), "%v", err)
	}
	for _, example := range l.examples {
		kind, _, _ := strings.Cut(example, ": ")
		t.Errorf("%d times: %s", l.wrong[kind], example)
	}
}

// stopCalls begins no more calls, and waits for those under way. Watches go on.
func (l *openLoad) stopCalls() {
	l.end()
	l.pace.Wait()
	l.calls.Wait()
}

// final reads all groups and members of the load.
func (l *openLoad) final(c *cluster) (groups map[string]sdk.Group, members map[string]sdk.Member) {
	t := l.t
	t.Helper()
	client := dial(t, c.addrs())
	groups, members = make(map[string]sdk.Group), make(map[string]sdk.Member)
	names := make([]string, 0, openGroups+leasedGroups)
	for g := range openGroups {
		names = append(names, fmt.Sprint(openPrefix, g))
	}
	for g := range leasedGroups {
		names = append(names, leasedGroup(g))
	}
	for _, name := range names {
		g, ms, err := client.Group(t.Context(), name, sdk.Linearizable())
		if err != nil {
			t.Fatal(err)
		}
		groups[name] = g
		for _, m := range ms {
			members[name+"/"+m.ID] = m
		}
	}
	return groups, members
}

// checkState compares the members with what was acknowledged. The caller holds l.mu, here
// and below.
func (l *openLoad) checkState(members map[string]sdk.Member) {
	known := maps.Clone(l.leased)
	for _, op := range l.ops {
		_, there := members[op.key()]
		known[op.key()] = true
		switch {
		case !op.left.IsZero() && there:
			l.bad("a member whose deregistration was acknowledged", "%s", op.key())
		case !op.acked.IsZero() && op.leave.IsZero() && !there:
			l.bad("a registration that was acknowledged is not there", "%s", op.key())
		}
	}
	for key := range l.leased {
		if _, there := members[key]; !there {
			l.bad("a member whose lease is renewed is not there", "%s", key)
		}
	}
	for key := range members {
		if !known[key] {
			l.bad("a member that nobody registered", "%s", key)
		}
	}
	if got := len(l.ring.Members()); got != leasedMembers {
		l.bad("members of the ring", "%d, want %d", got, leasedMembers)
	}
}

// checkOrder: a registration that was acknowledged before another one began comes before
// it in the log.
func (l *openLoad) checkOrder() {
	acked := slices.DeleteFunc(slices.Clone(l.ops), func(op *openOp) bool { return op.acked.IsZero() })
	ended := slices.Clone(acked)
	slices.SortFunc(ended, func(a, b *openOp) int { return a.acked.Compare(b.acked) })
	w := l.watches[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	created := func(op *openOp) uint64 { return w.groups[op.group].index(op.id) }
	var last uint64            // of the registrations that had ended
	for _, op := range acked { // by their begin
		for len(ended) > 0 && ended[0].acked.Before(op.due) {
			last = max(last, created(ended[0]))
			ended = ended[1:]
		}
		if at := created(op); at > 0 && at <= last {
			l.bad("a registration comes in the log before one that was acknowledged before it began", "%s has index %d, the other one %d", op.key(), at, last)
		}
	}
}

// report logs the figures.
func (l *openLoad) report() {
	acked, left := 0, 0
	for _, op := range l.ops {
		if !op.acked.IsZero() {
			acked++
		}
		if !op.left.IsZero() {
			left++
		}
	}
	all := openPhase{name: "in all"}
	for _, p := range l.phases {
		all.took = append(all.took, p.took...)
	}
	for _, p := range append(l.phases, all) {
		if len(p.took) > 0 {
			l.t.Logf("%-28s %v", p.name, p)
		}
	}
	l.t.Logf("%d registrations/s for %v: %d acknowledged, %d left out, %d deregistered; %d leases of %v; the latest call began %v late",
		openRate(), ms(time.Duration(len(l.ops))*time.Second/time.Duration(openRate())), acked, l.left, left, len(l.leased), leasedTTL(), ms(l.late))
	for _, w := range l.watches {
		l.t.Log(w)
	}
	l.t.Logf("errors that SDK callers got: %d; events of leases: %d", len(l.errs), len(l.lost))
}

func (p openPhase) String() string {
	took := slices.Sorted(slices.Values(p.took))
	quantile := func(q float64) time.Duration { return ms(took[int(math.Ceil(q*float64(len(took))))-1]) }
	return fmt.Sprintf("%6d calls, median %v, 99 %% %v, slowest %v", len(took), quantile(0.5), quantile(0.99), quantile(1))
}

// errorKind is the call and the kind of its error.
func errorKind(err error) string {
	kind := "another error"
	if e := (*sdk.Error)(nil); errors.As(err, &e) {
		kind = fmt.Sprintf("%v (%v)", e.Reason, e.Code)
	}
	call, _, _ := strings.Cut(err.Error(), " ")
	return "error of " + call + ", " + kind
}
