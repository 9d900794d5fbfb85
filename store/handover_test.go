package store_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A transfer without a target chooses a voter that answers.
func TestTransferChoosesARunningVoter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, dead := range []string{"n2", "n3"} {
			c := storetest.New(t)
			c.Three()
			leader := leading(t, c, "n1")
			c.AwaitSame()
			c.Node(dead).Kill()
			if err := leader.Transfer(c.Context(), ""); err != nil {
				t.Errorf("with %s down: %v", dead, err)
			}
		}
	})
}

// Attempts to transfer to a voter that is down fail, and the leader goes on.
func TestTransferToAVoterThatIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := leading(t, c, "n1")
		c.Node("n3").Kill()
		c.Write(setGroup("web", 64)) // which n3 lacks
		elapse(t, time.Now().Add(10*time.Second))
		for range 2 {
			if err := leader.Transfer(c.Context(), "n3"); !errors.Is(err, store.ErrBusy) {
				t.Errorf("got %v, want ErrBusy", err)
			}
			elapse(t, time.Now().Add(time.Second))
		}
		if _, err := leader.Write(c.Context(), setGroup("web", 128)); err != nil {
			t.Errorf("a write after it: %v", err)
		}
	})
}
