package sdk

import (
	"errors"
	"testing"
	"testing/synctest"
)

// Published signals another view: after a change, and at the end.
func TestRingPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(3)...)
		r, err := cl.client(cl.target()).Ring(testContext(t), "g")
		if err != nil {
			t.Fatal(err)
		}
		view, changed := r.Published()
		for n := 4; n <= 6; n++ {
			revision := cl.write("g", memberIDs(n)...)
			for view.Revision() != revision {
				select {
				case <-changed:
				case <-testContext(t).Done():
					t.Fatal("the change is not published")
				}
				view, changed = r.Published()
			}
			if len(view.Members()) != n {
				t.Errorf("%d members, want %d", len(view.Members()), n)
			}
		}
		_ = r.Close()
		<-changed
		if view, _ := r.Published(); !errors.Is(view.Err(), ErrClosed) {
			t.Errorf("the last view says %v", view.Err())
		}
	})
}
