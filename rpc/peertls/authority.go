package peertls

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
)

// authority signs for the nodes that have one secret.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate // never sent
}

// derivation is the HKDF info before the cluster's name.
const derivation = "registry peer authority v1\n"

// deriveAuthority derives the authority of a secret and a cluster, as the package's
// comment says.
func deriveAuthority(secret []byte, cluster string) (*authority, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, derivation+cluster, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	return &authority{key: key, cert: &x509.Certificate{
		Subject:               pkix.Name{CommonName: "registry peers"},
		PublicKey:             key.Public(),
		PublicKeyAlgorithm:    x509.Ed25519,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}}, nil
}

// Validity of the certificates: from the first day to the last that X.509 knows (RFC
// 5280, section 4.1.2.5). No node judges it.
var notBefore, notAfter = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// issue makes a node's certificate, with a key of its own.
func (a *authority) issue(cluster, id string) (tls.Certificate, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{certs.NodeURI(cluster, id)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
