package main

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
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
		r := execute(t, t.Context(), "", append(args, "10ms")...)
		if r.code != exitUnavailable || r.stderr != "registry: no node can be reached\n  "+f.addr+": connection refused\n" {
			t.Errorf("got %+v", r)
		}
	})
}

// A run of which no call succeeds has the exit code of its first error.
func TestBenchWithoutSuccess(t *testing.T) {
	f := withWeb(t)
	f.failWith("Register", codes.Unavailable, registrypb.ErrorDetail_NO_LEADER, "not the leader: none is known")
	r := execute(t, t.Context(), "", "bench", "register", "-callers", "1", "-duration", "10ms")
	if r.code != exitUnavailable || !strings.Contains(r.stdout, "first error: "+f.addr+": not the leader: none is known\n") || r.stderr != "registry: bench register: no call succeeded\n" {
		t.Errorf("without a leader: %+v", r)
	}
	f.failWith("Transfer", codes.FailedPrecondition, registrypb.ErrorDetail_UNSPECIFIED, "no other voter")
	r = execute(t, t.Context(), "", "bench", "failover", "-duration", "10ms")
	if r.code != exitFailure || !strings.Contains(r.stdout, "no other voter") || r.stderr != "registry: bench failover: no call succeeded\n" {
		t.Errorf("without a voter to hand over to: %+v", r)
	}
	r = execute(t, t.Context(), "", "bench", "match", "-callers", "1", "-duration", "10ms")
	if r.code != exitUnavailable || r.stderr != "registry: prepare: "+f.addr+": not the leader: none is known\n" {
		t.Errorf("without a leader, to prepare: %+v", r)
	}
}
