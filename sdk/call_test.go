package sdk

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

func registerMember(t *testing.T, cl *fakeCluster, id string) {
	t.Helper()
	_, err := cl.nodes[0].Register(t.Context(), &registrypb.RegisterRequest{Group: "g", Id: id, Addr: id + ":80", Instance: []byte(id)})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDialChecksEveryAddress(t *testing.T) {
	for name, target := range map[string]string{
		"empty": "", "no port": "127.0.0.1", "no host": ":9800", "trailing comma": "a:1,", "port 0": "a:0",
		"port too large": "a:65536", "named port": "a:http", "second is bad": "a:1,b", "too long": strings.Repeat("a", 256) + ":1",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(target)
			if e := (*Error)(nil); !errors.Is(err, ErrInvalidArgument) || !errors.As(err, &e) || e.Field != "target" {
				t.Errorf("Dial(%q) = %v, want an invalid target", target, err)
			}
		})
	}
	c, err := Dial(" a:1, b:2 ,a:1,[::1]:3")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.pool.addrs(), " "); got != "a:1 b:2 [::1]:3" {
		t.Errorf("addresses %q", got)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Every reason of the API becomes its sentinel and no other; what cannot be
// cured by another node is not repeated.
func TestErrorsBecomeSentinels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		for reason, want := range sentinels {
			detail := &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_Reason(reason), Field: "f", Limit: "l"}
			for _, n := range cl.nodes {
				n.script(func(context.Context, string, any) error { return failing(codes.FailedPrecondition, detail) })
			}
			var err error
			e := (*Error)(nil)
			for range 20 { // a repeated write whose time is over while it is on its way is unknown, and no sentinel
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				_, err = c.SetGroup(ctx, SetGroup{Group: "g"})
				cancel()
				if errors.As(err, &e) && e.Reason == reason {
					break
				}
			}
			if !errors.As(err, &e) || e.Reason != reason {
				t.Errorf("%v: got %v", reason, err)
				continue
			}
			for other, s := range sentinels {
				if errors.Is(err, s) != (other == reason) {
					t.Errorf("%v: errors.Is with %v is %v", reason, s, other != reason)
				}
			}
			if !errors.Is(err, want) || reason == reasonInvalidArgument && (e.Field != "f" || e.Limit != "l") {
				t.Errorf("%v: got %+v", reason, e)
			}
		}
		before := cl.nodes[0].count("SetGroup") + cl.nodes[1].count("SetGroup")
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_UNKNOWN_GROUP) })
		}
		if _, err := c.SetGroup(t.Context(), SetGroup{Group: "g"}); !errors.Is(err, ErrUnknownGroup) {
			t.Error(err)
		}
		if n := cl.nodes[0].count("SetGroup") + cl.nodes[1].count("SetGroup") - before; n != 1 {
			t.Errorf("a definite answer was asked for %d times", n)
		}
	})
}

func TestDeadNodeFailsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 3)
		registerMember(t, cl, "m1")
		c := cl.client(cl.target())
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Fatal(err)
		}
		cl.nodes[0].srv.Stop()
		began := time.Now()
		for range 100 {
			if _, err := c.Match(testContext(t), "g", "k"); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("100 calls after a node's death took %v", d)
		}
	})
}

// A node that is stopped, or cut off, costs one attempt timeout, once.
func TestSilentNodeIsPassedOver(t *testing.T) {
	for name, silence := range map[string]func(t *testing.T, cl *fakeCluster) string{
		"stopped after it worked": func(t *testing.T, cl *fakeCluster) string { cl.nodes[0].silence(); return cl.target() },
		"never answers a connection": func(t *testing.T, cl *fakeCluster) string {
			lis, addr := listenFake(t, "")
			go func() { // nobody speaks
				for conn, err := lis.Accept(); err == nil; conn, err = lis.Accept() {
					defer func() { _ = conn.Close() }()
				}
			}()
			t.Cleanup(func() { _ = lis.Close() })
			return addr + "," + cl.target(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, 2)
				registerMember(t, cl, "m1")
				target := silence(t, cl)
				silent, _, _ := strings.Cut(target, ",")
				var asked atomic.Int32
				c := cl.client(target, WithDialOptions(grpc.WithUnaryInterceptor(
					func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
						if strings.HasSuffix(conn.Target(), silent) {
							asked.Add(1)
						}
						return call(ctx, method, req, resp, conn, opts...)
					})))
				for range 51 {
					if _, err := c.Match(testContext(t), "g", "k"); err != nil {
						t.Fatal(err)
					}
				}
				// Once by the first call, and once more if the others took long.
				if n := asked.Load(); n < 1 || n > 2 {
					t.Errorf("the silent node was asked %d times in 51 calls", n)
				}
			})
		})
	}
}

func TestWaitsOutAnElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		var asked atomic.Int32
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error {
				if asked.Add(1) < 9 {
					return because(registrypb.ErrorDetail_NO_LEADER)
				}
				return nil
			})
		}
		if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); err != nil {
			t.Fatal(err)
		}
		if a, b := cl.nodes[0].count("SetGroup"), cl.nodes[1].count("SetGroup"); a < 3 || b < 3 {
			t.Errorf("asked %d and %d times: not in turns", a, b)
		}
	})
}

// A cluster without a leader is not asked as fast as it can say so.
// A write that no node takes ends as not done: its last attempt is not cut off by the
// deadline, which would make the outcome unknown.
func TestPausesBetweenRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		var late atomic.Int32
		c := cl.client(cl.target(), WithCallTimeout(time.Second), WithDialOptions(grpc.WithUnaryInterceptor(
			func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				// Pauses last 50 ms at most: without the rule an attempt would begin here.
				if deadline, _ := ctx.Deadline(); time.Until(deadline) < 50*time.Millisecond {
					late.Add(1)
				}
				return call(ctx, method, req, resp, conn, opts...)
			})))
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NO_LEADER) })
		}
		_, err := c.SetGroup(t.Context(), SetGroup{Group: "g"})
		if !errors.Is(err, ErrNoLeader) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if n := late.Load(); n > 0 {
			t.Errorf("%d attempts began in the last 50 ms", n)
		}
		if n := cl.nodes[0].count("SetGroup"); n < 3 || n > 100 {
			t.Errorf("a node was asked %d times in 1 s", n)
		}
	})
}

// A node that has too much to do is left for another; where all have, they are
// asked again, with pauses, for as long as the call may last.
func TestBusyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target(), WithCallTimeout(300*time.Millisecond))
		busy := func(context.Context, string, any) error { return because(registrypb.ErrorDetail_BUSY) }
		cl.nodes[0].script(busy)
		if _, err := c.SetGroup(t.Context(), SetGroup{Group: "g"}); err != nil || cl.nodes[0].count("SetGroup") != 1 {
			t.Errorf("got %v after %d refusals", err, cl.nodes[0].count("SetGroup"))
		}
		cl.nodes[1].script(busy)
		_, err := c.Groups(t.Context())
		if e := (*Error)(nil); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) || e.Reason != reasonBusy {
			t.Errorf("got %v", err)
		}
		if n := cl.nodes[0].count("Groups"); n < 2 || n > 30 {
			t.Errorf("a node was asked %d times in 300 ms", n)
		}
	})
}

func TestNoNodeReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target(), WithCallTimeout(100*time.Millisecond))
		for _, n := range cl.nodes {
			n.srv.Stop()
		}
		_, err := c.Match(t.Context(), "g", "k")
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		for _, n := range cl.nodes {
			if !strings.Contains(err.Error(), n.addr) {
				t.Errorf("%q does not name %s", err, n.addr)
			}
		}
		// A write that never left is not of unknown outcome.
		if _, err := c.SetGroup(t.Context(), SetGroup{Group: "g"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// The same error of several nodes is reported once, with all their addresses.
func TestOneCauseIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target(), WithCallTimeout(100*time.Millisecond))
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NOT_READY) })
		}
		_, err := c.Groups(t.Context())
		if !errors.Is(err, ErrNotReady) || strings.Count(err.Error(), "scripted not_ready") != 1 || !strings.Contains(err.Error(), cl.nodes[0].addr) || !strings.Contains(err.Error(), cl.nodes[1].addr) {
			t.Errorf("got %v", err)
		}
	})
}

// A read at an index that no node reaches tells that from a cluster that is away.
func TestIndexThatNoNodeReaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		cl.nodes[0].silence()
		c := cl.client(cl.target(), WithAttemptTimeout(20*time.Millisecond), WithCallTimeout(100*time.Millisecond))
		_, err := c.Groups(t.Context(), AtLeast(12345))
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no node answered at index 12345 or above: "+cl.nodes[0].addr) {
			t.Errorf("got %v", err)
		}
	})
}

// All attempts of a write have one request id, and a later one says whether the
// outcome of an earlier one is unknown.
func TestAttemptsHaveOneRequestID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 3)
		c := cl.client(cl.target())
		var asked []*registrypb.SetGroupRequest
		answers := []error{because(registrypb.ErrorDetail_NO_LEADER), because(registrypb.ErrorDetail_OUTCOME_UNKNOWN), nil, nil}
		for _, n := range cl.nodes {
			n.script(func(_ context.Context, _ string, req any) error {
				asked = append(asked, proto.Clone(req.(*registrypb.SetGroupRequest)).(*registrypb.SetGroupRequest))
				return answers[len(asked)-1]
			})
		}
		for range 2 {
			if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); err != nil {
				t.Fatal(err)
			}
		}
		if len(asked) != 4 {
			t.Fatalf("%d attempts", len(asked))
		}
		for i, want := range []bool{false, false, true, false} {
			if a := asked[i]; a.Again != want || len(a.RequestId) != 16 || a.Since < 100 {
				t.Errorf("attempt %d: %v, want again %v, an id of 16 bytes, and an index", i, a, want)
			}
			if same := bytes.Equal(asked[i].RequestId, asked[0].RequestId); same != (i < 3) {
				t.Errorf("attempt %d has the first call's id: %v", i, same)
			}
		}
	})
}

// A write is repeated after an unknown outcome, and called unknown if the
// context ends first: whether the node said so, fell silent, or broke off.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(ctx context.Context) error{
		"said so":    func(context.Context) error { return because(registrypb.ErrorDetail_OUTCOME_UNKNOWN) },
		"silent":     func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"broken off": func(context.Context) error { return status.Error(codes.Unavailable, "gone") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, 2)
				c := cl.client(cl.target(), WithAttemptTimeout(100*time.Millisecond))
				cl.nodes[0].script(func(ctx context.Context, _ string, _ any) error { return fault(ctx) })
				if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); err != nil {
					t.Fatalf("not repeated on the other node: %v", err)
				}
				cl.nodes[1].script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NO_LEADER) })
				c.pool.returnHome()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // both nodes answer in that time
				defer cancel()
				_, err := c.SetGroup(ctx, SetGroup{Group: "g"})
				if !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v", err)
				}
				if name != "said so" && !strings.Contains(err.Error(), "the cluster has no leader, and the change may or may not") {
					t.Errorf("the lack of a leader is not reported: %v", err)
				}
			})
		})
	}
}

// Handing leadership over twice would hand it back.
func TestTransferIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		cl.nodes[0].script(func(context.Context, string, any) error { return status.Error(codes.Unavailable, "gone") })
		if _, err := c.Transfer(testContext(t), ""); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("got %v", err)
		}
		if n := cl.nodes[1].count("Transfer"); n != 0 {
			t.Errorf("repeated %d times", n)
		}
		cl.nodes[0].srv.Stop() // nothing can have been carried out there
		eventually(t, "the end of the connection is noticed", func() bool {
			return c.pool.all[0].conn.GetState() != connectivity.Ready
		})
		c.pool.returnHome()
		if leader, err := c.Transfer(testContext(t), "n2"); err != nil || leader != "n2" {
			t.Errorf("got %q, %v", leader, err)
		}
	})
}

func TestLearnsTheOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 3)
		registerMember(t, cl, "m1")
		c := cl.client(cl.target(0), WithRefreshInterval(20*time.Millisecond))
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "three addresses known", func() bool { return len(c.pool.addrs()) == 3 })
		cl.nodes[0].srv.Stop()
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Fatalf("the only node that was given is gone: %v", err)
		}
	})
}

func TestReturnsHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		registerMember(t, cl, "m1")
		c := cl.client(cl.target(), WithRefreshInterval(20*time.Millisecond))
		cl.nodes[0].srv.Stop()
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Fatal(err)
		}
		cl.replace(0, cl.start("node-0", cl.nodes[0].addr))
		eventually(t, "the home node answers again", func() bool {
			var r Receipt
			_, err := c.Match(testContext(t), "g", "k", WithReceipt(&r))
			return err == nil && r.Node == "node-0"
		})
	})
}

func TestAttemptsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		cl.nodes[0].silence()
		c := cl.client(cl.target(), WithAttemptTimeout(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := c.Match(ctx, "g", "k"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
