package portmux

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// arrival is a connection as a route got it.
type arrival struct {
	route string
	read  string
}

// through sends bytes to a port, and returns what arrived at its routes.
func through(t *testing.T, prepare func(*Mux), data []byte) []arrival {
	t.Helper()
	p := newPipes()
	m := New(p, 4)
	prepare(m)
	var mu sync.Mutex
	var arrived []arrival
	var all sync.WaitGroup
	for name, ln := range map[string]net.Listener{"raft": m.Route(raftTest), "grpc": m.Route(grpcTest), "rest": m.Fallback()} {
		all.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				read, _ := io.ReadAll(c)
				_ = c.Close()
				mu.Lock()
				arrived = append(arrived, arrival{name, string(read)})
				mu.Unlock()
			}
		})
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	c := p.dial()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c) // until the port closes it
	}()
	_, _ = c.Write(data)
	_ = c.Close()
	<-ended
	waitEmpty(m.limiter)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	all.Wait()
	return arrived
}

// waitEmpty waits until the port has no connection.
func waitEmpty(l *Limiter) {
	for l.Size() > 0 {
		runtime.Gosched()
	}
}

// Without TLS the first bytes choose the route, which reads all of them but a stripped
// prefix.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{"", "R", "Rx", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI", "PRX", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := through(t, func(*Mux) {}, data)
		text, want := string(data), arrival{"rest", string(data)}
		switch {
		case strings.HasPrefix(grpcTest.Prefix, text): // too little, then the end
			if len(got) > 1 || len(got) == 1 && text != grpcTest.Prefix {
				t.Fatalf("%q: %q", text, got)
			}
			return
		case strings.HasPrefix(text, raftTest.Prefix):
			want = arrival{"raft", text[1:]}
		case strings.HasPrefix(text, grpcTest.Prefix):
			want.route = "grpc"
		}
		if len(got) == 0 && strings.HasPrefix(grpcTest.Prefix, text[:len(text)-1]) { // it ended while its route was found
			return
		}
		if len(got) != 1 || got[0] != want {
			t.Fatalf("%q: %q, want %q", text, got, want)
		}
	})
}

// On a port with TLS nothing reaches a route without a handshake.
func FuzzFirstBytesTLS(f *testing.F) {
	for _, s := range []string{"", "R", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", "\x15\x03\x03\x00\x02\x02\x28", "\x80\x2e\x01\x00\x02"} {
		f.Add([]byte(s))
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate(f)}, NextProtos: []string{"raft", "h2", HTTP1}}
	f.Fuzz(func(t *testing.T, data []byte) {
		var mu sync.Mutex
		var refusals []error
		got := through(t, func(m *Mux) {
			m.TLS(TLS{Config: func() *tls.Config { return config }, Refused: func(_ net.Addr, err error) {
				mu.Lock()
				defer mu.Unlock()
				refusals = append(refusals, err)
			}})
		}, data)
		if len(got) != 0 || len(refusals) != 1 || errors.Is(refusals[0], net.ErrClosed) {
			t.Fatalf("%q: %q, refused: %v", data, got, refusals)
		}
	})
}
