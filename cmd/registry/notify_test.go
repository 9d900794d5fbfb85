package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// notified is the supervisor's end.
type notified struct {
	t    *testing.T
	conn *net.UnixConn
}

// supervise makes the supervisor of what this test starts.
func supervise(t *testing.T, path string) notified {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no datagrams on unix sockets")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return notified{t, conn}
}

// socketPath is short enough for a socket everywhere.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// next is the next state that was told.
func (n notified) next() string {
	n.t.Helper()
	state := make([]byte, 100)
	if err := n.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		n.t.Fatal(err)
	}
	size, err := n.conn.Read(state)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(state[:size])
}

// until returns what was told up to a state, which comes.
func (n notified) until(last string) (told []string) {
	n.t.Helper()
	for {
		state := n.next()
		if told = append(told, state); state == last {
			return told
		}
	}
}

// fakeNode is a node whose state a test sets.
type fakeNode struct {
	ready, done chan struct{}
	alive       func() error
}

func (n *fakeNode) Ready() <-chan struct{} { return n.ready }
func (n *fakeNode) Done() <-chan struct{}  { return n.done }
func (n *fakeNode) Alive() error           { return n.alive() }

func watched(t *testing.T, n *fakeNode) (stop func()) {
	t.Helper()
	s, err := newSupervisor(slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer s.close()
		s.watch(ctx, n, nil, nil)
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func newFakeNode(alive func() error) *fakeNode {
	return &fakeNode{ready: make(chan struct{}), done: make(chan struct{}), alive: alive}
}

// A node that is alive and not ready says so, in this order.
func TestSupervisorHearsOfReadinessWhenTheNodeIsReady(t *testing.T) {
	s := supervise(t, socketPath(t))
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n := newFakeNode(func() error { return nil })
	stop := watched(t, n)
	for range 3 {
		if state := s.next(); state != notifyAlive {
			t.Fatalf("%s of a node that is not ready", state)
		}
	}
	close(n.ready)
	s.until(notifyReady)
	s.until(notifyAlive)
	stop()
	if told := s.until(notifyStopping); slices.Contains(told, notifyReady) {
		t.Errorf("ready again: %q", told)
	}
}

func TestSupervisorHearsNothingOfANodeThatIsNotAlive(t *testing.T) {
	s := supervise(t, socketPath(t))
	t.Setenv("WATCHDOG_USEC", "2000")
	n := newFakeNode(nil)
	asked := 0
	n.alive = func() error {
		if asked++; asked == 3 {
			close(n.done)
		}
		return errors.New("ill")
	}
	watched(t, n)
	if state := s.next(); state != notifyStopping {
		t.Errorf("told %s", state)
	}
}

// Only the limit of this process counts, and none is no watchdog.
func TestSupervisorWithoutAWatchdog(t *testing.T) {
	for name, env := range map[string][2]string{
		"no limit":           {"", ""},
		"of another process": {"2000", strconv.Itoa(os.Getppid())},
	} {
		s := supervise(t, socketPath(t))
		t.Setenv("WATCHDOG_USEC", env[0])
		t.Setenv("WATCHDOG_PID", env[1])
		made, err := newSupervisor(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if made.every != 0 {
			t.Errorf("%s: every %s", name, made.every)
		}
		made.tell(notifyReady)
		made.close()
		if state := s.next(); state != notifyReady {
			t.Errorf("%s: %s", name, state)
		}
	}
}

func TestSupervisorThatCannotBe(t *testing.T) {
	supervise(t, socketPath(t))
	for _, limit := range []string{"1", "-1", "ten", "18446744073709551615"} {
		t.Setenv("WATCHDOG_USEC", limit)
		if _, err := newSupervisor(slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("a limit of %s", limit)
		}
	}
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("NOTIFY_SOCKET", socketPath(t))
	if _, err := newSupervisor(slog.New(slog.DiscardHandler)); err == nil {
		t.Error("nobody listens")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := newSupervisor(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.tell(notifyReady)
	s.close()
}

// A node tells the supervisor, also one with an abstract address, as Linux has them.
func TestServeTellsItsSupervisor(t *testing.T) {
	path := socketPath(t)
	if runtime.GOOS == "linux" {
		path = "@" + path
	}
	s := supervise(t, path)
	t.Setenv("WATCHDOG_USEC", "20000")
	bind, addr := freePorts(t, 1), freePorts(t, 1)
	r := serveNode(t, t.TempDir(), "n1", bind, addr)
	s.until(notifyReady)
	ok(t, "health", "-addr", local(addr))
	s.until(notifyAlive)
	r.cancel(nil)
	s.until(notifyStopping)
	r.wait(exitOK)
}
