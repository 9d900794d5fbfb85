package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
)

// lines is what was logged.
type lines struct {
	mu      sync.Mutex // guards the rest
	b       bytes.Buffer
	changed chan struct{} // closed at the next line
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.b.Write(p)
}

// until waits until text was logged n times.
func (l *lines) until(t *testing.T, text string, n int) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		have, changed := l.b.String(), l.changed
		l.mu.Unlock()
		if strings.Count(have, text) >= n {
			return have
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("not %d times %q in:\n%s", n, text, have)
		}
	}
}

func startNode(t *testing.T, addr string) *registry.Node {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.DataDir, cfg.Bind, cfg.Addr, cfg.BootstrapExpect = "n1", t.TempDir(), "127.0.0.1:0", addr, 1
	node, err := registry.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// A person reads one line for each event, and learns that a cluster was formed
// anew in place of the service's.
func TestWebservice(t *testing.T) {
	log := &lines{changed: make(chan struct{})}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	node := startNode(t, "127.0.0.1:0")
	addr := node.Addr()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s := sdk.Service{Group: "web", ID: "w1", Addr: "127.0.0.1:8001", TTL: time.Second}
	serving := func(ctx context.Context, end chan<- error) { end <- run(ctx, addr, "127.0.0.1:0", s, 0) }
	ended := make(chan error, 1)
	go serving(ctx, ended)
	log.until(t, "registered", 1)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	log.until(t, "msg=unreachable", 1)
	anew := startNode(t, addr)
	defer anew.Close()
	have := log.until(t, "formed anew, restart this service", 1)
	if n := strings.Count(have, "\n"); n != 4 { // registered, unreachable for two reasons, what to do
		t.Errorf("%d lines:\n%s", n, have)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("deregistered in a cluster that it is not of")
	}

	again, stop := context.WithCancel(t.Context())
	defer stop()
	go serving(again, ended)
	log.until(t, "msg=registered", 2)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	log.until(t, "msg=deregistered", 1)
}
