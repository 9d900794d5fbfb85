package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// gathering is a client with gatherCalls registrations under way, which the node holds
// back, and others that wait for them.
type gathering struct {
	*fakeCluster
	client  *Client
	release func()
	errs    map[string]error // of the registrations, when all have ended
	all     sync.WaitGroup
}

// gather holds registrations at the first node. hook sees its further calls.
func gather(t *testing.T, nodes, waiting int, hook func(ctx context.Context, method string, req any) error) *gathering {
	cl := newFakeCluster(t, nodes)
	g := &gathering{fakeCluster: cl, client: cl.client(cl.target(), WithAttemptTimeout(within)), errs: map[string]error{}}
	held := make(chan struct{})
	g.release = sync.OnceFunc(func() { close(held) })
	t.Cleanup(g.release)
	cl.nodes[0].script(func(ctx context.Context, method string, req any) error {
		if r, ok := req.(*registrypb.RegisterRequest); ok && r.GetGroup() == "held" {
			<-held
			return nil
		}
		return hook(ctx, method, req)
	})
	var mu sync.Mutex
	register := func(ctx context.Context, s Service) {
		g.all.Go(func() {
			_, err := g.client.Register(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			g.errs[s.ID] = err
		})
	}
	for i := range gatherCalls {
		register(testContext(t), Service{Group: "held", ID: fmt.Sprint("held-", i), Addr: "a:1"})
	}
	eventually(t, "as many calls as may be under way", func() bool { return cl.nodes[0].count("Register") == gatherCalls })
	for i := range waiting {
		register(testContext(t), service(fmt.Sprint("m-", i), nil))
	}
	eventually(t, "the others wait", func() bool { return g.waits() == waiting })
	return g
}

func (g *gathering) waits() int {
	r := &g.client.pool.all[0].registers
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting)
}

// wait releases what is held and returns when every registration has ended.
func (g *gathering) wait() {
	g.release()
	g.all.Wait()
}

func none(context.Context, string, any) error { return nil }

// What waits goes together, and each registration has its own outcome.
func TestWaitingRegistrationsGoTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const waiting = 1500
		g := gather(t, 1, waiting, func(_ context.Context, method string, req any) error {
			if r, ok := req.(*registrypb.RegisterRequest); ok && r.GetId() == "m-7" {
				return because(registrypb.ErrorDetail_CONFLICT)
			}
			return nil
		})
		if n := g.nodes[0].count("RegisterMany"); n != 0 {
			t.Errorf("%d calls of several before one of the first has ended", n)
		}
		g.wait()
		for id, err := range g.errs {
			if id == "m-7" && errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		if n := g.nodes[0].count("RegisterMany"); n < 2 || n > gatherCalls+1 {
			t.Errorf("%d calls of several", n)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.registrations) != waiting+gatherCalls-1 {
			t.Errorf("%d registrations, want %d", len(g.registrations), waiting+gatherCalls-1)
		}
	})
}

// A node of before, or a token that does not allow one of them: each goes alone.
func TestGatheredRegistrationsGoAlone(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]error{
		"unknown call": failing(codes.Unimplemented, &registrypb.ErrorDetail{}),
		"not allowed":  failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_PERMISSION_DENIED}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := gather(t, 1, 20, func(_ context.Context, method string, _ any) error {
					if method == "RegisterMany" {
						return refuse
					}
					return nil
				})
				g.wait()
				for id, err := range g.errs {
					if err != nil {
						t.Errorf("%s: %v", id, err)
					}
				}
			})
		})
	}
}

// A member of another token is registered by a call of its own, which may.
func TestForeignMemberIsRegisteredAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		together := true
		var mu sync.Mutex
		g := gather(t, 1, 20, func(_ context.Context, method string, req any) error {
			mu.Lock()
			defer mu.Unlock()
			if r, ok := req.(*registrypb.RegisterRequest); ok && r.GetId() == "m-3" && together {
				together = false
				return failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_NOT_OWNER})
			}
			return nil
		})
		g.wait()
		for id, err := range g.errs {
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

// A caller that gives up while it waits is not sent.
func TestGatheredRegistrationGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := gather(t, 1, 2, none)
		ctx, cancel := context.WithCancel(testContext(t))
		failed := make(chan error, 1)
		go func() {
			_, err := g.client.Register(ctx, service("gone", nil))
			failed <- err
		}()
		eventually(t, "it waits", func() bool { return g.waits() == 3 })
		cancel()
		select {
		case err := <-failed:
			if !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("its error: %v", err)
			}
		case <-time.After(within):
			t.Fatal("it goes on waiting")
		}
		g.wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.registrations["g/gone"] != nil {
			t.Error("it was sent")
		}
	})
}

// After a call whose outcome is unknown, each is repeated with its own request id.
func TestGatheredRegistrationsAreRepeated(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]error{
		"the node does not know the outcome": failing(codes.Unknown, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_OUTCOME_UNKNOWN}),
		"the connection breaks":              status.Error(codes.Unavailable, "scripted"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				repeatGathered(t, broken)
			})
		})
	}
}

func repeatGathered(t *testing.T, broken error) {
	var mu sync.Mutex
	first := map[string]string{} // request ids
	g := gather(t, 2, 20, func(_ context.Context, method string, req any) error {
		if m, ok := req.(*registrypb.RegisterManyRequest); ok {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range m.GetRegistrations() {
				first[r.GetId()] = string(r.GetRequestId())
			}
			return broken
		}
		return nil
	})
	repeated := 0
	g.nodes[1].script(func(_ context.Context, _ string, req any) error {
		if r, ok := req.(*registrypb.RegisterRequest); ok {
			mu.Lock()
			defer mu.Unlock()
			id, sent := first[r.GetId()]
			if sent && (id != string(r.GetRequestId()) || !r.GetAgain()) {
				t.Errorf("%s is repeated with the id %x, again %v", r.GetId(), r.GetRequestId(), r.GetAgain())
			}
			repeated++
		}
		return nil
	})
	g.wait()
	for id, err := range g.errs {
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if len(first) != 20 || repeated != 20 {
		t.Errorf("%d were sent together and %d repeated, want 20", len(first), repeated)
	}
}

// Close ends what waits.
func TestCloseEndsWaitingRegistrations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := gather(t, 1, 20, none)
		closed := make(chan error, 1)
		go func() { closed <- g.client.Close() }()
		g.wait()
		<-closed
		for id, err := range g.errs {
			if err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

// waiter is a registration that waits at the client's first node.
func (cl *fakeCluster) waiter(c *Client, id string) *gathered {
	conn, err := c.pool.all[0].get(c)
	if err != nil {
		cl.t.Fatal(err)
	}
	req := &registrypb.RegisterRequest{Group: "g", Id: id, Addr: "a:1", Instance: []byte("i")}
	return &gathered{ctx: testContext(cl.t), conn: conn, req: req, done: make(chan struct{})}
}

// The outcome of a registration that reached no node is known, though it waited.
func TestGatheredRegistrationIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 0)
		c := cl.client("127.0.0.1:1") // where nobody listens
		w := cl.waiter(c, "m")
		w.sent = true // as ended does
		c.pool.all[0].registers.send(c, []*gathered{w})
		if <-w.done; w.err == nil || w.sent {
			t.Errorf("%v, sent %v", w.err, w.sent)
		}
	})
}

// After a redial what waits goes over the new connection.
func TestGatheredRegistrationsGoOverTheNewestConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		batch := []*gathered{cl.waiter(cl.client("127.0.0.1:1"), "m-0"), cl.waiter(c, "m-1")}
		c.pool.all[0].registers.send(c, batch)
		for _, w := range batch {
			if <-w.done; w.err != nil {
				t.Errorf("%s: %v", w.req.GetId(), w.err)
			}
		}
	})
}

// Once the client is being closed nothing waits on, however many did.
func TestCloseEndsAllThatWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		g := &gatherer{calls: 1}
		for i := range 2*gatherMost + 1 {
			g.waiting = append(g.waiting, cl.waiter(c, fmt.Sprint(i)))
		}
		all := slices.Clone(g.waiting)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		g.ended(c)
		for i, w := range all {
			select {
			case <-w.done:
				if !errors.Is(w.err, ErrClosed) || w.sent {
					t.Fatalf("%d: %v, sent %v", i, w.err, w.sent)
				}
			default:
				t.Fatalf("%d goes on waiting", i)
			}
		}
		if g.calls != 0 || len(g.waiting) != 0 {
			t.Errorf("%d calls, %d waiting", g.calls, len(g.waiting))
		}
	})
}

// An answer that this version does not know is an error, and no registration.
func TestUnknownAnswerOfManyIsAnError(t *testing.T) {
	if err := failureError((&registrypb.RegisterResult{}).GetFailure()); err == nil {
		t.Error("it is none")
	}
}
