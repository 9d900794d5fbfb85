package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Kinds of a HandshakeError, for errors.Is.
var (
	// ErrSpeaksTLS: the node speaks TLS and the client does not.
	ErrSpeaksTLS = errors.New("the node speaks TLS")
	// ErrNotTLS: the client speaks TLS and the node does not.
	ErrNotTLS = errors.New("the node does not speak TLS")
	// ErrName: the node's certificate is for other names.
	ErrName = errors.New("the certificate is for another name")
	// ErrExpired: the node's certificate is not valid at this time.
	ErrExpired = errors.New("the certificate is not valid at this time")
	// ErrAuthority: no authority that the client knows has signed the node's certificate.
	ErrAuthority = errors.New("the certificate is of an unknown authority")
	// ErrRefused: the node refused the handshake, for instance the client's certificate.
	ErrRefused = errors.New("the node refused the handshake")
)

// HandshakeError is why a handshake between a client and a node failed.
type HandshakeError struct {
	kind  error
	text  string
	cause error
}

// Error says in words what is wrong.
func (e *HandshakeError) Error() string { return e.text }

// Is matches the kind.
func (e *HandshakeError) Is(target error) bool { return target == e.kind }

// Unwrap returns the error of the TLS library.
func (e *HandshakeError) Unwrap() error { return e.cause }

// Temporary lets gRPC connect again: files and nodes change.
func (e *HandshakeError) Temporary() bool { return true }

// explain puts the errors of package tls that an operator can do something about into
// words.
func explain(err error) error {
	because := func(kind error, format string, args ...any) error {
		return &HandshakeError{kind, fmt.Sprintf(format, args...), err}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return because(ErrNotTLS, "the node does not speak TLS")
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return because(ErrName, "the certificate is for %s, not for %s", names(e.Certificate), e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		if time.Now().Before(e.Cert.NotBefore) {
			return because(ErrExpired, "the certificate is not valid before %s", e.Cert.NotBefore.Format(time.RFC3339))
		}
		return because(ErrExpired, "the certificate expired at %s", e.Cert.NotAfter.Format(time.RFC3339))
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return because(ErrAuthority, "the certificate is of an unknown authority, %q", e.Cert.Issuer)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return because(ErrRefused, "the node refuses the handshake: %s", strings.TrimPrefix(e.Err.Error(), "tls: "))
	}
	if ended(err) {
		return because(ErrNotTLS, "the node ends the handshake: it may not speak TLS")
	}
	return err
}

// explainRefusal is explain for a connection that ended after this side's handshake.
func explainRefusal(err error) error {
	if ended(err) {
		return &HandshakeError{ErrRefused, "the node ends the connection after the handshake: it may refuse this client's certificate", err}
	}
	return explain(err)
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// names are those that a certificate is for.
func names(c *x509.Certificate) string {
	all := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	if len(all) == 0 {
		return "no host"
	}
	return strings.Join(all, ", ")
}
