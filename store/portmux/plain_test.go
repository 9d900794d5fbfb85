package portmux

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A caller without TLS on a port with TLS is told so before it is closed, also when it
// has sent more than the mux reads, and one that holds on is closed all the same.
func TestPlainCallersAreTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := certificate(t)
	m := New(ln, 10)
	m.TLS(TLS{Config: func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{own}} }})
	m.Fallback()
	served := make(chan error)
	go func() { served <- m.Serve() }()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	const alert = "\x15\x03\x01\x00\x02\x02\x46"
	for name, c := range map[string]struct{ sends, begins string }{
		"HTTP/1.1": {"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + strings.Repeat("x", 4096), "HTTP/1.0 400 Bad Request\r\n"},
		"gRPC":     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("x", 4096), alert},
		"garbage":  {strings.Repeat("\x00", 4096), alert},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.sends); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), c.begins) {
				t.Errorf("read %q, %v", got, err)
			}
			for { // the mux closes it although this end stays open
				if _, err := conn.Write([]byte("x")); err != nil {
					break
				}
			}
		})
	}
}

// A caller with TLS on a port without is told of, and no other caller is.
func TestCallersWithTLSAreToldOf(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, told := New(ln, 10), make(chan string, 2)
	m.WithTLS(func(from net.Addr) { told <- from.String() })
	m.Route(Protocol{Prefix: "R"})
	served := make(chan error)
	go func() { served <- m.Serve() }()
	var caller string
	for _, sends := range []string{"\x00\x03\x01", "\x16\x03\x01"} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		caller = conn.LocalAddr().String()
		if _, err := io.WriteString(conn, sends); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(conn) // until the mux has closed it
		_ = conn.Close()
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	close(told)
	if from := <-told; from != caller || len(told) != 0 {
		t.Errorf("told of %s, want %s alone", from, caller)
	}
}
