package grpcring_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk/grpcring"
)

// A member whose connection failed stays passed over during further attempts:
// calls do not wait for these.
func TestFailedMemberIsPassedOverWhileReconnecting(t *testing.T) {
	ms := manyMembers(3)
	order := owners(ms, "alice")
	addrs := map[string]string{}
	for _, m := range ms {
		addrs[m.Id] = m.Addr
	}
	c := newChannel(t)
	attempts := make(chan *conn, 10)
	c.connect = func(cn *conn) {
		if cn.addr == addrs[order[0]] {
			attempts <- cn
			return
		}
		cn.is(connectivity.Connecting, connectivity.Ready)
	}
	c.start(t, grpcring.Name, `{}`)(resolved(t, ms))
	ctx := grpcring.WithKey(testContext(t), "alice")
	for range 3 { // ask for a connection once
		if _, _, err := c.try(ctx); err != balancer.ErrNoSubConnAvailable {
			t.Fatal(err)
		}
	}
	owner := <-attempts
	if len(attempts) != 0 {
		t.Errorf("%d further attempts", len(attempts))
	}
	owner.is(connectivity.Connecting, connectivity.TransientFailure)
	if addr, err := c.pick(ctx); err != nil || addr != addrs[order[1]] {
		t.Fatalf("%s %v", addr, err)
	}
	for range 2 {
		owner.is(connectivity.Idle) // the backoff is over
		if again := <-attempts; again != owner {
			t.Fatal("another connection")
		}
		owner.is(connectivity.Connecting)
		c.do(func() {})
		if addr, _, err := c.try(ctx); err != nil || addr != addrs[order[1]] {
			t.Fatalf("while the owner is tried again: %s %v", addr, err)
		}
		owner.is(connectivity.TransientFailure)
	}
	owner.is(connectivity.Idle, connectivity.Connecting, connectivity.Ready)
	<-attempts
	c.do(func() {})
	if addr, _, err := c.try(ctx); err != nil || addr != addrs[order[0]] {
		t.Fatalf("the owner is back: %s %v", addr, err)
	}
	owner.is(connectivity.Idle) // a connection that was lost is made again by a call
	c.do(func() {})
	if len(attempts) != 0 {
		t.Error("connected without a call")
	}
	if _, _, err := c.try(ctx); err != balancer.ErrNoSubConnAvailable {
		t.Fatal(err)
	}
	if again := <-attempts; again != owner {
		t.Error("another connection")
	}
}

// A subchannel is shut down when no call can be sent to it any more.
func TestNewPickerBeforeShutdown(t *testing.T) {
	ms := manyMembers(3)
	order := owners(ms, "alice")
	ctx := grpcring.WithKey(testContext(t), "alice")
	c := newChannel(t)
	var mu sync.Mutex
	var down []string
	c.shutdown = func(cn *conn) {
		mu.Lock()
		defer mu.Unlock()
		down = append(down, cn.addr)
		if addr, _, _ := c.try(ctx); addr == cn.addr {
			t.Errorf("calls go to %s, which is shut down", addr)
		}
	}
	update := c.start(t, grpcring.Name, `{}`)
	update(resolved(t, ms))
	gone, err := c.pick(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var rest = ms[:0:0]
	for _, m := range ms {
		if m.Id != order[0] {
			rest = append(rest, m)
		}
	}
	update(resolved(t, rest))
	c.do(func() { c.shutdown = nil })
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(down, []string{gone}) {
		t.Errorf("%v were shut down, not %s", down, gone)
	}
}

// gRPC lets a call that was picked hang if its subchannel is shut down before
// the call has a stream. So a subchannel is shut down after its last call, and
// none begins after that, not even by a picker from before.
func TestShutdownAfterTheLastCall(t *testing.T) {
	ms := manyMembers(3)
	order := owners(ms, "alice")
	ctx := grpcring.WithKey(testContext(t), "alice")
	c := newChannel(t)
	var down []string // of the queue
	c.shutdown = func(cn *conn) { down = append(down, cn.addr) }
	update := c.start(t, grpcring.Name, `{}`)
	update(resolved(t, ms))
	first, err := c.pick(ctx)
	if err != nil {
		t.Fatal(err)
	}
	old := c.picker
	var calls []balancer.PickResult
	for range 2 {
		r, err := old.Pick(balancer.PickInfo{Ctx: ctx})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, r)
	}
	moved := slices.Clone(ms)
	for i, m := range ms {
		if m.Id == order[0] {
			moved[i] = &registrypb.Member{Id: m.Id, Addr: "10.9.9.9:1", Weight: m.Weight, ModifiedIndex: m.ModifiedIndex + 1}
		}
	}
	update(resolved(t, moved))
	for _, r := range calls {
		if len(down) != 0 {
			t.Fatalf("%v were shut down while a call was in progress", down)
		}
		if _, err := old.Pick(balancer.PickInfo{Ctx: ctx}); err != balancer.ErrNoSubConnAvailable {
			t.Errorf("a call began on a dropped subchannel: %v", err)
		}
		r.Done(balancer.DoneInfo{})
	}
	if !slices.Equal(down, []string{first}) {
		t.Errorf("%v were shut down, not %s", down, first)
	}
	c.do(func() { c.shutdown = nil })
}

// Calls without a key connect one member each, and a member that cannot be
// reached does not double the share of the next.
func TestSpreadTurns(t *testing.T) {
	c := newChannel(t)
	var mu sync.Mutex
	var asked []*conn
	c.connect = func(cn *conn) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, cn)
	}
	c.start(t, grpcring.Name, `{"keyless": "spread"}`)(resolved(t, manyMembers(4)))
	ctx := testContext(t)
	for n := 1; n <= 4; n++ {
		if _, _, err := c.try(ctx); err != balancer.ErrNoSubConnAvailable {
			t.Fatal(err)
		}
		mu.Lock()
		if len(asked) != n {
			t.Errorf("%d connections after %d calls", len(asked), n)
		}
		mu.Unlock()
	}
	for i, s := range []connectivity.State{connectivity.TransientFailure, connectivity.Ready, connectivity.Ready, connectivity.Ready} {
		asked[i].is(connectivity.Connecting, s)
	}
	c.do(func() {})
	count := map[string]int{}
	for range 30 {
		addr, _, err := c.try(ctx)
		if err != nil {
			t.Fatal(err)
		}
		count[addr]++
	}
	for _, cn := range asked[1:] {
		if count[cn.addr] != 10 {
			t.Errorf("30 calls were spread as %v", count)
		}
	}
	for _, cn := range asked[1:] {
		cn.is(connectivity.Idle)
	}
	c.do(func() {})
	for range 3 {
		_, _, _ = c.try(ctx)
	}
	for _, cn := range asked[1:4] {
		cn.is(connectivity.Connecting, connectivity.TransientFailure)
	}
	c.do(func() {})
	if _, _, err := c.try(ctx); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("nobody is there: %v", err)
	}
}
