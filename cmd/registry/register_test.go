package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// patience is how long a run that hangs is waited for.
const patience = time.Minute

// waits is the -timeout of what cannot succeed, and yet must have got an answer before:
// a busy machine may stall this process for a second.
const waits = "3s"

// lockedBuffer is written to by the program and by the commands that it runs.
type lockedBuffer struct {
	mu      sync.Mutex // guards the rest
	b       bytes.Buffer
	changed chan struct{} // when somebody waits: closed at the next write
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// running is a run of the program that is not over yet.
type running struct {
	t      *testing.T
	cancel context.CancelCauseFunc
	stdout *bufio.Reader
	stderr *lockedBuffer
	code   chan int
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	read, write := io.Pipe()
	r := &running{t: t, cancel: cancel, stdout: bufio.NewReader(read), stderr: new(lockedBuffer), code: make(chan int, 1)}
	go func() {
		r.code <- run(ctx, &env{stdin: strings.NewReader(""), stdout: write, stderr: r.stderr}, args)
		write.Close()
	}()
	watchdog := time.AfterFunc(patience, func() { read.CloseWithError(fmt.Errorf("no end within %v", patience)) })
	t.Cleanup(func() {
		cancel(nil)
		watchdog.Stop()
		read.Close()
		if t.Failed() {
			t.Logf("stderr of %q:\n%s", args, r.stderr)
		}
	})
	return r
}

// until reads stdout up to a line that contains text.
func (r *running) until(text string) {
	r.t.Helper()
	for {
		line, err := r.stdout.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			r.t.Fatalf("no line with %q before %v", text, err)
		}
	}
}

// stderrUntil waits until stderr has text.
func (r *running) stderrUntil(text string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		b := r.stderr
		b.mu.Lock()
		have := b.b.String()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		if strings.Contains(have, text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("stderr has no %q within %v", text, patience)
		}
	}
}

// wait returns the exit code and checks it.
func (r *running) wait(want int) {
	r.t.Helper()
	if _, err := io.Copy(io.Discard, r.stdout); err != nil {
		r.t.Fatal(err)
	}
	if code := <-r.code; code != want {
		r.t.Fatalf("exit code %d, want %d", code, want)
	}
}

func (f *fake) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-f.events:
		if got != want {
			t.Fatalf("the node was asked to %q, want %q", got, want)
		}
	case <-t.Context().Done():
		t.Fatalf("the node was not asked to %q", want)
	}
}

func registerArgs(more ...string) []string {
	return append([]string{"register", "-group", "web", "-id", "w1", "-addr", "127.0.0.1:8080", "-ttl", "1s", "-meta", "zone=a,b"}, more...)
}

func TestRegisterUntilStopped(t *testing.T) {
	f := startFake(t)
	r := start(t, registerArgs("-weight", "3")...)
	f.expect(t, "register web/w1")
	if out := ok(t, "members", "web"); !strings.Contains(out, "w1  127.0.0.1:8080  3       active  1s   zone=a,b") {
		t.Error(out)
	}
	r.stderrUntil("registered at")
	r.cancel(signalCause{syscall.SIGTERM})
	f.expect(t, "deregister web/w1")
	r.wait(exitOK)
}

func TestRegisterConflict(t *testing.T) {
	f := startFake(t)
	f.failWith("Register", codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT, "w1 is at 10.0.0.1:80")
	marker := filepath.Join(t.TempDir(), "ran")
	r := execute(t, t.Context(), "", registerArgs("--", "touch", marker)...)
	if r.code != exitConflict || !strings.Contains(r.stderr, "-take-over") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("the command ran without a registration")
	}
}

// TestRegisterChecksItsArguments: what a node would refuse is refused before one
// is looked for.
func TestRegisterChecksItsArguments(t *testing.T) {
	t.Setenv("REGISTRY_ADDRS", "127.0.0.1:1")
	for _, args := range [][]string{
		{"-addr", "8080"}, {"-addr", ":8080"}, {"-addr", "0.0.0.0:8080"}, {"-addr", "host:0"},
		{"-group", "a/b"}, {"-group", "registry-group"}, {"-id", "a\nb"}, {"-id", strings.Repeat("i", 256)},
		{"-ttl", "999ms"}, {"-ttl", "25h"}, {"-weight", "0"}, {"-weight", "1001"}, {"-weight", "4294967297"},
		{"-meta", "key=" + strings.Repeat("v", 8190)}, {"-meta", "key=\xff"},
	} {
		r := execute(t, t.Context(), "", registerArgs(args...)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, args[0]) {
			t.Errorf("%.40q: exit code %d, %s", args, r.code, r.stderr)
		}
	}
}

// TestRegisterInAnotherCluster: a new cluster at the old addresses takes no
// heartbeats of ours. What to do is said.
func TestRegisterInAnotherCluster(t *testing.T) {
	f := startFake(t)
	r := start(t, registerArgs()...)
	f.expect(t, "register web/w1")
	f.failWith("HeartbeatStream", codes.FailedPrecondition, registrypb.ErrorDetail_WRONG_CLUSTER, "of another cluster")
	r.stderrUntil("web/w1: the nodes that answer are of another cluster; if the cluster was formed anew, restart this command")
	r.cancel(signalCause{syscall.SIGTERM})
	r.wait(exitOK)
	if n := strings.Count(r.stderr.String(), "another cluster"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, r.stderr)
	}
}

// TestCommandStatus: the command's end is ours, and the member is deregistered.
func TestCommandStatus(t *testing.T) {
	f := startFake(t)
	tests := []struct {
		name, script string
		code         int
	}{
		{"success", "cat", exitOK},
		{"status", "exit 42", 42},
		{"killed", "kill -9 $$", 128 + 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := execute(t, t.Context(), "in", registerArgs("--", "sh", "-c", tt.script)...)
			if r.code != tt.code {
				t.Errorf("exit code %d, want %d: %s", r.code, tt.code, r.stderr)
			}
			if tt.code == exitOK && r.stdout != "in" {
				t.Errorf("stdin was not passed on: %q", r.stdout)
			}
			f.expect(t, "register web/w1")
			f.expect(t, "deregister web/w1")
		})
	}
}

// TestCommandGetsNoToken: the token is that of registry, not of the service.
func TestCommandGetsNoToken(t *testing.T) {
	startFake(t)
	token, _, _ := registrypb.MakeToken()
	t.Setenv(tokenVariable, token)
	t.Setenv("OTHER", "here")
	r := execute(t, t.Context(), "", registerArgs("--", "sh", "-c", `echo "${`+tokenVariable+`-none} $OTHER"`)...)
	if r.code != exitOK || r.stdout != "none here\n" {
		t.Errorf("%+v", r)
	}
}

// TestCommandMissing: what cannot run is not registered.
func TestCommandMissing(t *testing.T) {
	f := startFake(t)
	plain := filepath.Join(t.TempDir(), "plain")
	write(t, plain, "no program")
	for command, code := range map[string]int{"no-such-command-here": exitNoCommand, plain: exitNoExec} {
		if r := execute(t, t.Context(), "", registerArgs("--", command)...); r.code != code {
			t.Errorf("%s: %+v", command, r)
		}
	}
	if len(f.events) > 0 {
		t.Errorf("the node was asked to %q", <-f.events)
	}
}

// waiting says "ready" and then waits for a signal, whose name it says. No signal
// is missed: a shell looks for them after each command. One that comes just
// before "read" blocks would be seen only after a line.
const waiting = `trap 'echo got INT; exit 3' INT; trap 'echo got TERM; exit 4' TERM; trap 'echo got HUP' HUP
echo ready; while :; do sleep 0.05; done`

func startWaiting(t *testing.T, f *fake, flags ...string) *running {
	t.Helper()
	r := start(t, registerArgs(append(flags, "--", "sh", "-c", waiting)...)...)
	f.expect(t, "register web/w1")
	r.until("ready")
	return r
}

// TestRegistrationLost: register that lost its id ends its command, and does not
// deregister the one who has it now.
func TestRegistrationLost(t *testing.T) {
	f := startFake(t)
	r := startWaiting(t, f)
	f.failWith("Register", codes.FailedPrecondition, registrypb.ErrorDetail_FENCED, "deregistered by an operator")
	f.mu.Lock()
	f.lost = true
	f.mu.Unlock()
	r.until("got TERM")
	r.wait(exitConflict)
	if !strings.Contains(r.stderr.String(), "web/w1 lost its registration") || len(f.events) > 0 {
		t.Errorf("%d more requests; stderr:\n%s", len(f.events), r.stderr)
	}
}

func TestDeregister(t *testing.T) {
	f := withWeb(t)
	ok(t, "deregister", "-group", "web", "-id", "web-1", "-yes")
	f.expect(t, "deregister web/web-1")
	r := execute(t, t.Context(), "", "deregister", "-group", "web", "-id", "web-1")
	if r.code != exitOK || !strings.Contains(r.stderr, "was not registered") {
		t.Errorf("%+v", r)
	}
}

func TestMemberSet(t *testing.T) {
	withWeb(t)
	r := execute(t, t.Context(), "", "member", "set", "-group", "web", "-id", "web-1", "-weight", "5", "-state", "held", "-for", "1h", "-yes")
	if r.code != exitOK || !strings.Contains(r.stderr, "web/web-1 is held 1h0m0s and has weight 5, group revision ") {
		t.Errorf("%+v", r)
	}
	if out := ok(t, "members", "web"); !strings.Contains(out, "web-1  10.0.0.1:8080  5       held 1h0m0s") {
		t.Error(out)
	}
	for range 2 { // the second one changes nothing, and does not say that it did
		r := execute(t, t.Context(), "", "member", "drain", "-group", "web", "-id", "web-2", "-yes")
		if r.code != exitOK || !strings.Contains(r.stderr, "web/web-2 is draining, group revision ") {
			t.Errorf("%+v", r)
		}
	}
}

func TestGroupSet(t *testing.T) {
	f := withWeb(t)
	r := execute(t, t.Context(), "", "group", "set", "web", "-virtual-nodes", "128")
	if r.code != exitCheck || !strings.Contains(r.stderr, "not done") || f.groups["web"].config.VirtualNodes != 64 {
		t.Errorf("without -yes: %+v", r)
	}
	ok(t, "group", "set", "web", "-virtual-nodes", "128", "-yes")
	ok(t, "group", "set", "web", "-virtual-nodes", "128") // moves nothing
	ok(t, "group", "set", "new", "-bound", "1.25")        // nobody to move from
	writes := f.writes.Load()
	if r := execute(t, t.Context(), "", "group", "set", "web"); r.code != exitOK || !strings.Contains(r.stderr, "group web exists, and neither") || f.writes.Load() != writes {
		t.Errorf("without a flag: %+v", r)
	}
	ok(t, "group", "set", "defaults") // which creates it
	if f.groups["defaults"] == nil {
		t.Error("no group was created")
	}
	if out := ok(t, "group", "get", "web"); !strings.Contains(out, "128") {
		t.Error(out)
	}
	if b := f.groups["new"].config.Bound; b != 1250 {
		t.Errorf("bound %d", b)
	}
	f.failWith("SetGroup", codes.FailedPrecondition, registrypb.ErrorDetail_REVISION_MISMATCH, "changed meanwhile")
	if r := execute(t, t.Context(), "", "group", "set", "web", "-virtual-nodes", "256", "-yes"); r.code != exitConflict {
		t.Errorf("another change in between: %+v", r)
	}
}
