package sdk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A write names an index that was observed shortly before, whenever the client
// last heard of one.
func TestWriteNamesARecentIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		var since []uint64
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			since = append(since, req.(*registrypb.SetGroupRequest).Since)
			return nil
		})
		write := func() {
			t.Helper()
			if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); err != nil {
				t.Fatal(err)
			}
		}
		write()
		write()
		cl.mu.Lock()
		cl.index += 1000 // others write
		now := cl.index
		cl.mu.Unlock()
		c.seenAt.Store(int64(time.Since(c.began) - sinceAge))
		write()
		if len(since) != 3 || since[0] == 0 || since[1] < since[0] || since[1] >= now || since[2] != now {
			t.Errorf("writes name the indexes %v, the last must be %d", since, now)
		}
	})
}

// A leader that remembers less refuses the index; the call is made with another
// id and a newer one, once.
func TestWriteWithAForgottenIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		refusals := 1
		ids := map[string]bool{}
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			ids[string(req.(*registrypb.SetGroupRequest).RequestId)] = true
			if len(ids) <= refusals {
				return failing(codes.InvalidArgument, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_INVALID_ARGUMENT, Field: "since", Limit: "at least 9"})
			}
			return nil
		})
		if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); err != nil || len(ids) != 2 {
			t.Errorf("%v after %d ids", err, len(ids))
		}
		refusals = 99
		if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); !errors.Is(err, ErrInvalidArgument) || len(ids) != 4 {
			t.Errorf("%v after %d ids", err, len(ids))
		}
	})
}

// Where no attempt can tell what became of the call, there is no further one.
func TestForgottenOutcomeEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		calls := 0
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error {
				calls++
				return failing(codes.Unknown, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_OUTCOME_UNKNOWN, Field: "since"})
			})
		}
		if _, err := c.SetGroup(testContext(t), SetGroup{Group: "g"}); !errors.Is(err, ErrOutcomeUnknown) || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}
