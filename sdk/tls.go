package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/werbenhu/registry/rpc/certs"
)

// WithTLS makes the connections TLS connections; nil keeps them as they are. Unless the
// configuration has a server name, a node's certificate must be for the host of its
// address: of the one given to Dial, and of those that nodes advertise. It applies to
// the connections of WithDialer too.
func WithTLS(t *tls.Config) Option {
	return func(c *config) {
		if t != nil {
			c.tls, c.tlsFiles = func() *tls.Config { return t }, nil
		}
	}
}

// WithTLSFiles is WithTLS with PEM files: of the authorities that sign the nodes'
// certificates, by default the system's, and of this client's certificate and key,
// which may be empty. Dial reads them; they are read again when they have changed, and
// files that cannot be used then leave the ones before in use.
func WithTLSFiles(ca, cert, key string) Option {
	return func(c *config) { c.tlsFiles = &certs.Files{CA: ca, Cert: cert, Key: key} }
}

// openTLS reads the files of WithTLSFiles.
func (c *config) openTLS() error {
	if c.tlsFiles == nil {
		return nil
	}
	source, err := certs.Open(*c.tlsFiles, c.logger)
	if err != nil {
		return invalid("dial", "TLS files", "PEM files, a certificate and its key together", err.Error())
	}
	c.tls = func() *tls.Config { return source.Client("") }
	return nil
}

// credentials note in e how the last handshake went.
func (e *endpoint) credentials(c *config) credentials.TransportCredentials {
	return certs.NewCredentials(c.tls, func(_ string, err error) {
		if err == nil {
			e.wrong.Store(nil)
			return
		}
		e.wrong.Store(&err)
		c.logger.Debug("TLS handshake failed", slog.String("addr", e.addr), slog.Any("error", err))
	})
}

// dial notes in e what is wrong with an attempt to connect.
func (e *endpoint) dial(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		switch {
		case err == nil:
			e.wrong.Store(nil)
		case !errors.Is(err, context.Canceled): // by us
			why := err
			if op, ok := errors.AsType[*net.OpError](err); ok {
				why = op.Err // without the address, which the reader has
			}
			e.wrong.Store(&why)
		}
		return conn, err
	}
}

// explained replaces the text of a failed connection, which is gRPC's, by what was wrong
// with the last attempt to connect, if something was.
func (e *endpoint) explained(err *Error) {
	if wrong := e.wrong.Load(); wrong != nil && err.Reason == reasonUnspecified && transient(err.Code) {
		err.Message = (*wrong).Error()
	}
}
