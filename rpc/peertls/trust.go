package peertls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// trust is what a node shows and whom it trusts. It is not changed.
type trust struct {
	names
	own tls.Certificate
	// signed checks who signed a certificate; rest is what came with it.
	signed func(leaf *x509.Certificate, rest []*x509.Certificate) error
}

// verify checks the certificates that a connection showed, and returns the node's id.
func (t *trust) verify(chain []*x509.Certificate) (id string, err error) {
	if len(chain) == 0 {
		return "", refusal(NoCertificate, "it showed no certificate")
	}
	if id, err = t.idOf(chain[0]); err != nil {
		return "", err
	}
	if err := checkUsage(chain[0]); err != nil {
		return "", err
	}
	return id, t.signed(chain[0], chain[1:])
}

// bySecrets is the trust of the nodes that have the secrets.
func bySecrets(secrets [][]byte, cluster, id string) (*trust, error) {
	var all []*authority
	for _, s := range secrets {
		a, err := deriveAuthority(s, cluster)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	own, err := all[0].issue(cluster, id)
	if err != nil {
		return nil, err
	}
	return &trust{names: names{cluster: cluster}, own: own, signed: func(leaf *x509.Certificate, rest []*x509.Certificate) error {
		for _, a := range all {
			if len(rest) == 0 && leaf.CheckSignatureFrom(a.cert) == nil {
				return nil
			}
		}
		return refusal(Untrusted, "the certificate is by another secret")
	}}, nil
}

// byFiles is the trust of the nodes that an authority of a pool has signed for. The
// own certificate must be one that the other nodes accept.
func byFiles(own *tls.Certificate, authorities *x509.CertPool, cluster, id string) (*trust, error) {
	t := &trust{names: names{cluster: cluster}, own: *own, signed: func(leaf *x509.Certificate, rest []*x509.Certificate) error {
		return signedBy(authorities, leaf, rest)
	}}
	if uris := own.Leaf.URIs; len(uris) == 1 && uris[0].Scheme == "spiffe" {
		t.domain = uris[0].Host
	}
	chain, err := parseChain(own)
	if err != nil {
		return nil, err
	}
	named, err := t.verify(chain)
	if err != nil {
		return nil, err
	}
	if named != id {
		return nil, fmt.Errorf("the certificate is for node %q, this is %q", named, id)
	}
	return t, nil
}

func parseChain(c *tls.Certificate) (chain []*x509.Certificate, _ error) {
	for _, der := range c.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, parsed)
	}
	return chain, nil
}

func signedBy(authorities *x509.CertPool, leaf *x509.Certificate, rest []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, c := range rest {
		between.AddCert(c)
	}
	// Twice, because an authority may be limited to one usage.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: time.Now()})
		if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
			return refusal(Expired, "the certificate is valid from %s to %s", e.Cert.NotBefore.Format(time.RFC3339), e.Cert.NotAfter.Format(time.RFC3339))
		}
		if err != nil {
			return refusal(Untrusted, "the certificate is not by an authority of -peer-ca: %v", err)
		}
	}
	return nil
}
