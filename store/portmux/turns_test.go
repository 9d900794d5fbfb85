package portmux

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// At most as many handshakes compute at a time as there are turns, and one that waits
// for its caller has none.
func TestHandshakesTakeTurns(t *testing.T) {
	own := certificate(t)
	var computes, goOn chan struct{}
	bubbleOf(t, 10, func(m *Mux) any {
		computes, goOn = make(chan struct{}, 10), make(chan struct{})
		m.turns = make(turns, 1)
		m.TLS(TLS{Config: func() *tls.Config {
			return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				computes <- struct{}{}
				<-goOn
				return &own, nil
			}, NextProtos: []string{"h2"}}
		}})
		return nil
	}, func(t *testing.T, s *setup, _ any) {
		silent := s.dial()
		synctest.Wait()
		done := make(chan error, 3)
		for range 3 {
			go func() {
				c := tls.Client(s.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				done <- c.Handshake()
				_, _ = io.Copy(io.Discard, c)
				_ = c.NetConn().Close()
			}()
		}
		for range 3 {
			synctest.Wait()
			if len(computes) != 1 {
				t.Errorf("%d handshakes compute, want 1", len(computes))
			}
			<-computes
			goOn <- struct{}{}
		}
		for range 3 {
			_ = accept(t, s.grpc).(*tls.Conn).NetConn().Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		_ = silent.Close()
		synctest.Wait()
		if len(s.turns) != 0 {
			t.Errorf("%d turns are not given back", len(s.turns))
		}
	})
}

// Whoever sends nothing, or no whole handshake, is closed in time and counted.
func TestLateConnectionsAreCounted(t *testing.T) {
	late := func(t *testing.T, s *setup) {
		start, conns := time.Now(), []net.Conn{s.dial(), s.dial()}
		go func() { _, _ = conns[1].Write([]byte("P")) }()
		synctest.Wait()
		if got := s.Stats(); got != (Stats{Connections: 2, Pending: 2}) {
			t.Errorf("before: %+v", got)
		}
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != SniffTimeout {
				t.Errorf("%v after %s", err, time.Since(start))
			}
		}
		synctest.Wait()
		if got := s.Stats(); got != (Stats{Late: 2}) {
			t.Errorf("after: %+v", got)
		}
	}
	t.Run("plain", func(t *testing.T) { bubble(t, 10, late) })
	t.Run("TLS", func(t *testing.T) {
		tlsBubble(t, 10, func(t *testing.T, s *tlsSetup) { late(t, s.setup) })
	})
}
