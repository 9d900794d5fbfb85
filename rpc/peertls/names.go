package peertls

import (
	"crypto/x509"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/certs"
)

// names are those of a cluster's nodes in their certificates.
type names struct {
	cluster string
	domain  string // the trust domain of SPIFFE ids; empty: registry://…
}

// node is the URI of a node.
func (n names) node(id string) string {
	if n.domain == "" {
		return certs.NodeURI(n.cluster, id).String()
	}
	return (&url.URL{Scheme: "spiffe", Host: n.domain, Path: "/registry/" + n.cluster + "/node/" + id}).String()
}

// idOf is the id of the node that a certificate names: it has one URI and no other
// name.
func (n names) idOf(c *x509.Certificate) (string, error) {
	if len(c.URIs) == 1 && len(c.DNSNames) == 0 && len(c.IPAddresses) == 0 && len(c.EmailAddresses) == 0 {
		if id := lastSegment(c.URIs[0]); fsm.ValidateName("id", id) == nil && c.URIs[0].String() == n.node(id) {
			return id, nil
		}
	}
	return "", refusal(WrongName, "the certificate is for %s, which is no node of this cluster: want one URI, %s", describe(c), n.node("ID"))
}

// lastSegment is what a node's URI has as its id.
func lastSegment(u *url.URL) string { return u.Path[strings.LastIndexByte(u.Path, '/')+1:] }

// maxDescribed bounds what is shown of a foreign certificate, in bytes.
const maxDescribed = 300

// describe names a certificate that may be anybody's.
func describe(c *x509.Certificate) string {
	var all []string
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	all = append(all, c.DNSNames...)
	if len(all) == 0 {
		all = append(all, c.Subject.String())
	}
	text := strings.Join(all, ", ")
	return strconv.Quote(text[:min(len(text), maxDescribed)])
}

// checkUsage checks that a certificate is not an authority's, and is for both ends of
// a connection.
func checkUsage(c *x509.Certificate) error {
	both := slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	switch {
	case c.IsCA:
		return refusal(WrongUsage, "the certificate is an authority's")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refusal(WrongUsage, "the certificate lacks the key usage digitalSignature")
	case !both:
		return refusal(WrongUsage, "the certificate lacks one of the extended key usages serverAuth and clientAuth")
	case len(c.UnhandledCriticalExtensions) > 0:
		return refusal(WrongUsage, "the certificate has a critical extension that is not known")
	}
	return nil
}
