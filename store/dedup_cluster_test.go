package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

func setWeight(group, id string, weight uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{Group: group, Id: id, Weight: weight}}}
}

// TestCallTakesEffectOnce: a node whose leader died with its answer attempts
// the call again at the next one. Meanwhile another call was acknowledged; it
// must not be undone.
func TestCallTakesEffectOnce(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Three()
	call := store.Request{ID: []byte("a call of a test"), Since: c.Leader().State().Index()}
	old := c.Leader()
	first, err := old.WriteOnce(c.Context(), register("web", "a", time.Minute), call)
	if err != nil {
		t.Fatal(err)
	}
	c.AwaitSame()
	old.Stop()
	c.Write(setWeight("web", "a", 7))
	call.Again = true
	again, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Minute), call)
	if err != nil || again.Index != first.Index || again.LeaseID != first.LeaseID {
		t.Errorf("the further attempt: %+v, %v, the first: %+v", again, err, first)
	}
	if m := member(c.Leader().State(), "web", "a"); m.Weight != 7 {
		t.Errorf("the further attempt undid an acknowledged update: weight %d", m.Weight)
	}
	call.Hash++
	if r, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Hour), call); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("the same id with other values: %+v, %v", r, err)
	}
	call.ID = call.ID[1:]
	if r, err := c.Leader().WriteOnce(c.Context(), register("web", "a", time.Minute), call); !errors.Is(err, fsm.ErrInvalid) {
		t.Errorf("an id of 15 bytes: %+v, %v", r, err)
	}
	// Another call of the same process does what it says.
	c.Write(register("web", "a", time.Minute))
	if m := member(c.Leader().State(), "web", "a"); m.Weight != 1 {
		t.Errorf("a registration leaves the weight at %d", m.Weight)
	}
}

// TestCallFromBeforeASnapshot: a leader that started from a snapshot does not
// know which calls that holds, and says so.
func TestCallFromBeforeASnapshot(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	n := c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	call := store.Request{ID: []byte("a call of a test"), Since: n.State().Index()}
	if _, err := n.WriteOnce(c.Context(), register("web", "a", time.Minute), call); err != nil {
		t.Fatal(err)
	}
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	n.Stop()
	n = c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	call.Again = true
	if r, err := n.WriteOnce(c.Context(), register("web", "a", time.Minute), call); !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Errorf("a call that the snapshot may hold: %+v, %v", r, err)
	}
}
