package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// The fake grants any TTL: short ones keep the tests short.
const testTTL = 600 * time.Millisecond

func service(id string, on func(Event)) Service {
	return Service{Group: "g", ID: id, Addr: id + ":80", TTL: testTTL, OnEvent: on}
}

func register(t *testing.T, c *Client, s Service) *Registration {
	t.Helper()
	r, err := c.Register(testContext(t), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (cl *fakeCluster) beatsOf(group, id string) int {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return cl.beats[cl.registrations[group+"/"+id].lease]
}

func TestRegisterBeatsAndDeregisters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, Service{Group: "g", ID: "a", Addr: "a:80", OnEvent: rec.on})
		if s := r.Service(); s.TTL != 10*time.Second || s.Weight != 1 {
			t.Errorf("defaults: %+v", s)
		}
		rec.want(t, EventRegistered)
		short := register(t, c, service("b", nil))
		eventually(t, "three beats", func() bool { return cl.beatsOf("g", "b") >= 3 })
		if r.Err() != nil || short.Err() != nil {
			t.Error("over while it lasts")
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if cl.held("g", "a") || !cl.held("g", "b") {
			t.Error("the member was not deregistered")
		}
		left := make(chan int)
		c.keeper.post(func() { left <- len(c.keeper.beats) })
		if n := <-left; n != 1 {
			t.Errorf("%d leases still beat", n)
		}
		if !errors.Is(over(t, r), ErrClosed) || !errors.Is(rec.want(t, EventEnded).Err, ErrClosed) {
			t.Errorf("ended by %v", r.Err())
		}
		if n := cl.nodes[0].count("Deregister"); n != 1 {
			t.Errorf("deregistered %d times", n)
		}
	})
}

func TestLostLeaseIsRegisteredAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, service("a", rec.on))
		for range 2 {
			// The first try in vain must not be the last.
			var failed atomic.Bool
			cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
				if method == "Register" && failed.CompareAndSwap(false, true) {
					return status.Error(codes.Internal, "scripted")
				}
				return nil
			})
			cl.expire("g", "a")
			rec.want(t, EventLost)
			if e := rec.want(t, EventUnreachable); e.Err == nil {
				t.Error("no reason")
			}
			rec.want(t, EventReregistered)
			eventually(t, "a beat of the new lease", func() bool { return cl.beatsOf("g", "a") > 0 })
		}
		if r.Err() != nil {
			t.Error(r.Err())
		}
	})
}

// Two processes never fight for an id: the registration that lost it ends.
func TestIDTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		first, second := cl.client(cl.target()), cl.client(cl.target())
		rec := newRecorder()
		s := service("a", rec.on)
		s.TakeOver = true
		r := register(t, first, s)
		s.Addr, s.OnEvent, s.TakeOver = "elsewhere:80", nil, false
		if _, err := second.Register(testContext(t), s); !errors.Is(err, ErrConflict) {
			t.Fatalf("without take over: %v", err)
		}
		s.TakeOver = true
		other := register(t, second, s)
		if !errors.Is(over(t, r), ErrFenced) || !errors.Is(rec.want(t, EventEnded).Err, ErrFenced) {
			t.Errorf("ended by %v", r.Err())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if !cl.held("g", "a") || other.Err() != nil {
			t.Error("the loser removed the member")
		}
		if n := cl.nodes[0].count("Register"); n != 4 {
			t.Errorf("%d registrations: the loser goes on", n)
		}
	})
}

// An id that expired and was registered by another process is not taken back, though the
// first registration was allowed to take over.
func TestConflictAfterLossEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		s := service("a", nil)
		s.TakeOver = true
		r := register(t, c, s)
		cl.expire("g", "a")
		if _, err := cl.nodes[0].Register(t.Context(), &registrypb.RegisterRequest{Group: "g", Id: "a", Addr: "x:1", Instance: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(over(t, r), ErrConflict) {
			t.Errorf("ended by %v", r.Err())
		}
	})
}

func TestOperatorRemovalEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		r := register(t, c, service("a", nil))
		if removed, err := c.Deregister(testContext(t), "g", "a"); err != nil || !removed {
			t.Fatal(removed, err)
		}
		if !errors.Is(over(t, r), ErrFenced) {
			t.Errorf("ended by %v", r.Err())
		}
	})
}

func TestHeartbeatsFollowTheLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 3)
		cl.leader = cl.nodes[2].addr
		c := cl.client(cl.target(0))
		register(t, c, service("a", nil))
		eventually(t, "beats at the leader", func() bool { return cl.nodes[2].count("Heartbeat") >= 2 })
		if n := cl.nodes[0].count("Heartbeat"); n > 2 {
			t.Errorf("%d beats before the move", n)
		}
		cl.mu.Lock()
		cl.leader = cl.nodes[1].addr
		cl.mu.Unlock()
		cl.nodes[2].srv.Stop()
		eventually(t, "beats at the next leader", func() bool { return cl.nodes[1].count("Heartbeat") >= 2 })
	})
}

// A leader whose address is of no use here leaves the stream where it works.
func TestUnreachableLeaderAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		cl.leader = "127.0.0.1:1"
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, service("a", rec.on))
		eventually(t, "beats go on", func() bool { return cl.beatsOf("g", "a") >= 5 })
		cl.mu.Lock()
		defer cl.mu.Unlock()
		if cl.streams != 1 || r.Err() != nil {
			t.Errorf("%d streams, %v", cl.streams, r.Err())
		}
	})
}

// Whatever happens to a node, the beats reach another within the TTL.
func TestHeartbeatsChangeNodes(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(n *fakeNode, refuses func()){
		"killed":  func(n *fakeNode, _ func()) { n.srv.Stop() },
		"stopped": func(n *fakeNode, _ func()) { n.silence() },
		"no leader there": func(n *fakeNode, refuses func()) {
			n.script(func(context.Context, string, any) error {
				refuses()
				return because(registrypb.ErrorDetail_NO_LEADER)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var failed atomic.Pointer[time.Time]
				var refused atomic.Int32
				cl := newFakeCluster(t, 2)
				cl.leader = cl.nodes[0].addr // as the others still say
				c := cl.client(cl.target())
				rec := newRecorder()
				s := service("a", rec.on)
				s.TTL = 4 * time.Second // a fifth of it is more than a busy machine is late
				register(t, c, s)
				eventually(t, "a beat", func() bool { return cl.nodes[0].count("Heartbeat") > 0 })
				began := time.Now()
				fault(cl.nodes[0], func() {
					now := time.Now()
					failed.CompareAndSwap(nil, &now)
					refused.Add(1)
				})
				eventually(t, "a beat elsewhere", func() bool { return cl.nodes[1].count("Heartbeat") > 0 })
				elsewhere := time.Now()
				eventually(t, "two more", func() bool { return cl.nodes[1].count("Heartbeat") > 2 })
				if at := failed.Load(); at != nil && refused.Load() > 1 && time.Since(*at) < followPause {
					t.Errorf("%d beats refused in %v: to and fro between the nodes", refused.Load(), time.Since(*at))
				}
				if at := failed.Load(); at != nil && elsewhere.Sub(*at) > s.TTL/5 {
					t.Errorf("a beat that was refused went elsewhere after %v", elsewhere.Sub(*at))
				}
				if d := elsewhere.Sub(began); d > s.TTL {
					t.Errorf("took %v of a TTL of %v", d, s.TTL)
				}
				rec.want(t, EventRegistered)
				select {
				case e := <-rec:
					t.Errorf("event %v", e)
				default:
				}
			})
		})
	}
}

func TestTellsWhenNoNodeAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		rec := newRecorder()
		register(t, c, service("a", rec.on))
		eventually(t, "a beat", func() bool { return cl.beatsOf("g", "a") > 0 })
		for _, n := range cl.nodes {
			n.silence()
		}
		if e := rec.want(t, EventUnreachable); e.Err == nil || e.Group != "g" || e.ID != "a" {
			t.Errorf("event %+v", e)
		}
		for _, n := range cl.nodes {
			n.script(nil)
		}
		rec.want(t, EventRenewed)
	})
}

// An OnEvent function that does not return costs events, not heartbeats.
func TestSlowOnEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		release := make(chan struct{})
		t.Cleanup(func() { close(release) }) // before the client's Close, which waits for it
		r := register(t, c, service("a", func(Event) { <-release }))
		for range 3 {
			was := cl.nodes[0].count("Register")
			cl.expire("g", "a")
			eventually(t, "registered again", func() bool { return cl.nodes[0].count("Register") > was && cl.held("g", "a") })
		}
		eventually(t, "beats go on", func() bool { return cl.beatsOf("g", "a") >= 2 })
		for range 3 * maxPending {
			c.keeper.emit(r, Event{Kind: EventLost})
		}
		c.keeper.dispatcher.mu.Lock()
		defer c.keeper.dispatcher.mu.Unlock()
		if n := len(c.keeper.dispatcher.pending[r]); n != maxPending {
			t.Errorf("%d events wait", n)
		}
	})
}

// A late answer to a heartbeat causes no event after the end.
func TestEndedIsTheLastEvent(t *testing.T) {
	rec := newRecorder()
	r := &Registration{service: service("a", rec.on)}
	d := newDispatcher()
	d.emit(r, Event{Kind: EventEnded})
	d.emit(r, Event{Kind: EventLost})
	d.stop()
	d.run()
	if len(rec) != 1 || (<-rec).Kind != EventEnded {
		t.Errorf("%d more events", len(rec))
	}
}

// 10,000 registrations are one stream, few messages, and few goroutines; 2,000
// lost at once are registered again, and Close gives all back.
func TestTenThousandRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target(), WithCloseTimeout(within))
		var g errgroup.Group
		g.SetLimit(32)
		for i := range n {
			g.Go(func() error {
				_, err := c.Register(testContext(t), Service{Group: "g", ID: fmt.Sprint("m", i), Addr: "a:1", TTL: 3 * time.Second})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		asked := time.Time{}
		everyBeat := func() bool {
			if time.Since(asked) < 50*time.Millisecond { // a look takes a while
				return false
			}
			asked = time.Now()
			cl.mu.Lock()
			defer cl.mu.Unlock()
			for id := range cl.leases {
				if cl.beats[id] == 0 {
					return false
				}
			}
			return len(cl.leases) == n
		}
		eventually(t, "a beat of every lease", everyBeat)
		cl.mu.Lock()
		for i := range n / 5 { // lost at once
			s := cl.registrations[fmt.Sprint("g/m", i)]
			delete(cl.leases, s.lease)
			s.lease = 0
		}
		cl.mu.Unlock()
		eventually(t, "everyone back and beating", everyBeat)
		cl.mu.Lock()
		if most := slices.Max(cl.batches); cl.streams != 1 || most > 1000 || len(cl.batches) > 1000 {
			t.Errorf("%d streams, %d messages, the largest of %d", cl.streams, len(cl.batches), most)
		}
		cl.mu.Unlock()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		cl.mu.Lock()
		defer cl.mu.Unlock()
		if len(cl.leases) != 0 {
			t.Errorf("%d leases are left", len(cl.leases))
		}
	})
}

func TestUnknownRegistrationIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		var instances []string
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			if r, ok := req.(*registrypb.RegisterRequest); ok {
				instances = append(instances, string(r.GetInstance()))
				return because(registrypb.ErrorDetail_OUTCOME_UNKNOWN)
			}
			return nil
		})
		cl.nodes[1].script(func(_ context.Context, _ string, req any) error {
			if r, ok := req.(*registrypb.RegisterRequest); ok {
				instances = append(instances, string(r.GetInstance()))
			}
			return nil
		})
		r := register(t, c, service("a", nil))
		if len(instances) != 2 || len(instances[0]) != 16 || instances[0] != instances[1] {
			t.Errorf("instances %q", instances)
		}
		if other := register(t, c, service("b", nil)); string(other.instance) == string(r.instance) {
			t.Error("two registrations share an instance")
		}
	})
}

func TestCloseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target(), WithAttemptTimeout(time.Hour))
		rec := newRecorder()
		r := register(t, c, service("a", rec.on))
		inCall := make(chan struct{})
		cl.nodes[0].script(func(ctx context.Context, method string, _ any) error {
			if method == "Match" {
				close(inCall)
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		matched := make(chan error)
		go func() {
			_, err := c.Match(context.Background(), "g", "k")
			matched <- err
		}()
		<-inCall
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if cl.held("g", "a") {
			t.Error("the member is still registered")
		}
		if err := <-matched; !errors.Is(err, ErrClosed) {
			t.Errorf("the call in progress ended with %v", err)
		}
		rec.want(t, EventEnded)
		if _, err := c.Match(t.Context(), "g", "k"); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := c.Register(t.Context(), service("b", nil)); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := errors.Join(c.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
}

// Close returns what it could not deregister, and does not wait forever.
func TestCloseWithoutNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target(), WithCloseTimeout(100*time.Millisecond))
		for i := range 40 {
			register(t, c, service(fmt.Sprint("m", i), nil))
		}
		cl.nodes[0].silence()
		began := time.Now()
		err := c.Close()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
		if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "40 of 40") {
			t.Errorf("got %v", err)
		}
	})
}

// A registration that is being made again when it is closed stays closed.
func TestCloseDuringReregistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		r := register(t, c, service("a", nil))
		entered, release := make(chan struct{}), make(chan struct{})
		cl.nodes[0].script(func(ctx context.Context, method string, _ any) error {
			if method == "Register" {
				close(entered)
				<-release // takes effect although the caller is gone
			}
			return nil
		})
		cl.expire("g", "a")
		<-entered
		done := make(chan error)
		go func() { done <- r.Close() }()
		if err := <-done; err != nil {
			t.Error(err)
		}
		close(release)
		cl.nodes[0].srv.GracefulStop() // the registration has run
		if cl.held("g", "a") {
			t.Error("a closed registration came back")
		}
	})
}

// An outage is logged once, without a line for each attempt.
func TestOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		var log bytes.Buffer // read after Close
		c := cl.client(cl.target(), WithLogger(slog.New(slog.NewTextHandler(&log, nil))), WithRefreshInterval(0))
		rec := newRecorder()
		register(t, c, service("a", rec.on))
		eventually(t, "a beat", func() bool { return cl.beatsOf("g", "a") > 0 })
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NOT_READY) })
		}
		rec.want(t, EventUnreachable)
		tried := cl.nodes[0].count("Heartbeat")
		eventually(t, "many attempts", func() bool { return cl.nodes[0].count("Heartbeat") > tried+5 })
		for _, n := range cl.nodes {
			n.script(nil)
		}
		rec.want(t, EventRenewed)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		// Registered, another node, unreachable, renewed, ended. On a busy machine the outage may begin by a
		// beat that is late, without another node.
		if n := strings.Count(log.String(), "\n"); n > 5 || strings.Count(log.String(), "event=unreachable") != 1 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// The line of an event that is no error names none.
func TestEventLinesNameTheirErrorsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		var log bytes.Buffer // read after Close
		c := cl.client(cl.target(), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		rec := newRecorder()
		r := register(t, c, Service{Group: "g", ID: "a", Addr: "a:80", OnEvent: rec.on})
		rec.want(t, EventRegistered)
		if err := errors.Join(r.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		if text := log.String(); !strings.Contains(text, "event=registered") || strings.Contains(text, "<nil>") {
			t.Error(text)
		}
	})
}
