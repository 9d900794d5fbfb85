package main

import (
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

func TestHoldDrainResume(t *testing.T) {
	f := withWeb(t)
	ok(t, "member", "hold", "-group", "web", "-id", "web-1", "-for", "90s")
	f.expect(t, "hold web/web-1 for 1m30s")
	if out := ok(t, "members", "web"); !strings.Contains(out, "web-1  10.0.0.1:8080  1       held 1m30s") {
		t.Error(out)
	}
	if out := ok(t, "members", "-json", "web"); !strings.Contains(out, `"hold": "1m30s"`) {
		t.Error(out)
	}
	ok(t, "member", "resume", "-group", "web", "-id", "web-1")
	if out := ok(t, "members", "web"); !strings.Contains(out, "web-1  10.0.0.1:8080  1       active") {
		t.Error(out)
	}
	ok(t, "member", "drain", "-group", "web", "-id", "web-1", "-yes")
	if out := ok(t, "members", "web"); !strings.Contains(out, "web-1  10.0.0.1:8080  1       draining") {
		t.Error(out)
	}
	for _, args := range [][]string{
		{"member", "hold", "-group", "web", "-id", "web-1"},
		{"member", "hold", "-group", "web", "-id", "web-1", "-for", "0s"},
		{"member", "hold", "-group", "web", "-for", "1m"},
		{"member", "drain", "-id", "web-1"},
		{"member", "resume", "-group", "web", "-id", "web-1", "more"},
	} {
		if r := execute(t, t.Context(), "", args...); r.code != exitUsage {
			t.Errorf("%q: exit code %d", args, r.code)
		}
	}
}

// match says of every key of a held member who stands in, and of no other's.
func TestMatchNamesTheFallback(t *testing.T) {
	withWeb(t)
	keys := []string{"match", "web", "a", "b", "c", "d", "e", "f", "g", "h"}
	if out := ok(t, keys...); strings.Contains(out, "fallback") {
		t.Errorf("nobody is held:\n%s", out)
	}
	ok(t, "member", "hold", "-group", "web", "-id", "web-1", "-for", "30s")
	out := ok(t, keys...)
	for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
		owned := strings.Contains(line, "web-1  10.0.0.1:8080")
		if owned != strings.HasSuffix(line, "held, fallback web-2 at 10.0.0.2:8080") {
			t.Error(line)
		}
	}
	if !strings.Contains(out, "fallback") {
		t.Error("none of the keys is the held member's")
	}
	if out := ok(t, append([]string{"match", "-json"}, keys[1:]...)...); !strings.Contains(out, `"fallback": {`) {
		t.Error(out)
	}
}

func TestHoldOnExit(t *testing.T) {
	t.Run("without a command", func(t *testing.T) {
		f := startFake(t)
		r := start(t, registerArgs("-hold-on-exit", "30s")...)
		f.expect(t, "register web/w1")
		r.stderrUntil("registered at")
		r.cancel(signalCause{syscall.SIGTERM})
		f.expect(t, "hold web/w1 for 30s")
		r.wait(exitOK)
		if len(f.events) > 0 || !strings.Contains(r.stderr.String(), "web/w1 held for 30s") {
			t.Errorf("then it was asked to %q", <-f.events)
		}
	})
	t.Run("with one, before it is told to end", func(t *testing.T) {
		f := startFake(t)
		r := startWaiting(t, f, "-hold-on-exit", "30s")
		f.mu.Lock() // nothing is answered
		r.cancel(signalCause{syscall.SIGTERM})
		if len(f.events) > 0 {
			t.Error("it did not wait for the hold")
		}
		f.mu.Unlock()
		f.expect(t, "hold web/w1 for 30s")
		r.until("got TERM") // by the signal alone: its registration is not lost
		r.wait(4)
		if len(f.events) > 0 {
			t.Errorf("then it was asked to %q", <-f.events)
		}
	})
	t.Run("with one that ends by itself", func(t *testing.T) {
		f := startFake(t)
		r := start(t, registerArgs("-hold-on-exit", "30s", "--", "sh", "-c", "exit 7")...)
		f.expect(t, "register web/w1")
		f.expect(t, "hold web/w1 for 30s")
		r.wait(7)
	})
	t.Run("that is refused", func(t *testing.T) {
		f := startFake(t)
		f.failWith("UpdateMember", codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT, "it drains")
		r := start(t, registerArgs("-hold-on-exit", "30s")...)
		f.expect(t, "register web/w1")
		r.stderrUntil("registered at")
		r.cancel(signalCause{syscall.SIGTERM})
		f.expect(t, "deregister web/w1")
		r.wait(exitOK)
	})
	t.Run("that is shorter than the TTL", func(t *testing.T) {
		f := startFake(t)
		r := start(t, registerArgs("-ttl", "10s", "-hold-on-exit", "5s")...)
		f.expect(t, "register web/w1")
		r.stderrUntil("registered at")
		r.cancel(signalCause{syscall.SIGTERM})
		f.expect(t, "hold web/w1 for 5s")
		r.wait(exitOK)
		if !strings.Contains(r.stderr.String(), "web/w1 held for 10s") { // what the lease lasts
			t.Error(r.stderr)
		}
	})
	t.Run("out of its limits", func(t *testing.T) {
		startFake(t)
		for _, d := range []string{"0s", "999ms", "25h", "-1s"} {
			if r := execute(t, t.Context(), "", registerArgs("-hold-on-exit", d)...); r.code != exitUsage || !strings.Contains(r.stderr, "hold-on-exit") {
				t.Errorf("%s: %+v", d, r)
			}
		}
	})
}

// A member that an operator holds stays when its process ends, and is not called
// deregistered.
func TestEndOfAHeldMember(t *testing.T) {
	f := startFake(t)
	r := start(t, registerArgs()...)
	f.expect(t, "register web/w1")
	r.stderrUntil("registered at")
	ok(t, "member", "hold", "-group", "web", "-id", "w1", "-for", "90s")
	f.expect(t, "hold web/w1 for 1m30s")
	r.cancel(signalCause{syscall.SIGTERM})
	f.expect(t, "deregister web/w1") // if it is not held
	r.wait(exitOK)
	if says := r.stderr.String(); !strings.Contains(says, "web/w1 held for 1m30s") || strings.Contains(says, "deregistered") {
		t.Error(says)
	}
	if out := ok(t, "members", "web"); !strings.Contains(out, "held 1m30s") {
		t.Error(out)
	}
}

// A member that was not removed, and of which no node says whether it is held, is a
// failure.
func TestEndOfAMemberThatMayBeHeld(t *testing.T) {
	f := startFake(t)
	r := start(t, registerArgs()...)
	f.expect(t, "register web/w1")
	r.stderrUntil("registered at")
	ok(t, "member", "hold", "-group", "web", "-id", "w1", "-for", "90s")
	f.expect(t, "hold web/w1 for 1m30s")
	f.failWith("Members", codes.ResourceExhausted, registrypb.ErrorDetail_EXHAUSTED, "too much")
	r.cancel(signalCause{syscall.SIGTERM})
	f.expect(t, "deregister web/w1") // if it is not held
	r.wait(exitFailure)
	if says := r.stderr.String(); !strings.Contains(says, "w1 not deregistered, it goes when its TTL or its hold is over: it may be held: ") {
		t.Error(says)
	}
}

// A change that leaves nobody to serve says so.
func TestDrainOfTheLastThatServes(t *testing.T) {
	withWeb(t) // web-3 drains already
	ok(t, "member", "hold", "-group", "web", "-id", "web-1", "-for", "90s")
	for _, args := range [][]string{{"member", "drain"}, {"member", "set", "-state", "draining"}, {"deregister"}} {
		r := execute(t, t.Context(), "", append(args, "-group", "web", "-id", "web-2")...)
		if r.code != exitCheck || !strings.Contains(r.stderr, "only 1 held member would be left, which does not serve") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	ok(t, "member", "resume", "-group", "web", "-id", "web-1")
	if r := execute(t, t.Context(), "", "member", "drain", "-group", "web", "-id", "web-2"); r.code != exitCheck || strings.Contains(r.stderr, "left") {
		t.Errorf("%+v", r)
	}
}
