package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Client is the configuration of a client's connection: the files of this moment,
// and the certificate's name if it is not that of the address.
func (s *Source) Client(serverName string) *tls.Config {
	s.Refresh()
	set := s.Set()
	config := &tls.Config{RootCAs: set.Pool, ServerName: serverName}
	if set.Certificate != nil {
		// Sent whatever authorities the node names, so that it can say what is wrong.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return set.Certificate, nil }
	}
	return config
}

// NewCredentials returns the gRPC credentials of a client. Each connection asks config
// for its configuration; a nil config is for connections without TLS. The server's
// name is the host of the address unless the configuration has one. After each
// handshake done is called, if it is not nil, with the address and what is wrong; an
// error that comes with the first bytes of the node is told too.
func NewCredentials(config func() *tls.Config, done func(addr string, err error)) credentials.TransportCredentials {
	if done == nil {
		done = func(string, error) {}
	}
	return &clientCredentials{config: config, done: done}
}

type clientCredentials struct {
	config func() *tls.Config
	done   func(addr string, err error)
}

func (c *clientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	next, name := insecure.NewCredentials(), authority
	if c.config != nil {
		config := c.config()
		next, name = credentials.NewTLS(config), cmp.Or(config.ServerName, authority)
	}
	conn, info, err := next.ClientHandshake(ctx, name, raw)
	if err != nil {
		err = explain(err)
		c.done(authority, err)
		return nil, nil, err
	}
	c.done(authority, nil)
	return &firstRead{Conn: conn, tls: c.config != nil, failed: func(err error) { c.done(authority, err) }}, info, nil
}

func (c *clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, credentials.ErrConnDispatched // a client's credentials
}

func (c *clientCredentials) Info() credentials.ProtocolInfo {
	if c.config == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.NewTLS(nil).Info()
}

func (c *clientCredentials) Clone() credentials.TransportCredentials { return c }

func (c *clientCredentials) OverrideServerName(string) error { return nil } // deprecated

// firstRead is a connection whose first read shows what the handshake did not: that a
// node without TLS on this side has it, or that a node refuses the client's
// certificate, which TLS 1.3 tells after the handshake.
type firstRead struct {
	net.Conn
	tls    bool
	failed func(error)
	past   atomic.Bool
}

// alertRecord is how a TLS alert of any version begins.
const alertRecord = "\x15\x03"

func (c *firstRead) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.past.Swap(true) {
		return n, err
	}
	switch {
	case err != nil && c.tls:
		err = explainRefusal(err)
	case err == nil && !c.tls && n >= len(alertRecord) && string(p[:len(alertRecord)]) == alertRecord:
		n, err = 0, &HandshakeError{kind: ErrSpeaksTLS, text: "the node speaks TLS, this client does not"}
	}
	if _, ok := errors.AsType[*HandshakeError](err); ok {
		c.failed(err)
	}
	return n, err
}

// Write reads why, if the node has closed the connection before it sent anything.
func (c *firstRead) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if closed := errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET); closed && !c.past.Load() {
		if _, why := c.Read(make([]byte, len(alertRecord))); why != nil {
			err = why
		}
	}
	return n, err
}
