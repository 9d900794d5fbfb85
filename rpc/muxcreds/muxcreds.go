// Package muxcreds gives a gRPC server behind store/portmux the callers' certificates.
// The mux has done the TLS handshake, so the server does none.
package muxcreds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

// Finished are the transport credentials of a server whose connections are either
// *tls.Conn after their handshake, or have no TLS. The mux decides which: a port has
// one TLS setting.
type Finished struct{}

var _ credentials.TransportCredentials = Finished{}

// ServerHandshake reads the state of a finished handshake.
func (Finished) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return insecure.NewCredentials().ServerHandshake(c)
	}
	state := t.ConnectionState()
	if !state.HandshakeComplete {
		return nil, nil, errors.New("the TLS handshake is not complete")
	}
	return c, credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// ClientHandshake fails: the credentials are a server's.
func (Finished) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (Finished) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (f Finished) Clone() credentials.TransportCredentials { return f }

// OverrideServerName implements credentials.TransportCredentials.
func (Finished) OverrideServerName(string) error { return nil }

// Certificate is the certificate that the caller of p showed in its TLS handshake, or
// nil.
func Certificate(p *peer.Peer) *x509.Certificate {
	if p == nil {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}
