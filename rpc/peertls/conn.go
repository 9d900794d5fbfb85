package peertls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/werbenhu/registry/store/portmux"
)

// conn is a connection below TLS.
type conn struct {
	net.Conn
	of     *Identity
	chain  []*x509.Certificate // that were verified; guarded by Identity.mu
	closed bool                // guarded by Identity.mu
}

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	c.of.mu.Lock()
	c.closed = true
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// verify checks what the other end showed. From then on Reload may close the
// connection.
func (c *conn) verify(s tls.ConnectionState) error {
	for {
		t := c.of.trust.Load()
		if _, err := t.verify(s.PeerCertificates); err != nil {
			return err
		}
		if done, err := c.keep(t, s.PeerCertificates); done {
			return err
		}
	}
}

// keep notes what was verified, unless the trust has changed meanwhile.
func (c *conn) keep(t *trust, chain []*x509.Certificate) (done bool, _ error) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	switch {
	case c.closed:
		return true, net.ErrClosed
	case c.of.trust.Load() != t:
		return false, nil
	}
	c.chain, c.of.conns[c] = chain, struct{}{}
	return true, nil
}

// config is what both ends have in common.
func (c *conn) config(protocols ...string) *tls.Config {
	own := c.of.trust.Load().own
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
		NextProtos:             protocols,
		ClientAuth:             tls.RequestClientCert, // verify refuses a connection without one, and says so
		InsecureSkipVerify:     true,                  // verify does it: the name is not that of a host
		VerifyConnection:       c.verify,
		SessionTicketsDisabled: true, // each connection is verified
	}
}

// Listen returns a listener whose connections can take part in the handshakes of
// [Identity.Server].
func (i *Identity) Listen(ln net.Listener) net.Listener { return &listener{ln, i} }

type listener struct {
	net.Listener
	of *Identity
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, of: l.of}, nil
}

// Server is the TLS of a mux on the listener.
func (i *Identity) Server() portmux.TLS {
	base := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: i.accepting}
	return portmux.TLS{
		Config:  func() *tls.Config { return base },
		Refused: func(from net.Addr, err error) { i.refused.add("connection to the bind port refused", from, err) },
	}
}

func (i *Identity) accepting(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if counted, ok := hello.Conn.(*portmux.Conn); ok {
		if c, ok := counted.Conn.(*conn); ok && c.of == i {
			return c.config(i.cfg.Protocols...), nil
		}
	}
	return nil, errors.New("the connection is not of Listen")
}

// Client does the handshake of a connection to another node, for one protocol. It
// closes the connection if that fails.
func (i *Identity) Client(ctx context.Context, raw net.Conn, protocol string) (*tls.Conn, error) {
	c := &conn{Conn: raw, of: i}
	out := tls.Client(c, c.config(protocol))
	err := out.HandshakeContext(ctx)
	if err == nil && out.ConnectionState().NegotiatedProtocol != protocol {
		err = errors.New("the other end does not speak " + protocol + " there")
	}
	if err == nil {
		return out, nil
	}
	if _, ok := errors.AsType[*Refusal](err); ok {
		i.refused.add("node refused", raw.RemoteAddr(), err)
	} else if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("the node ends the handshake, as one without a secret does: %w", err)
	}
	_ = c.Close() // the error to report is err
	return nil, err
}

// Credentials are those of gRPC connections to other nodes.
func (i *Identity) Credentials() credentials.TransportCredentials {
	return &clientCredentials{credentials.NewTLS(&tls.Config{}), i}
}

// clientCredentials does its own client's handshake. What it embeds is not used for
// connections.
type clientCredentials struct {
	credentials.TransportCredentials
	of *Identity
}

func (c *clientCredentials) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	out, err := c.of.Client(ctx, raw, protocolGRPC)
	if err != nil {
		return nil, nil, &temporary{err}
	}
	return out, credentials.TLSInfo{
		State:          out.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (c *clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for clients")
}

func (c *clientCredentials) Clone() credentials.TransportCredentials { return c }

// protocolGRPC is HTTP/2 in ALPN.
const protocolGRPC = "h2"

// temporary lets gRPC connect again: files and nodes change.
type temporary struct{ error }

func (t *temporary) Unwrap() error   { return t.error }
func (t *temporary) Temporary() bool { return true }
