package portmux

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// HTTP1 is the ALPN protocol of the fallback.
const HTTP1 = "http/1.1"

// TLS is how a port does TLS.
type TLS struct {
	// Config returns the configuration of one handshake. Its NextProtos are the ALPN
	// names of the routes, and HTTP1 if there is a fallback. It must verify the
	// certificates that it asks for.
	Config func() *tls.Config
	// Refused is called for each connection that fails the handshake, has no TLS, or
	// negotiated no protocol of this port; nil: nobody is told. It is called concurrently, and
	// not after Close.
	Refused func(from net.Addr, err error)
}

// TLS makes every connection of the port a TLS connection. A connection stays pending
// for the [Limiter] until its handshake is complete, and, unless it showed a
// certificate, until its first answer.
func (m *Mux) TLS(t TLS) { m.tls = &t }

// errProtocol is an ALPN protocol without a route.
type errProtocol string

func (e errProtocol) Error() string {
	if e == "" {
		return "no protocol was negotiated (ALPN)"
	}
	return "protocol " + string(e) + " is not for this port (ALPN)"
}

// handshake does the TLS handshake and returns the connection's route, or nil.
func (m *Mux) handshake(c *Conn) (*tls.Conn, *route) {
	conn, to, err := m.negotiate(c)
	if err == nil {
		return conn, to
	}
	m.countLate(err)
	select {
	case <-m.closed:
	default:
		if m.tls.Refused != nil {
			m.tls.Refused(c.RemoteAddr(), err)
		}
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
			answerPlain(c.Conn, plain.RecordHeader)
		}
	}
	return nil, nil
}

// lingerTime and lingerBytes bound what is read of a caller that gets an answer before
// its connection is closed: closing with bytes unread may destroy the answer.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// answerPlain tells a caller without TLS what it lacks: in a text, if it speaks
// HTTP/1.1, or else by the alert of a TLS handshake.
func answerPlain(c net.Conn, head [5]byte) {
	answer := "\x15\x03\x01\x00\x02\x02\x46" // an alert of TLS 1.0, of two bytes: fatal, protocol_version
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO":
		answer = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks TLS: use https.\n"
	}
	if c.SetDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	if _, err := io.WriteString(c, answer); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c, lingerBytes)) // until the caller ends, or the deadline
	}
}

func (m *Mux) negotiate(c *Conn) (*tls.Conn, *route, error) {
	if err := c.SetDeadline(time.Now().Add(SniffTimeout)); err != nil {
		return nil, nil, err
	}
	conn := tls.Server(c, m.tls.Config())
	m.turns.begin()
	c.turns = m.turns
	err := conn.Handshake()
	c.turns = nil
	m.turns.end()
	if err != nil {
		return nil, nil, err
	}
	state := conn.ConnectionState()
	to := m.negotiated(state.NegotiatedProtocol)
	if to == nil {
		return nil, nil, errProtocol(state.NegotiatedProtocol)
	}
	if len(state.PeerCertificates) > 0 {
		m.limiter.establish(c) // it has proven who it is
	}
	return conn, to, c.SetDeadline(time.Time{})
}

// negotiated is the route of an ALPN protocol, or nil.
func (m *Mux) negotiated(alpn string) *route {
	if alpn == "" || alpn == HTTP1 {
		return m.fallback
	}
	for _, r := range m.routes {
		if r.ALPN == alpn {
			return r
		}
	}
	return nil
}
