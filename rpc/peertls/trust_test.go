package peertls

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
)

// issuer signs certificates that a test has changed.
type issuer struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newIssuer(t testing.TB, change func(*x509.Certificate)) *issuer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, SubjectKeyId: []byte{1},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(cert)
	}
	i := &issuer{cert, key}
	i.cert = i.sign(t, cert, key.Public())
	return i
}

func (i *issuer) sign(t testing.TB, template *x509.Certificate, public any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, public, i.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaf is a node's certificate, changed.
func (i *issuer) leaf(t testing.TB, change func(*x509.Certificate)) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := nodeTemplate()
	if change != nil {
		change(c)
	}
	return i.sign(t, c, public), key
}

// nodeTemplate is a certificate that is accepted once it is signed.
func nodeTemplate() *x509.Certificate {
	return &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{certs.NodeURI("prod", "n1")},
	}
}

func uris(t testing.TB, all ...string) (out []*url.URL) {
	t.Helper()
	for _, s := range all {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// trusts are both methods with an issuer that they trust.
func trusts(t *testing.T) map[string]struct {
	*trust
	by *issuer
} {
	a, err := deriveAuthority([]byte(strings.Repeat("s", MinSecret)), "prod")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := bySecrets([][]byte{[]byte(strings.Repeat("s", MinSecret))}, "prod", "n1")
	if err != nil {
		t.Fatal(err)
	}
	own := newIssuer(t, nil)
	return map[string]struct {
		*trust
		by *issuer
	}{
		"secret": {secret, &issuer{a.cert, a.key}},
		"files":  {ofIssuer(t, own, nil), own},
	}
}

// ofIssuer is the trust of node n1 by the files of an issuer.
func ofIssuer(t testing.TB, by *issuer, change func(*x509.Certificate)) *trust {
	t.Helper()
	leaf, key := by.leaf(t, change)
	pool := x509.NewCertPool()
	pool.AddCert(by.cert)
	out, err := byFiles(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, pool, "prod", "n1")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Each property of a certificate that is wrong refuses it, by both methods.
func TestVerify(t *testing.T) {
	for method, with := range trusts(t) {
		for _, tc := range []struct {
			name   string
			change func(*x509.Certificate)
			want   Reason
		}{
			{"right", func(*x509.Certificate) {}, ""},
			{"another node", func(c *x509.Certificate) { c.URIs = []*url.URL{certs.NodeURI("prod", "n 2")} }, ""},
			{"no name", func(c *x509.Certificate) { c.URIs = nil }, WrongName},
			{"a common name alone", func(c *x509.Certificate) { c.URIs, c.Subject.CommonName = nil, "n1" }, WrongName},
			{"a DNS name alone", func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"n1"} }, WrongName},
			{"a DNS name too", func(c *x509.Certificate) { c.DNSNames = []string{"n1"} }, WrongName},
			{"an address too", func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }, WrongName},
			{"an email too", func(c *x509.Certificate) { c.EmailAddresses = []string{"n1@example.com"} }, WrongName},
			{"two names", func(c *x509.Certificate) { c.URIs = append(c.URIs, certs.NodeURI("prod", "n2")) }, WrongName},
			{"another cluster", func(c *x509.Certificate) { c.URIs = []*url.URL{certs.NodeURI("prod2", "n1")} }, WrongName},
			{"another case", func(c *x509.Certificate) { c.URIs = uris(t, "registry://PROD/node/n1") }, WrongName},
			{"a wildcard", func(c *x509.Certificate) { c.URIs = uris(t, "registry://*/node/n1") }, WrongName},
			{"no id", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/") }, WrongName},
			{"an id with a slash", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/a%2Fb") }, WrongName},
			{"an id with a control character", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/a%00") }, WrongName},
			{"a longer path", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/n1/x") }, WrongName},
			{"a user", func(c *x509.Certificate) { c.URIs = uris(t, "registry://u@prod/node/n1") }, WrongName},
			{"a port", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod:1/node/n1") }, WrongName},
			{"a query", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/n1?x") }, WrongName},
			{"a fragment", func(c *x509.Certificate) { c.URIs = uris(t, "registry://prod/node/n1#x") }, WrongName},
			{"another scheme", func(c *x509.Certificate) { c.URIs = uris(t, "https://prod/node/n1") }, WrongName},
			{"an authority", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }, WrongUsage},
			{"a server's", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, WrongUsage},
			{"a client's", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, WrongUsage},
			{"any usage", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, WrongUsage},
			{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, WrongUsage},
			{"an unknown critical extension", func(c *x509.Certificate) {
				c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
			}, WrongUsage},
		} {
			t.Run(method+"/"+tc.name, func(t *testing.T) {
				leaf, _ := with.by.leaf(t, tc.change)
				wantReason(t, with.trust, tc.want, leaf)
			})
		}
	}
}

func wantReason(t *testing.T, with *trust, want Reason, chain ...*x509.Certificate) {
	t.Helper()
	id, err := with.verify(chain)
	r, _ := errors.AsType[*Refusal](err)
	switch {
	case want == "" && (err != nil || id == ""):
		t.Errorf("node %q, %v", id, err)
	case want != "" && (r == nil || r.Reason != want):
		t.Errorf("got %v, want reason %q", err, want)
	}
}

// A certificate by another authority is refused, as is one that brings its own.
func TestVerifySignature(t *testing.T) {
	for method, with := range trusts(t) {
		t.Run(method, func(t *testing.T) {
			other := newIssuer(t, nil)
			leaf, _ := other.leaf(t, nil)
			wantReason(t, with.trust, Untrusted, leaf)
			wantReason(t, with.trust, Untrusted, leaf, other.cert)
			wantReason(t, with.trust, NoCertificate)
			node, key := with.by.leaf(t, nil)
			signed, _ := (&issuer{node, key}).leaf(t, nil) // a node signs for another
			wantReason(t, with.trust, Untrusted, signed)
			wantReason(t, with.trust, Untrusted, signed, node)
		})
	}
}

// Dates are judged in files, of every certificate of the chain, and not with a secret.
func TestVerifyDates(t *testing.T) {
	past := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	future := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	for method, with := range trusts(t) {
		want := Expired
		if method == "secret" {
			want = ""
		}
		for _, change := range []func(*x509.Certificate){past, future} {
			leaf, _ := with.by.leaf(t, change)
			wantReason(t, with.trust, want, leaf)
		}
	}
	gone := newIssuer(t, nil)
	with := ofIssuer(t, gone, nil)
	between := gone.between(t, past)
	leaf, _ := between.leaf(t, nil)
	wantReason(t, with, Expired, leaf, between.cert)
}

// between is an intermediate authority.
func (i *issuer) between(t testing.TB, change func(*x509.Certificate)) *issuer {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "intermediate"}, SubjectKeyId: []byte{2},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	change(c)
	return &issuer{i.sign(t, c, public), key}
}

// An intermediate authority counts if it comes with the certificate, and only as far
// as it may sign.
func TestVerifyIntermediate(t *testing.T) {
	root := newIssuer(t, nil)
	with := ofIssuer(t, root, nil)
	both := root.between(t, func(*x509.Certificate) {})
	leaf, _ := both.leaf(t, nil)
	wantReason(t, with, "", leaf, both.cert)
	wantReason(t, with, Untrusted, leaf)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		one := root.between(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} })
		leaf, _ := one.leaf(t, nil)
		wantReason(t, with, Untrusted, leaf, one.cert)
	}
}

// Nodes whose own certificate has a SPIFFE id accept those of the same trust domain.
func TestSPIFFE(t *testing.T) {
	by := newIssuer(t, nil)
	named := func(uri string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs = uris(t, uri) }
	}
	with := ofIssuer(t, by, named("spiffe://example.org/registry/prod/node/n1"))
	for uri, want := range map[string]Reason{
		"spiffe://example.org/registry/prod/node/n2":   "",
		"spiffe://example.com/registry/prod/node/n2":   WrongName,
		"spiffe://example.org/registry/prod2/node/n2":  WrongName,
		"spiffe://example.org/registry/prod/node/":     WrongName,
		"spiffe://example.org/x/registry/prod/node/n2": WrongName,
		"spiffe://example.org/registry/prod/client/n2": WrongName,
		"spiffe://example.org:1/registry/prod/node/n2": WrongName,
		"registry://prod/node/n2":                      WrongName,
	} {
		leaf, _ := by.leaf(t, named(uri))
		wantReason(t, with, want, leaf)
	}
}

// Any name that a cluster and a node may have can stand in a certificate.
func TestOddNames(t *testing.T) {
	seen := make(map[string]string)
	for _, cluster := range []string{"registry", "a.b_c-D", "a b", "注册", ".", "..", "a..b", "a.", "@", "a:1", "[::1]", "%41", "?#;,", "node"} {
		for _, id := range []string{"n1", "a b", "节点", "..", "?#;,&=+$:@!", "%2F", "\\"} {
			with, err := bySecrets([][]byte{make([]byte, MinSecret)}, cluster, id)
			if err != nil {
				t.Errorf("%q of %q: %v", id, cluster, err)
				continue
			}
			if got, err := with.verify([]*x509.Certificate{with.own.Leaf}); err != nil || got != id {
				t.Errorf("%q of %q: node %q, %v", id, cluster, got, err)
			}
			uri := with.own.Leaf.URIs[0].String()
			if at, taken := seen[uri]; taken {
				t.Errorf("%q of %q is %s, as is %s", id, cluster, uri, at)
			}
			seen[uri] = id + " of " + cluster
		}
	}
}

// FuzzVerify: of any bytes that parse as a certificate, none is accepted that was not
// signed as it is.
func FuzzVerify(f *testing.F) {
	with, err := bySecrets([][]byte{make([]byte, MinSecret)}, "prod", "n1")
	if err != nil {
		f.Fatal(err)
	}
	a, err := deriveAuthority(make([]byte, MinSecret), "prod")
	if err != nil {
		f.Fatal(err)
	}
	by := &issuer{a.cert, a.key}
	files := ofIssuer(f, by.root(f), nil)
	var signed [][]byte
	for _, change := range []func(*x509.Certificate){
		func(*x509.Certificate) {},
		func(c *x509.Certificate) { c.URIs = nil },
		func(c *x509.Certificate) { c.URIs = uris(f, "spiffe://example.org/registry/prod/node/n1") },
		func(c *x509.Certificate) { c.DNSNames, c.IsCA = []string{"*"}, true },
	} {
		c := nodeTemplate() // the same in every process of the fuzzer
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), notBefore, notAfter
		change(c)
		leaf := by.sign(f, c, a.key.Public())
		signed = append(signed, leaf.RawTBSCertificate)
		f.Add(leaf.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for _, tr := range []*trust{with, files} {
			if id, err := tr.verify([]*x509.Certificate{c}); err == nil && (id != "n1" || !bytes.Equal(c.RawTBSCertificate, signed[0])) {
				t.Errorf("accepted as %q: %x", id, der)
			}
		}
	})
}

// root is the issuer with a certificate for its key.
func (i *issuer) root(t testing.TB) *issuer {
	return &issuer{(&issuer{i.cert, i.key}).sign(t, &x509.Certificate{
		Subject: i.cert.Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}, i.key.Public()), i.key}
}
