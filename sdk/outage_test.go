package sdk

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A watch that no node can serve says so once, and that it is over.
func TestWatchThatCannotWorkSaysSo(t *testing.T) {
	soon := func(c *config) { c.outageAfter = 20 * time.Millisecond }
	small := WithDialOptions(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2000)))
	for name, tt := range map[string]struct {
		spoil func(cl *fakeCluster)
		want  func(error) bool
	}{
		"an event larger than the client takes": {
			func(cl *fakeCluster) { cl.write("g", memberIDs(200)...) },
			func(err error) bool { return errors.Is(err, ErrExhausted) },
		},
		"a state that never fits its fingerprint": {
			func(cl *fakeCluster) {
				for _, n := range cl.nodes {
					n.mu.Lock()
					n.alter = func(e *registrypb.WatchEvent) *registrypb.WatchEvent {
						if s := e.GetSnapshot(); s != nil && len(s.Members) == 3 {
							s.Fingerprint++
						}
						return e
					}
					n.mu.Unlock()
				}
				cl.write("g", memberIDs(3)...)
			},
			func(err error) bool { e := (*Error)(nil); return errors.As(err, &e) && e.Code == codes.Unavailable },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeWatched(t, 2)
				tt.spoil(cl)
				c := cl.client(cl.target(), fastProgress, soon, small)
				one, err := c.Watch(t.Context(), "g")
				if err != nil {
					t.Fatal(err)
				}
				prefix, err := c.WatchPrefix(t.Context(), "g")
				if err != nil {
					t.Fatal(err)
				}
				watches := map[string]*Watch[GroupEvent]{"Watch": one, "WatchPrefix": prefix}
				for name, w := range watches {
					if e := next(t, w); !tt.want(e.Err) || e.Recovered || e.Reset || e.Revision != 0 {
						t.Errorf("%s: %+v", name, e)
					}
				}
				revision := cl.write("g", memberIDs(4)...)
				for _, n := range cl.nodes {
					n.breakStreams()
				}
				for name, w := range watches {
					recovered, shown := false, false
					for !recovered || !shown {
						e := next(t, w)
						recovered, shown = recovered || e.Recovered, shown || e.Reset && e.Revision == revision
						if e.Err != nil {
							t.Errorf("%s: reported twice: %v", name, e.Err)
						}
					}
				}
			})
		})
	}
}

// A ring that gets nothing says so in its statistics.
func TestRingThatGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		r := openRing(t, cl.client(cl.target(), fastProgress, func(c *config) { c.outageAfter = 20 * time.Millisecond }))
		cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
			if method == "Watch" {
				return because(registrypb.ErrorDetail_NOT_READY)
			}
			return nil
		})
		cl.nodes[0].breakStreams()
		eventually(t, "the outage is reported", func() bool { return r.Stats().Outage != nil })
		if s := r.Stats(); !errors.Is(s.Outage, ErrNotReady) || s.Outages != 1 {
			t.Errorf("%+v", s)
		}
		cl.nodes[0].script(nil)
		eventually(t, "it is over", func() bool { return r.Stats().Outage == nil })
	})
}

// An outage is reported once, and again for each kind of refusal by the nodes.
func TestNoticeOfAnOutage(t *testing.T) {
	away := &Error{Code: codes.Unavailable}
	silent := &Error{Message: "did not answer in time"}
	noLeader, behind := &Error{Reason: reasonNoLeader}, &Error{Reason: reasonNotReady}
	foreign, full := &Error{Reason: reasonWrongCluster}, &Error{Reason: reasonExhausted}
	broken := &Error{Code: codes.Internal}
	for name, tt := range map[string]struct{ causes, reported []error }{
		"nodes come and go":            {[]error{away, noLeader, behind, silent, away}, []error{away}},
		"the cluster is formed anew":   {[]error{away, silent, foreign, foreign, away, foreign}, []error{away, foreign}},
		"refused from the start":       {[]error{foreign, away, foreign}, []error{foreign}},
		"refused for another reason":   {[]error{full, full, foreign}, []error{full, foreign}},
		"two nodes, two reasons":       {[]error{full, foreign, full, foreign}, []error{full, foreign}},
		"a fault without a reason":     {[]error{away, broken, away, broken}, []error{away, broken}},
		"what is no error of a node's": {[]error{context.Canceled, away}, []error{context.Canceled}},
	} {
		var n notice
		var reported []error
		for _, err := range tt.causes {
			if n.due(err) {
				reported = append(reported, err)
			}
		}
		if !slices.Equal(reported, tt.reported) {
			t.Errorf("%s: reported %v, want %v", name, reported, tt.reported)
		}
	}
}

// A refusal without a reason, of a proxy or of the client's own limit, is reported
// although a temporary failure had one; a failed connection is not.
func TestOutageThatBecomesARefusal(t *testing.T) {
	var o outage
	now := time.Now()
	full := &Error{Code: codes.ResourceExhausted}
	for i, step := range []struct {
		err  *Error
		want *Error // reported; nil: nothing is
	}{
		{&Error{Reason: reasonNotReady}, nil},
		{&Error{Reason: reasonNotReady}, nil},
		{&Error{Reason: reasonNoLeader}, &Error{Reason: reasonNoLeader}},
		{&Error{Code: codes.Unavailable}, nil},
		{full, full},
		{&Error{Reason: reasonNotReady}, nil},
		{full, nil},
	} {
		due := o.fail(step.err, now, 0)
		if due != (step.want != nil) || due && (o.err.Reason != step.want.Reason || o.err.Code != step.want.Code) {
			t.Errorf("step %d: %v, %+v", i, due, o.err)
		}
	}
}

// After an outage was reported, nodes of another cluster at the same addresses are
// reported too: nothing else shows it.
func TestClusterFormedAnewIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress, outageSoon)
		rec := newRecorder()
		register(t, c, service("m", rec.on))
		rec.want(t, EventRegistered)
		r := openRing(t, c)
		watches := watchAll(t, c)
		away := func(context.Context, string, any) error { return because(registrypb.ErrorDetail_NOT_READY) }
		for _, n := range cl.nodes {
			n.script(away)
			n.breakStreams()
		}
		for _, want := range []error{ErrNotReady, ErrWrongCluster} {
			for what, nextErr := range watches {
				if err := nextErr(); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			rec.next(t, EventUnreachable, want)
			eventually(t, "the ring's reason", func() bool { return errors.Is(r.Stats().Outage, want) })
			cl.become("fake/cluster-2", cl.nodes...)
		}
		if n := r.Stats().Outages; n != 1 {
			t.Errorf("%d outages of the ring", n)
		}
		for _, n := range cl.nodes {
			n.script(nil)
		}
		cl.become("", cl.nodes...)
		rec.next(t, EventRenewed, nil)
	})
}

// Two nodes that refuse a watch for different reasons, in turns, are reported once
// each: an event and a log line for each attempt would not end.
func TestTwoRefusalsInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(4)...)
		w, err := cl.client(cl.target(), fastProgress, outageSoon).Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		var refused atomic.Int32
		cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
			if method != "Watch" {
				return nil
			}
			refused.Add(1)
			return because(registrypb.ErrorDetail_EXHAUSTED)
		})
		cl.become("fake/cluster-2", cl.nodes[1])
		cl.nodes[0].breakStreams()
		first, second := next(t, w).Err, next(t, w).Err
		if errors.Is(first, ErrExhausted) == errors.Is(second, ErrExhausted) || errors.Is(first, ErrWrongCluster) == errors.Is(second, ErrWrongCluster) {
			t.Errorf("%v, then %v", first, second)
		}
		before := refused.Load()
		eventually(t, "it goes on trying", func() bool { return refused.Load() > before+5 })
		cl.nodes[0].script(nil)
		if e := next(t, w); !e.Recovered {
			t.Errorf("reported again: %v", e.Err)
		}
	})
}

// A lost lease that cannot be registered says so, and again when it is refused.
func TestRefusedRegistrationIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target(), WithCallTimeout(100*time.Millisecond))
		rec := newRecorder()
		register(t, c, service("a", rec.on))
		var refused atomic.Int32
		refuse := func(reason registrypb.ErrorDetail_Reason) {
			cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
				if method != "Register" {
					return nil
				}
				refused.Add(1)
				return because(reason)
			})
		}
		rec.want(t, EventRegistered)
		refuse(registrypb.ErrorDetail_NO_LEADER)
		cl.expire("g", "a")
		rec.want(t, EventLost)
		rec.want(t, EventUnreachable) // no leader, or no answer in time
		for _, tt := range []struct {
			reason registrypb.ErrorDetail_Reason
			want   error
		}{
			{registrypb.ErrorDetail_EXHAUSTED, ErrExhausted},
			{registrypb.ErrorDetail_WRONG_CLUSTER, ErrWrongCluster},
		} {
			refuse(tt.reason)
			rec.next(t, EventUnreachable, tt.want)
			before := refused.Load()
			eventually(t, "it goes on trying", func() bool { return refused.Load() > before+2 })
		}
		cl.nodes[0].script(nil)
		rec.next(t, EventReregistered, nil)
	})
}
