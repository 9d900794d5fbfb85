package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/peertls"
)

// CheckFiles reads the secret and the certificates of a valid config, as Start does. It
// finds files that are missing or of no use before a node is stopped for them.
func (c Config) CheckFiles() error {
	c = c.withDefaults()
	var errs []error
	if c.locked() {
		_, err := c.peerIdentity(nil, nil)
		errs = append(errs, err)
	}
	if c.Cert != "" {
		_, err := c.clientCertificates()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// peerIdentity reads the secret or the certificates for the bind port.
func (c Config) peerIdentity(refused func(peertls.Reason), unusable func()) (*peertls.Identity, error) {
	identity, err := peertls.Open(peertls.Config{
		Cluster: c.Cluster, ID: c.ID, SecretFile: c.SecretFile,
		Files:     certs.Files{Cert: c.PeerCert, Key: c.PeerKey, CA: c.PeerCA},
		Protocols: []string{rpc.GRPCProtocol.ALPN, rpc.RaftProtocol.ALPN},
		Logger:    c.Logger, Refused: refused, Unusable: unusable,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return identity, nil
}

// clientCertificates reads the certificates for the client port.
func (c Config) clientCertificates() (*certs.Source, error) {
	source, err := certs.Open(certs.Files{Cert: c.Cert, Key: c.Key, CA: c.ClientCA}, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("%w: -cert, -key, -client-ca: %w", ErrConfig, err)
	}
	return source, nil
}

// validateFiles refuses a secret, a key or a certificate in the place of its file's
// name. Without this, the error about a missing file would show it.
func (c Config) validateFiles() error {
	var errs []error
	for _, f := range []struct{ flag, name string }{
		{"-secret-file", c.SecretFile},
		{"-peer-cert", c.PeerCert}, {"-peer-key", c.PeerKey}, {"-peer-ca", c.PeerCA},
		{"-cert", c.Cert}, {"-key", c.Key}, {"-client-ca", c.ClientCA},
	} {
		if isContents(f.name) {
			errs = append(errs, &fsm.FieldError{Field: f.flag, Limit: "the name of a file", Got: "its contents"})
		}
	}
	return errors.Join(errs...)
}

// isContents recognises PEM, and a secret as peertls.NewSecret makes it: base64 of 32
// bytes ends with "=", which the names of files do not.
func isContents(name string) bool {
	if strings.Contains(name, "-----BEGIN") {
		return true
	}
	_, err := peertls.ParseSecrets([]byte(name))
	return err == nil && strings.HasSuffix(strings.TrimSpace(name), "=")
}
