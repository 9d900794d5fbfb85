package store_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

func setWeight(group, id string, weight uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{Group: group, Id: id, Weight: weight}}}
}

// TestRequestTakesEffectOnce: a leader stops before it answers, and the request is
// retried on the next one. Meanwhile another write was acknowledged, which the
// retry must not undo.
func TestRequestTakesEffectOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		request := store.Request{ID: []byte("a call of a test"), Since: c.Leader().State().Index()}
		old := c.Leader()
		first, err := old.WriteOnce(c.Context(), register("web", "a", time.Minute), request)
		if err != nil {
			t.Fatal(err)
		}
		c.AwaitSame()
		old.Stop()
		c.Write(setWeight("web", "a", 7))
		request.Again = true
		again, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Minute), request)
		if err != nil || again.Index != first.Index || again.LeaseID != first.LeaseID {
			t.Errorf("the retry: %+v, %v, the first: %+v", again, err, first)
		}
		if m := member(c.Leader().State(), "web", "a"); m.Weight != 7 {
			t.Errorf("the retry undid an acknowledged update: weight %d", m.Weight)
		}
		request.Hash++
		if r, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Hour), request); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("the same id with other values: %+v, %v", r, err)
		}
		request.ID = request.ID[1:]
		if r, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Minute), request); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("an id of 15 bytes: %+v, %v", r, err)
		}
		// A write without a request id is not deduplicated.
		c.Write(register("web", "a", time.Minute))
		if m := member(c.Leader().State(), "web", "a"); m.Weight != 1 {
			t.Errorf("a registration leaves the weight at %d", m.Weight)
		}
	})
}

// TestRequestFromBeforeASnapshot: a leader that started from a snapshot cannot tell
// which requests the snapshot includes, and returns ErrOutcomeUnknown.
func TestRequestFromBeforeASnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		request := store.Request{ID: []byte("a call of a test"), Since: n.State().Index()}
		if _, err := n.WriteOnce(c.Context(), register("web", "a", time.Minute), request); err != nil {
			t.Fatal(err)
		}
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		n.Stop()
		n = c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		request.Again = true
		if r, err := n.WriteOnce(c.Context(), register("web", "a", time.Minute), request); !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Errorf("a request that the snapshot may include: %+v, %v", r, err)
		}
	})
}
