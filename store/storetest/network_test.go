package storetest

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns both ends of a connection from a to b.
func connect(t *testing.T, n *Network) (a, b net.Conn) {
	t.Helper()
	ln, err := n.Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	a, err = n.Dial("a:1", "b:1", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return a, <-accepted
}

// read returns what comes within a second.
func read(t *testing.T, c net.Conn) (string, error) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func TestCutAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a, b := connect(t, n)
		n.Cut("a:1", "b:1")
		_, _ = a.Write([]byte("delayed"))
		_, _ = b.Write([]byte("back"))
		if got, err := read(t, a); got != "back" || err != nil {
			t.Errorf("the open direction: %q, %v", got, err)
		}
		if got, err := read(t, b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the cut direction: %q, %v", got, err)
		}
		if _, err := n.Dial("a:1", "b:1", time.Second); err == nil {
			t.Error("connected across a cut")
		}
		n.Heal()
		if got, err := read(t, b); got != "delayed" || err != nil {
			t.Errorf("after the heal: %q, %v", got, err)
		}
		n.Isolate("b:1")
		_ = a.Close()
		if got, err := read(t, b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an isolated end sees a close: %q, %v", got, err)
		}
		n.Join("b:1")
		if _, err := read(t, b); err != io.EOF {
			t.Errorf("after it joined: %v, want the close", err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed end")
		}
		_ = b.Close()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from a closed end: %v", err)
		}
	})
}

func TestCrashLosesWhatIsOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a, b := connect(t, n)
		n.Cut("a:1", "b:1")
		_, _ = a.Write([]byte("lost"))
		n.Crash("a:1")
		n.Heal("a:1")
		if got, err := read(t, b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("while the address is isolated: %q, %v", got, err)
		}
		n.Join("a:1")
		if got, err := read(t, b); err != io.EOF {
			t.Errorf("after it joined: %q, %v, want the end", got, err)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("the crashed end writes")
		}
		_ = a.Close()
		_ = b.Close()
	})
}

func TestDeadlineMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a, b := connect(t, n)
		start := time.Now()
		_ = b.SetReadDeadline(start.Add(time.Hour))
		go func() {
			<-time.After(time.Second)
			_ = b.SetReadDeadline(time.Now())
		}()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		_ = a.Close()
		_ = b.Close()
	})
}

func TestDialIsRefusedWithoutAListener(t *testing.T) {
	n := NewNetwork()
	if _, err := n.Dial("a:1", "b:1", time.Second); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
	ln, err := n.Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("b:1"); err == nil {
		t.Error("two listeners at one address")
	}
	_ = ln.Close()
	if _, err := n.Listen("b:1"); err != nil {
		t.Errorf("a freed address: %v", err)
	}
}
