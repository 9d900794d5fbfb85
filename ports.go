package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/store/portmux"
)

// Values of Config.ClientAuth.
const (
	// ClientAuthRequire: a client without a certificate by ClientCA gets nothing.
	ClientAuthRequire = "require"
	// ClientAuthVerifyIfGiven: a client may come without a certificate. One that it
	// shows must be by ClientCA.
	ClientAuthVerifyIfGiven = "verify-if-given"
)

// validateTLS checks the fields of the client port's TLS.
func (c Config) validateTLS() error {
	var errs []error
	needs := func(set bool, flag string, has bool, needed string) {
		if set && !has {
			errs = append(errs, fmt.Errorf("%s: needs %s", flag, needed))
		}
	}
	needs(c.Cert != "", "-cert", c.Key != "", "-key")
	needs(c.Key != "", "-key", c.Cert != "", "-cert")
	needs(c.ClientCA != "", "-client-ca", c.Cert != "", "-cert and -key")
	needs(c.ClientAuth != "", "-client-auth", c.ClientCA != "", "-client-ca")
	needs(c.TLS12, "-tls12", c.Cert != "", "-cert and -key")
	if c.ClientAuth != "" && c.ClientAuth != ClientAuthRequire && c.ClientAuth != ClientAuthVerifyIfGiven {
		errs = append(errs, &fsm.FieldError{Field: "-client-auth", Limit: ClientAuthRequire + " or " + ClientAuthVerifyIfGiven, Got: c.ClientAuth})
	}
	return errors.Join(errs...)
}

// clientAuth is what the client port asks of certificates.
func (c Config) clientAuth() tls.ClientAuthType {
	switch {
	case c.ClientCA == "":
		return tls.NoClientCert
	case c.ClientAuth == ClientAuthVerifyIfGiven:
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequireAndVerifyClientCert
}

// clientTLS gives the client port its TLS, if it has a certificate. The files are
// followed until ctx ends.
func (n *Node) clientTLS(ctx context.Context) error {
	if n.cfg.Cert == "" {
		return nil
	}
	source, err := n.cfg.clientCertificates()
	if err != nil {
		return err
	}
	n.certs = source
	// HTTP/1.1 comes first: what speaks both, a browser for instance, wants a page.
	// gRPC speaks HTTP/2 only.
	server := certs.NewServer(source, certs.ServerOptions{
		ClientAuth: n.cfg.clientAuth(), TLS12: n.cfg.TLS12, Protocols: []string{portmux.HTTP1, rpc.GRPCProtocol.ALPN},
	})
	n.clientMux.TLS(n.audited("client", portmux.TLS{Config: server.Config, Refused: func(from net.Addr, err error) {
		n.metrics.Ports.Refused.Inc()
		n.cfg.Logger.Debug("client port refused a connection", "from", from, "error", err)
	}}))
	n.metrics.Ports.Certificates(source, "cert", "client-ca")
	n.wg.Go(func() { source.Follow(ctx) })
	return nil
}

// noteName says that clients which learn the node's address refuse its certificate.
func (n *Node) noteName(addr string) {
	if n.certs == nil {
		return
	}
	host, _, err := net.SplitHostPort(addr)
	if err == nil {
		err = n.certs.Set().Certificate.Leaf.VerifyHostname(host)
	}
	if err != nil {
		n.cfg.Logger.Warn("clients refuse the certificate, unless they are told its name", "cert", n.cfg.Cert, "advertise", addr, "error", err)
	}
}

// notePlainPort says that a port without TLS can be reached from other machines.
func (n *Node) notePlainPort(flag string, ln net.Listener, secure bool, danger string) {
	open := !secure && !onLoopback(ln.Addr())
	n.metrics.Ports.SetPlain(flag[1:], open)
	if !open {
		return
	}
	alarm := fmt.Sprintf("%s listens on %s without TLS: %s", flag, ln.Addr(), danger)
	n.alarms = append(n.alarms, alarm)
	n.cfg.Logger.Warn("port without TLS", "flag", flag, "listens", ln.Addr(), "danger", danger)
}

// conditions are those that an operator should know of: of the configuration, and of the
// certificates that end soon.
func (n *Node) conditions() []string {
	alarms, now := slices.Clone(n.alarms), time.Now()
	if n.certs != nil {
		alarms = append(alarms, n.certs.Alarms("-cert", "-client-ca", now)...)
	}
	if n.identity != nil && n.identity.Files() != nil {
		alarms = append(alarms, n.identity.Files().Alarms("-peer-cert", "-peer-ca", now)...)
	}
	return alarms
}

func onLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
