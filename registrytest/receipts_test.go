package registrytest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/routing"
	"github.com/werbenhu/registry/store/storetest"
)

var receiptSeed = flag.Uint64("receipt-seed", 0, "seed of TestReceiptsUnderPartitionAndChurn; 0 draws one")

// cuttable passes TCP connections on to a node until it is cut.
type cuttable struct {
	lis    net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex // guards the rest
	target string
	cut    bool
	conns  map[net.Conn]bool
}

func newCuttable(t *testing.T) *cuttable {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cuttable{lis: lis, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.set(true)
		_ = lis.Close()
		p.wg.Wait()
	})
	return p
}

func (p *cuttable) accept() {
	for {
		in, err := p.lis.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		out, err := net.Dial("tcp", target)
		if err != nil || !p.keep(in, out) {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			continue
		}
		p.wg.Go(func() { p.pass(in, out) })
		p.wg.Go(func() { p.pass(out, in) })
	}
}

// keep notes the connections, so that a cut ends them; false while it is cut.
func (p *cuttable) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.cut
}

func (p *cuttable) pass(to, from net.Conn) {
	_, _ = io.Copy(to, from) // whatever ends it ends both
	_, _ = to.Close(), from.Close()
}

// leadTo says where the way leads.
func (p *cuttable) leadTo(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// set cuts what is there and what comes, or lets new connections through.
func (p *cuttable) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut = cut; cut {
		for c := range p.conns {
			_ = c.Close() // a second time at most
		}
		clear(p.conns)
	}
}

// authority is the right to accept a key at one revision.
type authority struct {
	key      string
	revision uint64
}

// ledger is what the members accepted, all together.
type ledger struct {
	mu       sync.Mutex // guards the rest
	accepted int
	by       map[authority]map[string]bool
	twice    int // authorities that two members used
	example  string
	older    int              // accepted by an older ring than the router's
	uses     map[string][]use // by key: each authority's first
	overlap  time.Duration    // longest time that a key's former owner accepted beside a later one
}

// use is the first time that a member accepted a key at a revision.
type use struct {
	revision uint64
	id       string
	at       time.Time
}

func newLedger() *ledger {
	return &ledger{by: map[authority]map[string]bool{}, uses: map[string][]use{}}
}

// note takes down that a member accepted a key, by which ring, and by which the
// router had sent it.
func (l *ledger) note(key, id string, at, asked routing.Route) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	a := authority{key, at.Revision}
	if l.by[a] == nil {
		l.by[a] = map[string]bool{}
		l.uses[key] = append(l.uses[key], use{a.revision, id, now})
	}
	if l.by[a][id] = true; len(l.by[a]) == 2 {
		l.twice++
		l.example = fmt.Sprintf("%s at revision %d by %v", key, at.Revision, l.by[a])
	}
	if at.Revision < asked.Revision {
		l.older++
	}
	for _, u := range l.uses[key] {
		if u.revision > a.revision && u.id != id {
			l.overlap = max(l.overlap, now.Sub(u.at))
		}
	}
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d accepted, %d by a ring older than the router's, %d times two members at one revision, two revisions side by side for up to %v",
		l.accepted, l.older, l.twice, l.overlap.Round(time.Millisecond))
}

// receiptCluster is three nodes, each with a way in that can be cut for the
// other nodes, and services and routers that know one node each.
type receiptCluster struct {
	t       *testing.T
	nodes   []*registry.Node
	ways    []*cuttable
	admin   *sdk.Client
	routers []*sdk.Ring
	hosts   []host
}

// host is where one member runs. Its guards are the same but for the age that
// they allow their ring.
type host struct {
	id           string
	guard, fresh *routing.Owner
	ring         *sdk.Ring // of guard
}

const (
	receiptGroup   = "web"
	receiptMembers = 12
	receiptMaxAge  = 3 * time.Second
)

func newReceiptCluster(t *testing.T) *receiptCluster {
	c := &receiptCluster{t: t}
	for i := range 3 {
		way := newCuttable(t)
		n := startNode(t, fmt.Sprintf("n%d", i+1), func(cfg *registry.Config) {
			cfg.BindAdvertise = way.lis.Addr().String()
			if i > 0 {
				cfg.Registries = []string{c.ways[0].lis.Addr().String()}
			}
			cfg.Bind = freeAddrs(t, 1)[0]
			way.leadTo(cfg.Bind)
		})
		c.nodes, c.ways = append(c.nodes, n), append(c.ways, way)
	}
	waitReady(t, c.nodes...)
	c.admin = c.dial(c.nodes[0].Addr() + "," + c.nodes[1].Addr() + "," + c.nodes[2].Addr())
	awaitVoters(t, c.admin, 3)
	if _, err := c.admin.SetGroup(t.Context(), sdk.SetGroup{Group: receiptGroup}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c.routers = append(c.routers, c.ring(i))
	}
	for i := range receiptMembers {
		id := fmt.Sprintf("m%d", i)
		ring, fresh := c.ring(i%3), c.ring(i%3, sdk.WithMaxAge(receiptMaxAge))
		patience := routing.WithWaitTimeout(5 * time.Millisecond)
		c.hosts = append(c.hosts, host{id: id, ring: ring, guard: routing.NewOwner(ring, id, patience), fresh: routing.NewOwner(fresh, id, patience)})
	}
	return c
}

func (c *receiptCluster) dial(addrs string) *sdk.Client {
	c.t.Helper()
	client, err := sdk.Dial(addrs, sdk.WithRefreshInterval(-1), sdk.WithCloseTimeout(5*time.Second))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() }) // what is registered goes with the nodes
	return client
}

// ring is one of a client that knows a single node.
func (c *receiptCluster) ring(node int, opts ...sdk.RingOption) *sdk.Ring {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	r, err := c.dial(c.nodes[node].Addr()).Ring(ctx, receiptGroup, opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// churn registers, removes, drains and holds members until ctx ends.
func (c *receiptCluster) churn(ctx context.Context, rnd *rand.Rand) (steps int) {
	regs := map[string]*sdk.Registration{}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for ; ; steps++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return steps
		}
		id := c.hosts[rnd.IntN(len(c.hosts))].id
		reg := regs[id]
		var err error
		switch op := rnd.IntN(6); {
		case reg == nil:
			s := sdk.Service{Group: receiptGroup, ID: id, Addr: "10.0.0.1:80", TTL: time.Hour, Weight: 1 + rnd.IntN(3)}
			regs[id], err = c.admin.Register(ctx, s)
			if err != nil {
				delete(regs, id)
			}
		case op < 2:
			err = reg.CloseContext(ctx)
			delete(regs, id)
		case op == 2:
			err = reg.Drain(ctx)
		case op == 3:
			err = reg.Resume(ctx)
		default:
			err = reg.Hold(ctx, time.Hour)
			delete(regs, id)
		}
		draining := errors.Is(err, sdk.ErrInvalidArgument) // which nobody holds itself
		if draining {
			regs[id] = reg
		}
		if err != nil && ctx.Err() == nil && !draining {
			c.t.Errorf("churn: %v", err)
		}
	}
}

// requests routes keys by rings of different ages until ctx ends; off accepts
// whatever comes, by the authority of the ring that the member has.
func (c *receiptCluster) requests(ctx context.Context, rnd *rand.Rand, off, on, fresh *ledger) {
	hosts := map[string]host{}
	for _, h := range c.hosts {
		hosts[h.id] = h
	}
	for ctx.Err() == nil {
		key := fmt.Sprint("user-", rnd.IntN(100))
		v := c.routers[rnd.IntN(len(c.routers))].View()
		to, err := v.Serving(nil, key, 1)
		if err != nil {
			continue // nobody is there
		}
		h, route := hosts[to[0].ID], routing.OfView(v)
		off.note(key, h.id, routing.OfView(h.ring.View()), route)
		if at, err := h.guard.Accept(ctx, &route, key); err == nil {
			on.note(key, h.id, at, route)
		}
		if at, err := h.fresh.Accept(ctx, &route, key); err == nil {
			fresh.note(key, h.id, at, route)
		}
	}
}

// owners is how many of the members whose hosts follow that node own keys, by its ring.
func (c *receiptCluster) owners(node int) int {
	v, own := c.routers[node].View(), map[string]bool{}
	for i := range 100 {
		if to, err := v.Serving(nil, fmt.Sprint("user-", i), 1); err == nil {
			own[to[0].ID] = true
		}
	}
	n := 0
	for i := node; i < len(c.hosts); i += 3 {
		if own[c.hosts[i].id] {
			n++
		}
	}
	return n
}

// isolate cuts a follower off from the other nodes for as long as d, at a time when more
// than one member on its side owns keys.
func (c *receiptCluster) isolate(rnd *rand.Rand, d time.Duration) {
	c.t.Helper()
	st, err := c.admin.Status(c.t.Context(), receiptGroup)
	if err != nil {
		c.t.Fatal(err)
	}
	victim := rnd.IntN(3)
	if c.nodes[victim].ID() == st.Leader {
		victim = (victim + 1) % 3
	}
	for deadline := time.Now().Add(storetest.Patience); c.owners(victim) < 2; pass(c.t, time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("no two members with the ring of %s own keys", c.nodes[victim].ID())
		}
	}
	c.ways[victim].set(true)
	pass(c.t, d)
	ages := [3]time.Duration{}
	for i, r := range c.routers {
		ages[i] = r.Age().Round(10 * time.Millisecond)
	}
	c.t.Logf("%s was cut off for %v: the routers' rings are %v old, at revisions %d, %d and %d", c.nodes[victim].ID(), d, ages,
		c.routers[0].Revision(), c.routers[1].Revision(), c.routers[2].Revision())
	if c.routers[victim].Age() < d/2 {
		c.t.Error("the node that was cut off is not behind: the test shows nothing")
	}
	c.ways[victim].set(false)
}

// pass lets time pass in which others work.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// Members come and go, are drained and held, while a node is cut off from the
// others and its routers and services fall behind. With receipts no key is
// accepted by two members at one revision, and none by a ring older than the
// router's; with a maximum age, a former owner accepts beside the next one for no
// longer than that. The same requests without receipts break all three.
func TestReceiptsUnderPartitionAndChurn(t *testing.T) {
	seed := *receiptSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -receipt-seed=%d", seed)
	rnd := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	c := newReceiptCluster(t)
	off, on, fresh := newLedger(), newLedger(), newLedger()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	steps := 0
	work.Go(func() { steps = c.churn(ctx, rnd(0)) })
	for i := range uint64(3) {
		work.Go(func() { c.requests(ctx, rnd(1+i), off, on, fresh) })
	}
	events, partitions := rnd(99), 2
	if !storetest.Long() {
		partitions = 1
	}
	for range partitions {
		pass(t, time.Second)
		c.isolate(events, receiptMaxAge+2*time.Second)
	}
	pass(t, time.Second)
	stop()
	work.Wait()

	t.Logf("%d changes of the group", steps)
	t.Logf("receipts off:               %v", off)
	t.Logf("receipts on:                %v", on)
	t.Logf("and a maximum age of %v:    %v", receiptMaxAge, fresh)
	for name, l := range map[string]*ledger{"receipts": on, "with a maximum age": fresh} {
		if l.twice > 0 || l.older > 0 {
			t.Errorf("%s: %v, for instance %s", name, l, l.example)
		}
		if l.accepted < 1000 {
			t.Errorf("%s: %d accepted", name, l.accepted)
		}
	}
	if limit := receiptMaxAge + time.Second; fresh.overlap > limit {
		t.Errorf("two revisions side by side for %v, want at most %v", fresh.overlap, limit)
	}
	if off.twice == 0 || off.older == 0 || on.overlap <= receiptMaxAge {
		t.Error("nothing went wrong without receipts, or without a maximum age: the test shows nothing")
	}
}
