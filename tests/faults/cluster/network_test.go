//go:build linux

package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is two endpoints of which one echoes what the other sends.
func echo(t *testing.T) (n *Network, client, server *Endpoint, conn net.Conn) {
	t.Helper()
	if err := Isolation(); err != nil {
		t.Skipf("no network namespaces: %v", err)
	}
	n = NewNetwork(true, 1)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	var err error
	if client, err = n.Attach(); err != nil {
		t.Fatal(err)
	}
	if server, err = n.Attach(); err != nil {
		t.Fatal(err)
	}
	var ln net.Listener
	err = server.run(func() error { ln, err = net.Listen("tcp4", server.IP.String()+":7"); return err })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c) // until the client closes
		_ = c.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if conn, err = client.Dial(ctx, server.IP.String()+":7"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = ln.Close(); <-ended })
	return n, client, server, conn
}

// trips numbers the bytes that are sent: an echo may come after its trip was given up.
var trips atomic.Uint32

// roundTrip sends a byte and waits for it.
func roundTrip(t *testing.T, conn net.Conn, within time.Duration) (time.Duration, error) {
	t.Helper()
	began := time.Now()
	if err := conn.SetDeadline(began.Add(within)); err != nil {
		t.Fatal(err)
	}
	sent, got := byte(trips.Add(1)), make([]byte, 1)
	if _, err := conn.Write([]byte{sent}); err != nil {
		return 0, err
	}
	for {
		if _, err := io.ReadFull(conn, got); err != nil || got[0] == sent {
			return time.Since(began), err
		}
	}
}

func TestLinks(t *testing.T) {
	n, client, server, conn := echo(t)
	if _, err := roundTrip(t, conn, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	set := func(from, to *Endpoint, l Link) {
		t.Helper()
		if err := n.SetLink(from, to, l); err != nil {
			t.Fatal(err)
		}
	}
	set(client, server, Link{Delay: 60 * time.Millisecond})
	set(server, client, Link{Delay: 60 * time.Millisecond, Jitter: 20 * time.Millisecond})
	if took, err := roundTrip(t, conn, 5*time.Second); err != nil || took < 100*time.Millisecond {
		t.Errorf("with a delay: %v, %v", took, err)
	}
	n.Heal()
	set(client, server, Link{Loss: 0.3})
	for range 20 {
		if _, err := roundTrip(t, conn, 20*time.Second); err != nil {
			t.Fatalf("with loss TCP gets through: %v", err)
		}
	}
	for _, cut := range [][2]*Endpoint{{client, server}, {server, client}} {
		n.Heal()
		set(cut[0], cut[1], Link{Cut: true})
		if took, err := roundTrip(t, conn, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("through a cut from %v: %v, %v", cut[0].IP, took, err)
		}
		n.Heal()
		// What was lost comes again, and late echoes of it.
		if _, err := roundTrip(t, conn, 5*time.Second); err != nil {
			t.Errorf("after the cut: %v", err)
		}
	}
}

func TestLoopbackHasNoLinks(t *testing.T) {
	n := NewNetwork(false, 1)
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	a, err := n.Attach()
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Attach()
	if err != nil {
		t.Fatal(err)
	}
	if a.IP.Equal(b.IP) || !a.IP.IsLoopback() || n.SetLink(a, b, Link{Cut: true}) == nil {
		t.Errorf("%v and %v", a.IP, b.IP)
	}
}

func TestDelayLine(t *testing.T) {
	d, now := newDelayLine(nil), time.Now()
	d.add([]byte("late"), now.Add(3*time.Second))
	d.add([]byte("soon"), now.Add(time.Second))
	if due, wait := d.next(now); len(due) != 0 || wait != time.Second {
		t.Errorf("at once: %q, wait %v", due, wait)
	}
	if due, wait := d.next(now.Add(2 * time.Second)); len(due) != 1 || string(due[0]) != "soon" || wait != time.Second {
		t.Errorf("after 2 s: %q, wait %v", due, wait)
	}
	if due, _ := d.next(now.Add(4 * time.Second)); len(due) != 1 || string(due[0]) != "late" {
		t.Errorf("after 4 s: %q", due)
	}
}
