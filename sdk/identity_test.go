package sdk

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A node of another cluster gets no call, heartbeat or watch, and tells nothing.
func TestNodeOfAnotherClusterIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress)
		if _, err := c.Members(testContext(t), "g"); err != nil { // decides which cluster
			t.Fatal(err)
		}
		home := cl.nodes[0]
		answered := func() int {
			return home.count("Members") + home.count("Match") + home.count("Register") + home.count("Heartbeat") + home.count("Watch") + home.count("Status")
		}
		cl.become("other/cluster-9", home)
		before := answered()
		rec := newRecorder()
		register(t, c, service("m", rec.on))
		for range 30 {
			if _, err := c.Match(testContext(t), "g", "k"); err != nil {
				t.Fatal(err)
			}
		}
		r := openRing(t, c)
		watchAll(t, c)
		wait(t, r, cl.write("g", memberIDs(6)...))
		if err := c.goHome(); !errors.Is(errorFromStatus("", err), ErrWrongCluster) {
			t.Errorf("going home: %v", err)
		}
		eventually(t, "heartbeats", func() bool { return cl.nodes[1].count("Heartbeat") > 0 })
		if n := answered() - before; n != 0 || home.count("refused") == 0 {
			t.Errorf("the node of another cluster took %d calls and refused %d", n, home.count("refused"))
		}
		cl.become("", home)
		if err := c.goHome(); err != nil {
			t.Errorf("the node is its own again: %v", err)
		}
	})
}

// With its own cluster gone, a client says so, in every way, and takes its own
// again when it comes back.
func TestOnlyAnotherClusterAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress, outageSoon)
		rec := newRecorder()
		reg := register(t, c, service("m", rec.on))
		r := openRing(t, c)
		watches := watchAll(t, c)
		cl.become("other/cluster-9", cl.nodes...)
		for what, call := range map[string]func(context.Context) error{
			"match":    func(ctx context.Context) error { _, err := c.Match(ctx, "g", "k"); return err },
			"register": func(ctx context.Context) error { _, err := c.Register(ctx, service("n", nil)); return err },
			"status":   func(ctx context.Context) error { _, err := c.Status(ctx, ""); return err },
			"transfer": func(ctx context.Context) error { _, err := c.Transfer(ctx, ""); return err },
			"ring": func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err := c.Ring(ctx, "h")
				return err
			},
		} {
			if err := call(testContext(t)); !errors.Is(err, ErrWrongCluster) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, nextErr := range watches {
			if err := nextErr(); !errors.Is(err, ErrWrongCluster) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if e := rec.want(t, EventUnreachable); !errors.Is(e.Err, ErrWrongCluster) {
			t.Errorf("event: %v", e.Err)
		}
		if m, err := r.Match("k"); err != nil || m == nil {
			t.Errorf("the ring: %v, %v", m, err)
		}
		cl.become("", cl.nodes...)
		wait(t, r, cl.write("g", memberIDs(5)...))
		rec.want(t, EventRenewed)
		if err := reg.Err(); err != nil {
			t.Error(err)
		}
	})
}

// One node is away and the other one is of another cluster: that is what the
// error, the event and the ring's error tell of.
func TestAwayOrOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		cl.nodes[0].srv.Stop()
		cl.become("other/cluster-9", cl.nodes[1])
		c := cl.client(cl.target(), WithCluster("fake"), WithCallTimeout(5*time.Second))
		_, err := c.Match(t.Context(), "g", "k")
		if !errors.Is(err, ErrWrongCluster) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("match: %v", err)
		}
		if _, err := c.Ring(t.Context(), "g"); !errors.Is(err, ErrWrongCluster) {
			t.Errorf("ring: %v", err)
		}
	})
}

// The client's half of it: answers and streams of another cluster are refused,
// also of a node that does not itself refuse the call.
func TestAnswersOfAnotherClusterAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress, outageSoon)
		rec := newRecorder()
		register(t, c, service("m", rec.on))
		rec.want(t, EventRegistered)
		watches := watchAll(t, c)
		cl.mu.Lock()
		for _, n := range cl.nodes {
			n.trusting = true
		}
		cl.mu.Unlock()
		cl.become("other/cluster-9", cl.nodes...)
		if _, err := c.Transfer(testContext(t), ""); !errors.Is(err, ErrWrongCluster) { // whose answer has no receipt
			t.Errorf("transfer: %v", err)
		}
		if _, err := c.Members(testContext(t), "g"); !errors.Is(err, ErrWrongCluster) {
			t.Errorf("members: %v", err)
		}
		for what, nextErr := range watches {
			if err := nextErr(); !errors.Is(err, ErrWrongCluster) {
				t.Errorf("%s: %v", what, err)
			}
		}
		rec.next(t, EventUnreachable, ErrWrongCluster)
		if own := c.identity.own.Load().String(); own != "fake/cluster-1" || cl.nodes[0].count("refused")+cl.nodes[1].count("refused") != 0 {
			t.Errorf("the client is of %q, and the nodes refused calls", own)
		}
	})
}

func TestWithCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			given string
			want  error
		}{
			{"", nil}, {"fake", nil}, {"fake/cluster-1", nil}, {"/cluster-1", nil},
			{"other", ErrWrongCluster}, {"fake/cluster-2", ErrWrongCluster}, {"/cluster-2", ErrWrongCluster}, {"ö ther/cluster-1", ErrWrongCluster},
		} {
			cl := newFakeCluster(t, 1)
			c := cl.client(cl.target(), WithCluster(tt.given))
			if _, err := c.Members(testContext(t), "g"); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%q: %v", tt.given, err)
			}
			if got := c.identity.own.Load().String(); tt.want == nil && got != "fake/cluster-1" {
				t.Errorf("%q: the client is of %q", tt.given, got)
			}
			if tt.want != nil && cl.nodes[0].count("Members") != 0 {
				t.Errorf("%q: the node took the call", tt.given)
			}
		}
		for _, bad := range []string{"a/b/c", strings.Repeat("n", 256), "/" + strings.Repeat("i", 256), "\xff"} {
			if _, err := Dial("127.0.0.1:1", WithCluster(bad)); !errors.Is(err, ErrInvalidArgument) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}

// A client that was given nothing is of the cluster of its first answer; an error
// is none.
func TestFirstAnswerDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		cl.nodes[0].script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NOT_READY) })
		cl.become("other/cluster-9", cl.nodes[0])
		c := cl.client(cl.target())
		if _, err := c.Members(testContext(t), "g"); err != nil {
			t.Fatal(err)
		}
		if got := c.identity.own.Load().String(); got != "fake/cluster-1" {
			t.Errorf("the client is of %q", got)
		}
	})
}

// A node of a version that names no cluster is taken; what its answers and
// snapshots say of the cluster counts.
func TestNodeThatNamesNoCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		for _, n := range cl.nodes {
			n.unnamed = true
		}
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c)
		if _, err := c.Members(testContext(t), "g"); err != nil {
			t.Fatal(err)
		}
		cl.mu.Lock()
		cl.id = "cluster-2"
		cl.mu.Unlock()
		cl.become("", cl.nodes...)
		if _, err := c.Members(testContext(t), "g"); !errors.Is(err, ErrWrongCluster) {
			t.Errorf("members: %v", err)
		}
		if v := r.View(); v.ClusterID() != "cluster-1" || r.Stats().Rebuilds != 0 {
			t.Errorf("of cluster %q, %+v", v.ClusterID(), r.Stats())
		}
	})
}
