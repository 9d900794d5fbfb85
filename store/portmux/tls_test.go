package portmux

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// certificate is a self-signed one. The tests verify none.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type tlsSetup struct {
	*setup
	own     tls.Certificate
	refused chan error
}

// told is what the mux has told of refused connections, all of it after synctest.Wait.
func (s *tlsSetup) told() (errs []error) {
	for len(s.refused) > 0 {
		errs = append(errs, <-s.refused)
	}
	return errs
}

// tlsBubble runs a mux with TLS and three routes, in virtual time.
func tlsBubble(t *testing.T, maxConns int, f func(t *testing.T, s *tlsSetup)) {
	own := certificate(t)
	bubbleOf(t, maxConns, func(m *Mux) *tlsSetup {
		s := &tlsSetup{own: own, refused: make(chan error, 16)}
		m.TLS(TLS{
			Config: func() *tls.Config {
				return &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"raft", "h2", "none", HTTP1}, ClientAuth: tls.RequestClientCert}
			},
			Refused: func(_ net.Addr, err error) { s.refused <- err },
		})
		return s
	}, func(t *testing.T, base *setup, s *tlsSetup) {
		s.setup = base
		f(t, s)
	})
}

// handshake is what a client sees of its handshake.
func (s *tlsSetup) handshake(alpn ...string) (*tls.Conn, error) {
	c := tls.Client(s.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: alpn})
	err := c.Handshake()
	return c, err
}

func TestALPNRoutes(t *testing.T) {
	for _, tc := range []struct {
		name string
		alpn []string
		to   func(*tlsSetup) net.Listener
		is   string
	}{
		{"a route", []string{"raft"}, func(s *tlsSetup) net.Listener { return s.raft }, "raft"},
		{"HTTP/2", []string{"h2", "http/1.1"}, func(s *tlsSetup) net.Listener { return s.grpc }, "h2"},
		{"HTTP/1.1", []string{"http/1.1"}, func(s *tlsSetup) net.Listener { return s.rest }, "http/1.1"},
		{"no ALPN", nil, func(s *tlsSetup) net.Listener { return s.rest }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tlsBubble(t, 10, func(t *testing.T, s *tlsSetup) {
				go func() {
					c, _ := s.handshake(tc.alpn...)
					_, _ = c.Write([]byte("RPRI hello")) // no route strips or reads anything
					_ = c.CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				}()
				c := accept(t, tc.to(s))
				conn, ok := c.(*tls.Conn)
				if !ok || conn.ConnectionState().NegotiatedProtocol != tc.is {
					t.Errorf("%T, want *tls.Conn with protocol %q", c, tc.is)
				}
				<-time.After(2 * SniffTimeout) // an accepted connection has no deadline
				if got, err := io.ReadAll(c); string(got) != "RPRI hello" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				if err := c.Close(); err != nil || s.limiter.Size() != 0 {
					t.Errorf("%v; %d connections are left", err, s.limiter.Size())
				}
			})
		})
	}
}

func TestRefusedByTLS(t *testing.T) {
	for _, tc := range []struct {
		name string
		call func(s *tlsSetup) error
		is   func(error) bool
	}{
		{"unknown ALPN", func(s *tlsSetup) error { _, err := s.handshake("other"); return err },
			func(err error) bool { return err != nil }},
		{"ALPN without a route", func(s *tlsSetup) error {
			c, err := s.handshake("none")
			if err != nil {
				return nil // the handshake itself succeeds
			}
			_, err = c.Read(make([]byte, 1))
			return err
		}, func(err error) bool { _, ok := errors.AsType[errProtocol](err); return ok }},
		{"plain bytes", func(s *tlsSetup) error {
			c := s.dial()
			go func() { _, _ = c.Write([]byte("RPRI * HTTP/2.0")) }()
			_, err := io.ReadAll(c)
			return cmpErr(err)
		}, func(err error) bool { _, ok := errors.AsType[tls.RecordHeaderError](err); return ok }},
		{"an end", func(s *tlsSetup) error {
			c := s.dial()
			synctest.Wait()
			return errors.Join(io.EOF, c.Close())
		},
			func(err error) bool { return errors.Is(err, io.EOF) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tlsBubble(t, 10, func(t *testing.T, s *tlsSetup) {
				start := time.Now()
				if err := tc.call(s); err == nil {
					t.Error("not refused")
				}
				synctest.Wait()
				if told := s.told(); len(told) != 1 || !tc.is(told[0]) {
					t.Errorf("told %v", told)
				}
				if s.limiter.Size() != 0 || time.Since(start) != 0 {
					t.Errorf("%d connections after %s", s.limiter.Size(), time.Since(start))
				}
			})
		})
	}
}

// cmpErr is the error of a connection that must have ended.
func cmpErr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// Neither silence nor a caller that reads no answer holds a connection: etcd
// GHSA-6vch-q96h-7gc3 waited for ever for a handshake, with a goroutine for each.
func TestHangingHandshakes(t *testing.T) {
	tlsBubble(t, 10, func(t *testing.T, s *tlsSetup) {
		start := time.Now()
		silent, deaf := s.dial(), s.dial()
		hello := clientHello(t)
		go func() { _, _ = deaf.Write(hello) }()
		if _, err := silent.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != SniffTimeout {
			t.Errorf("%v after %s, want to be closed after %s", err, time.Since(start), SniffTimeout)
		}
		synctest.Wait()
		if told := s.told(); len(told) != 2 || s.limiter.Size() != 0 {
			t.Errorf("told %v; %d connections are left", told, s.limiter.Size())
		}
		_ = deaf.Close()
	})
}

// clientHello is the first message of a handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	buf := make([]byte, 4096)
	n, err := there.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = there.Close()
	return buf[:n]
}

// A handshake under way is pending although the server has written: at the limit it
// goes, and neither a peer that has shown its certificate nor an answered client does.
func TestHandshakeIsPending(t *testing.T) {
	tlsBubble(t, 3, func(t *testing.T, s *tlsSetup) {
		peer := tls.Client(s.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"raft"}, Certificates: []tls.Certificate{s.own}})
		go func() { _ = peer.Handshake(); _, _ = io.Copy(io.Discard, peer) }()
		atPeer := accept(t, s.raft)
		go func() { c, _ := s.handshake("h2"); _, _ = io.Copy(io.Discard, c) }()
		answered := accept(t, s.grpc)
		_, _ = answered.Write([]byte("answer"))
		half, hello := s.dial(), clientHello(t)
		go func() { _, _ = half.Write(hello); _, _ = half.Read(make([]byte, 1)) }() // one byte of the ServerHello
		synctest.Wait()
		next := s.dial()
		synctest.Wait()
		if _, err := io.ReadAll(half); err != nil || len(s.told()) != 1 {
			t.Errorf("the connection in its handshake: %v", err)
		}
		if s.limiter.Size() != 3 || s.limiter.pending.Len() != 1 {
			t.Errorf("%d connections, %d pending, want 3 and 1", s.limiter.Size(), s.limiter.pending.Len())
		}
		for _, c := range []net.Conn{next, atPeer, answered} {
			_ = c.Close()
		}
	})
}

// Nobody is told of the connections that Close ends.
func TestCloseDuringHandshake(t *testing.T) {
	tlsBubble(t, 10, func(t *testing.T, s *tlsSetup) {
		silent, half := s.dial(), s.dial()
		hello := clientHello(t)
		go func() { _, _ = half.Write(hello); _, _ = half.Read(make([]byte, 1)) }()
		synctest.Wait()
		start := time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]net.Conn{"silent": silent, "half": half} {
			if _, err := io.ReadAll(c); err != nil || time.Since(start) != 0 {
				t.Errorf("%s: %v after %s", name, err, time.Since(start))
			}
		}
		synctest.Wait()
		if told := s.told(); len(told) != 0 || s.limiter.Size() != 0 {
			t.Errorf("told %v; %d connections are left", told, s.limiter.Size())
		}
	})
}

// A caller that reads nothing cannot delay the limiter, which closes its connection
// for a new one: TLS's last message would wait for it.
func TestEvictionDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := certificate(t)
		here, there := net.Pipe()
		client := tls.Client(here, &tls.Config{InsecureSkipVerify: true})
		server := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{own}, SessionTicketsDisabled: true})
		go func() { _ = client.Handshake() }()
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		l := NewLimiter(1)
		l.Admit(server)
		start := time.Now()
		other, end := net.Pipe()
		if l.Admit(other) == nil {
			t.Error("not admitted")
		}
		l.CloseAll()
		if time.Since(start) != 0 {
			t.Errorf("it took %s", time.Since(start))
		}
		if _, err := end.Read(make([]byte, 1)); err != io.EOF || l.Size() != 0 {
			t.Errorf("%v; %d connections are left", err, l.Size())
		}
	})
}
