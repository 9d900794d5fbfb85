package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"time"
)

// What a node tells its supervisor: sd_notify(3).
const (
	notifyReady    = "READY=1"
	notifyAlive    = "WATCHDOG=1"
	notifyStopping = "STOPPING=1"
)

// supervisor is systemd, or another program with its protocol. Without one, nothing is
// told. The protocol is a datagram for each state, which is less than a dependency.
type supervisor struct {
	conn  net.Conn      // nil: nobody asked
	every time.Duration // between the notes that the node is alive; 0: without a watchdog
	log   *slog.Logger
}

// newSupervisor reads the environment that systemd sets.
func newSupervisor(log *slog.Logger) (*supervisor, error) {
	s := &supervisor{log: log}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return s, nil
	}
	// With a WATCHDOG_PID the limit is for that process alone.
	limit, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	if limit != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		usec, err := strconv.ParseInt(limit, 10, 64)
		if err != nil || usec < 2 || usec > math.MaxInt64/1000 {
			return nil, fmt.Errorf("WATCHDOG_USEC is %q, want microseconds", limit)
		}
		s.every = time.Duration(usec) * time.Microsecond / 2
	}
	conn, err := net.Dial("unixgram", path) // "@" begins an abstract name in Go, too
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	s.conn = conn
	return s, nil
}

// tell sends a state. A supervisor that takes nothing for a second misses it.
func (s *supervisor) tell(state string) {
	if s.conn == nil {
		return
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := s.conn.Write([]byte(state)); err != nil {
		s.log.Warn("the supervisor was not told", "state", state, "error", err)
	}
}

func (s *supervisor) close() {
	if s.conn != nil {
		_ = s.conn.Close() // every datagram is sent
	}
}

// supervised is a node that runs.
type supervised interface {
	Ready() <-chan struct{}
	Done() <-chan struct{}
	Alive() error
}

// watch tells the supervisor of the node, and calls reload for each signal, until ctx
// ends or the node does. A node that hangs in Alive, and a loop that hangs in reload,
// miss the watchdog's limit.
func (s *supervisor) watch(ctx context.Context, n supervised, again <-chan os.Signal, reload func()) {
	defer s.tell(notifyStopping)
	var alive <-chan time.Time
	if s.every > 0 {
		ticker := time.NewTicker(s.every)
		defer ticker.Stop()
		alive = ticker.C
	}
	ready := n.Ready()
	for {
		select {
		case <-ready:
			s.tell(notifyReady)
			ready = nil
		case <-alive:
			if err := n.Alive(); err != nil {
				s.log.Error("the node is not alive, the watchdog is not told", "error", err)
			} else {
				s.tell(notifyAlive)
			}
		case <-again:
			reload()
		case <-ctx.Done():
			return
		case <-n.Done():
			return
		}
	}
}
