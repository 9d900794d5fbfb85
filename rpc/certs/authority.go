package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"time"
)

// Lifetimes if none is given.
const (
	DefaultAuthorityLifetime = 10 * 365 * 24 * time.Hour
	DefaultLifetime          = 365 * 24 * time.Hour
)

// backdate is how long before its making a certificate is valid: clocks differ.
const backdate = 5 * time.Minute

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// Authority issues certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority with a key of its own.
func NewAuthority(name string, lifetime time.Duration) (Pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs no further authority
	}
	return sign(template, nil, lifetime)
}

// ReadAuthority parses the pair of NewAuthority.
func ReadAuthority(p Pair) (*Authority, error) {
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	if !pair.Leaf.IsCA {
		return nil, errors.New("not the certificate of an authority")
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return &Authority{pair.Leaf, key}, nil
}

// Request says what a certificate is for. Without Server and Client it is for both
// ends.
type Request struct {
	Name           string   // of the subject
	Hosts          []string // names and IP addresses
	URI            *url.URL
	Server, Client bool
	Lifetime       time.Duration
}

// NodeURI is the name of a node in its peer certificate: registry://CLUSTER/node/ID,
// escaped as a path is. A cluster whose name cannot be a host's is in the path too:
// registry:///CLUSTER/node/ID.
func NodeURI(cluster, id string) *url.URL {
	if hostName.MatchString(cluster) {
		return &url.URL{Scheme: "registry", Host: cluster, Path: "/node/" + id}
	}
	return &url.URL{Scheme: "registry", Path: "/" + cluster + "/node/" + id}
}

// hostName is what crypto/x509 takes for the host of a URI, without user and port.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// Issue makes a certificate with a key of its own. It never outlives the authority.
func (a *Authority) Issue(r Request) (Pair, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: r.Name}, KeyUsage: x509.KeyUsageDigitalSignature}
	if r.Server || !r.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client || !r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	if r.URI != nil {
		template.URIs = []*url.URL{r.URI}
	}
	return sign(template, a, r.Lifetime)
}

// sign signs a template with the authority's key, or with its own without one. The
// result parses: what a template may hold and a certificate may not is an error here.
func sign(template *x509.Certificate, by *Authority, lifetime time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	if by == nil {
		by = &Authority{template, key}
	}
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(lifetime)
	if template != by.cert && template.NotAfter.After(by.cert.NotAfter) {
		template.NotAfter = by.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		return Pair{}, fmt.Errorf("make a certificate: %w", err)
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return Pair{}, fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// Write writes the pair to new files, the key for the owner only. It replaces no file,
// and leaves none behind when it fails.
func (p Pair) Write(certPath, keyPath string) error {
	if err := WriteNew(keyPath, p.Key, 0o600); err != nil {
		return err
	}
	if err := WriteNew(certPath, p.Cert, 0o644); err != nil {
		return errors.Join(err, os.Remove(keyPath))
	}
	return nil
}

// WriteNew writes a file that does not exist.
func WriteNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
