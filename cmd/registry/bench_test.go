package main

import (
	"context"
	"syscall"
	"testing"
)

// A run leaves no groups behind, also when it is stopped at any moment.
func TestBenchCleansUp(t *testing.T) {
	args := []string{"bench", "heartbeat", "-groups", "3", "-members", "2", "-callers", "2", "-duration"}
	left := func(t *testing.T, f *fake) {
		t.Helper()
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.groups) != 1 || f.groups["web"] == nil {
			t.Errorf("%d groups are left, want web alone", len(f.groups))
		}
	}
	t.Run("to the end", func(t *testing.T) {
		f := withWeb(t)
		ok(t, append(args, "10ms")...)
		left(t, f)
	})
	t.Run("while a node is away for a moment", func(t *testing.T) {
		f := withWeb(t)
		f.away = 2
		ok(t, append(args, "10ms")...)
		left(t, f)
	})
	for name, registered := range map[string]int{"stopped while it prepares": 1, "stopped while it measures": 6} {
		t.Run(name, func(t *testing.T) {
			f := withWeb(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan result, 1)
			go func() { done <- execute(t, ctx, "", append(args, "10m")...) }()
			for range registered {
				<-f.events
			}
			cancel(signalCause{syscall.SIGINT})
			r := <-done
			t.Logf("%+v", r)
			left(t, f)
		})
	}
	t.Run("no node answers", func(t *testing.T) {
		f := withWeb(t)
		f.stop()
		if r := execute(t, t.Context(), "", append(args, "10ms")...); r.code == exitOK {
			t.Errorf("got %+v", r)
		}
	})
}
