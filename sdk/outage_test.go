package sdk

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A watch that no node can serve says so once, and that it is over.
func TestWatchThatCannotWorkSaysSo(t *testing.T) {
	soon := func(c *config) { c.troubleAfter = 20 * time.Millisecond }
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
						t.Errorf("%s: told twice: %v", name, e.Err)
					}
				}
			}
		})
	}
}

// A ring that gets nothing says so in its statistics.
func TestRingThatGetsNothing(t *testing.T) {
	cl := newFakeWatched(t, 1)
	cl.write("g", memberIDs(3)...)
	r := openRing(t, cl.client(cl.target(), fastProgress, func(c *config) { c.troubleAfter = 20 * time.Millisecond }))
	cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
		if method == "Watch" {
			return because(registrypb.ErrorDetail_NOT_READY)
		}
		return nil
	})
	cl.nodes[0].breakStreams()
	eventually(t, "the outage is told", func() bool { return r.Stats().Outage != nil })
	if s := r.Stats(); !errors.Is(s.Outage, ErrNotReady) || s.Outages != 1 {
		t.Errorf("%+v", s)
	}
	cl.nodes[0].script(nil)
	eventually(t, "it is over", func() bool { return r.Stats().Outage == nil })
}
