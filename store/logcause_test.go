package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// logLines collects log lines by level, and signals one message.
type logLines struct {
	mu    sync.Mutex // guards lines
	lines map[slog.Level][]string

	of   string        // the message to signal
	seen chan struct{} // buffer of 1
}

func newLogLines(of string) *logLines {
	return &logLines{lines: make(map[slog.Level][]string), of: of, seen: make(chan struct{}, 1)}
}

func (l *logLines) Enabled(context.Context, slog.Level) bool { return true }
func (l *logLines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logLines) WithGroup(string) slog.Handler            { return l }

func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	l.lines[r.Level] = append(l.lines[r.Level], line)
	l.mu.Unlock()
	if r.Message == l.of {
		select {
		case l.seen <- struct{}{}:
		default:
		}
	}
	return nil
}

func (l *logLines) aboveInfo() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Concat(l.lines[slog.LevelWarn], l.lines[slog.LevelError]), "\n")
}

// A pooled connection that was idle for idleLimit is closed without a warning.
func TestIdleConnectionsEndWithoutAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newLogLines("failed to decode incoming command")
		c := storetest.New(t, func(cfg *store.Config) {
			store.IdleLimit(cfg, 500*time.Millisecond)
			cfg.ElectionTimeout = time.Second // on a busy machine a missed heartbeat would be a warning
			cfg.CheckInterval = -1
			cfg.Logger = slog.New(log)
		})
		c.Three()
		if err := c.Leader().Transfer(c.Context(), ""); err != nil { // the old leader's connections become idle
			t.Fatal(err)
		}
		select {
		case <-log.seen:
		case <-c.Context().Done():
			t.Fatal("no connection was closed")
		}
		if lines := log.aboveInfo(); lines != "" {
			t.Errorf("logged:\n%s", lines)
		}
	})
}

// causedError is like the errors of raft's codec.
type causedError struct{ cause error }

func (e causedError) Error() string { return "decode error: " + e.cause.Error() }
func (e causedError) Cause() error  { return e.cause }

// The level of a message depends on its cause; with an unknown cause it is unchanged.
func TestLevelsOfRaftsMessages(t *testing.T) {
	t.Parallel()
	reset := causedError{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		msg  string
		args []any
		want slog.Level
	}{
		{"failed to decode incoming command", []any{"error", os.ErrDeadlineExceeded}, slog.LevelDebug},
		{"failed to decode incoming command", []any{"error", reset}, slog.LevelDebug},
		{"failed to decode incoming command", []any{"error", causedError{errors.New("no such byte")}}, slog.LevelError},
		{"failed to appendEntries to", []any{"peer", "n2", "error", io.EOF}, slog.LevelInfo},
		{"failed to appendEntries to", []any{"peer", "n3", "error", refused}, slog.LevelInfo},
		{"failed to appendEntries to", []any{"peer", "n4", "error", errors.New("rejected")}, slog.LevelError},
		{"failed to appendEntries to", []any{"peer", "n5", "error", fmt.Errorf("%w", raft.ErrRaftShutdown)}, slog.LevelInfo},
		{"failed to get previous log", []any{"error", raft.ErrLogNotFound}, slog.LevelInfo},
		{"failed to get previous log", []any{"error", store.ErrCorrupt}, slog.LevelError},
		{"failed to contact", []any{"server-id", "n2"}, slog.LevelError},
		{"heartbeat timeout reached, starting election", []any{"last-leader-addr", raft.ServerAddress("")}, slog.LevelInfo},
		{"heartbeat timeout reached, starting election", []any{"last-leader-addr", raft.ServerAddress("n1:1")}, slog.LevelError},
	} {
		log := newLogLines("")
		store.RaftLogger(slog.New(log)).Error(c.msg, c.args...)
		if len(log.lines[c.want]) != 1 {
			t.Errorf("%s %v: logged %v, want it at %v", c.msg, c.args, log.lines, c.want)
		}
	}
}

// Split votes are no warning; an election that does not end is.
func TestElectionThatDoesNotEndIsAWarning(t *testing.T) {
	t.Parallel()
	log := newLogLines("")
	logger := store.RaftLogger(slog.New(log))
	for range 2 {
		logger.Warn("heartbeat timeout reached, starting election", "last-leader-addr", "")
		for range 10 {
			logger.Warn("Election timeout reached, restarting election")
		}
	}
	if lines := log.aboveInfo(); lines != "Election timeout reached, restarting election" {
		t.Errorf("logged above INFO: %q", lines)
	}
}

// raft's keys are rewritten, its values are not.
func TestRaftsKeysAreSnakeCase(t *testing.T) {
	t.Parallel()
	log := newLogLines("")
	store.RaftLogger(slog.New(log)).Info("election", "last-leader-addr", "node-1:7370", "backoff time", "a b", "votesNeeded", 2)
	if got := log.lines[slog.LevelInfo]; len(got) != 1 || got[0] != "election last_leader_addr=node-1:7370 backoff_time=a b votes_needed=2" {
		t.Errorf("logged %q", got)
	}
}
