package store_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// A node is alive before it is ready, and after that until it is closed.
func TestAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		n := c.Open("a")
		if err := n.Alive(); err != nil || n.IsReady() {
			t.Errorf("ready %t: %v", n.IsReady(), err)
		}
		n.Stop()
		if err := n.Alive(); !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
}

// A node whose status hangs is not alive.
func TestAliveHangsWithTheStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		locked := make(chan struct{})
		c := storetest.New(t, func(cfg *store.Config) {
			cfg.Alarms = func() []string { <-locked; return nil }
		})
		n, said := c.Open("a"), make(chan error, 1)
		go func() { said <- n.Alive() }()
		synctest.Wait()
		select {
		case err := <-said:
			t.Errorf("alive: %v", err)
			said <- nil
		default:
		}
		close(locked)
		if err := <-said; err != nil {
			t.Error(err)
		}
	})
}
