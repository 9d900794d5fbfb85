package store

import (
	"testing"

	"github.com/werbenhu/registry/fsm"
)

// An entry that leaves the level wakes nobody: there are thousands a second.
func TestLevelIsSignalledOnce(t *testing.T) {
	w := newLevelWatch()
	signals := func(st *fsm.State) (n int) {
		for range 3 {
			w.Applied(&fsm.Update{State: st})
			w.Restored(st)
			select {
			case <-w.raised:
				n++
			default:
			}
		}
		return n
	}
	first := fsm.New().State()
	for _, tt := range []struct {
		state *fsm.State
		want  int
	}{{first, 0}, {first.WithLevel(2), 1}, {first.WithLevel(2), 0}} {
		if got := signals(tt.state); got != tt.want {
			t.Errorf("level %d: %d signals, want %d", tt.state.FeatureLevel(), got, tt.want)
		}
	}
}
