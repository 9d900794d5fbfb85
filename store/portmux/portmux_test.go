package portmux

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections the test creates.
type pipes struct {
	conns  chan net.Conn
	fail   chan error
	once   sync.Once
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), fail: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.fail:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7370} }

// dial returns the client's end of a new connection.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

var (
	raftTest = Protocol{Prefix: "R", Strip: true, ALPN: "raft"}
	grpcTest = Protocol{Prefix: "PRI ", ALPN: "h2"}
)

type setup struct {
	*Mux
	*pipes
	raft, grpc, rest net.Listener
	served           chan error
}

func (s *setup) Close() error { return s.Mux.Close() }

// bubble runs a mux with three routes, in virtual time.
func bubble(t *testing.T, maxConns int, f func(t *testing.T, s *setup)) {
	bubbleOf(t, maxConns, func(*Mux) any { return nil }, func(t *testing.T, s *setup, _ any) { f(t, s) })
}

// bubbleOf lets prepare change the mux before it serves.
func bubbleOf[T any](t *testing.T, maxConns int, prepare func(*Mux) T, f func(*testing.T, *setup, T)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		s := &setup{Mux: New(p, maxConns), pipes: p, served: make(chan error, 1)}
		with := prepare(s.Mux)
		s.raft, s.grpc, s.rest = s.Route(raftTest), s.Route(grpcTest), s.Fallback()
		go func() { s.served <- s.Serve() }()
		f(t, s, with)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case err := <-s.served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		default:
			t.Error("Serve runs after Close")
		}
	})
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send writes in pieces and closes. The last piece must go beyond the prefix: a pipe
// whose other end is closed accepts no deadline.
func send(c net.Conn, pieces ...string) {
	for _, p := range pieces {
		_, _ = c.Write([]byte(p))
	}
	_ = c.Close()
}

func TestRoutes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pieces []string
		to     func(*setup) net.Listener
		reads  string
	}{
		{"stripped prefix", []string{"Rhello"}, func(s *setup) net.Listener { return s.raft }, "hello"},
		{"kept prefix", []string{"PRI * HTTP/2.0"}, func(s *setup) net.Listener { return s.grpc }, "PRI * HTTP/2.0"},
		{"byte by byte", []string{"P", "R", "I", " ", "x"}, func(s *setup) net.Listener { return s.grpc }, "PRI x"},
		{"other", []string{"GET / HTTP/1.1"}, func(s *setup) net.Listener { return s.rest }, "GET / HTTP/1.1"},
		{"first byte of a prefix", []string{"PUT /v1"}, func(s *setup) net.Listener { return s.rest }, "PUT /v1"},
		{"most of a prefix", []string{"PRI", "XY"}, func(s *setup) net.Listener { return s.rest }, "PRIXY"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, 10, func(t *testing.T, s *setup) {
				go send(s.dial(), tc.pieces...)
				c := accept(t, tc.to(s))
				// One byte at a time, then the rest: the head comes first.
				var first [1]byte
				if _, err := io.ReadFull(c, first[:]); err != nil {
					t.Fatal(err)
				}
				rest, err := io.ReadAll(c)
				if got := string(first[:]) + string(rest); err != nil || got != tc.reads {
					t.Errorf("read %q, %v, want %q", got, err, tc.reads)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestNoRouteAndNoFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		m := New(p, 10)
		m.Route(raftTest)
		go func() { _ = m.Serve() }()
		c := p.dial()
		_, _ = c.Write([]byte("G"))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection without a route: %v", err)
		}
		_ = m.Close()
	})
}

func TestSlowAndSilentConnections(t *testing.T) {
	bubble(t, 10, func(t *testing.T, s *setup) {
		slow, silent, half := s.dial(), s.dial(), s.dial()
		_, _ = half.Write([]byte("PR"))
		start := time.Now()
		go func() {
			<-time.After(SniffTimeout - time.Second)
			_, _ = slow.Write([]byte("Rx"))
		}()
		c := accept(t, s.raft)
		for name, conn := range map[string]net.Conn{"silent": silent, "half": half} {
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != SniffTimeout {
				t.Errorf("%s: %v after %s, want to be closed after %s", name, err, time.Since(start), SniffTimeout)
			}
		}
		// An accepted connection has no deadline.
		<-time.After(2 * SniffTimeout)
		go send(slow, "y")
		if got, err := io.ReadAll(c); string(got) != "xy" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		_ = c.Close()
	})
}

func TestCloseClosesUnacceptedConnections(t *testing.T) {
	bubble(t, 10, func(t *testing.T, s *setup) {
		silent, unclaimed, handed := s.dial(), s.dial(), s.dial()
		_, _ = unclaimed.Write([]byte("R"))
		_, _ = handed.Write([]byte("G"))
		c := accept(t, s.rest)
		synctest.Wait()
		start := time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name, conn := range map[string]net.Conn{"silent": silent, "unclaimed": unclaimed} {
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("it took %s", time.Since(start))
		}
		if _, err := s.raft.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		go send(handed, "ET")
		if got, err := io.ReadAll(c); string(got) != "GET" || err != nil {
			t.Errorf("an accepted connection reads %q, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// A connection that is accepted just before Close and read just after it is closed too;
// otherwise Serve would wait for SniffTimeout.
func TestConnectionAcceptedDuringClose(t *testing.T) {
	bubble(t, 10, func(t *testing.T, s *setup) {
		if err := s.Mux.Close(); err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		start := time.Now()
		s.sniff(s.limiter.Admit(there))
		if _, err := here.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestRouteClosesAlone(t *testing.T) {
	bubble(t, 10, func(t *testing.T, s *setup) {
		_ = s.raft.Close()
		_ = s.raft.Close()
		c := s.dial()
		_, _ = c.Write([]byte("R"))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection for a closed route: %v", err)
		}
		go send(s.dial(), "GET")
		_ = accept(t, s.rest).Close()
	})
}

func TestTemporaryAcceptFailure(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *setup) {
		for range 5 { // more than the limit
			s.fail <- errors.New("too many open files")
		}
		go send(s.dial(), "Rx")
		_ = accept(t, s.raft).Close()
	})
}

func TestListenerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		m := New(p, 1)
		_ = p.Close()
		if err := m.Serve(); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "accept") {
			t.Errorf("got %v", err)
		}
		_ = m.Close()
	})
}

// The same over TCP, once.
func TestOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := New(ln, 10)
	raft := m.Route(raftTest)
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	c, err := net.Dial("tcp", raft.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go send(c, "Rhello")
	in := accept(t, raft)
	if got, err := io.ReadAll(in); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	_ = in.Close()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
