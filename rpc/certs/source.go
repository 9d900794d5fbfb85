package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Files names PEM files. Cert and Key are given together, or not at all.
type Files struct {
	Cert string // a certificate, and the intermediate ones after it
	Key  string // the certificate's private key
	CA   string // the certificates of authorities
}

// Set is what the files had when they were read. It is not changed.
type Set struct {
	Certificate *tls.Certificate // nil without Files.Cert
	Pool        *x509.CertPool   // nil without Files.CA
	authorities []*x509.Certificate
}

// Source has the last usable Set of its files. It is safe for concurrent use.
type Source struct {
	files Files
	log   *slog.Logger

	set      atomic.Pointer[Set]
	failures atomic.Uint64

	mu   sync.Mutex // guards the rest; held while the files are read
	stat string     // sizes and times at the last read
	last string     // the contents, or the error, of the last read
}

// Open reads the files.
func Open(files Files, log *slog.Logger) (*Source, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("a certificate and its key are given together")
	}
	s := &Source{files: files, log: log, stat: files.stat()}
	var set *Set
	var err error
	if s.last, set, err = files.read(); err != nil {
		return nil, err
	}
	s.set.Store(set)
	return s, nil
}

// Set is the last usable set.
func (s *Source) Set() *Set { return s.set.Load() }

// Failures counts the reads that found unusable files.
func (s *Source) Failures() uint64 { return s.failures.Load() }

// Reload reads the files. If they are not usable, that is logged and counted, and the
// set stays.
func (s *Source) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloadLocked(s.files.stat())
}

// Refresh is Reload if the size or the time of a file has changed.
func (s *Source) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stat := s.files.stat(); stat != s.stat || stat == recent {
		s.reloadLocked(stat)
	}
}

func (s *Source) reloadLocked(stat string) {
	s.stat = stat
	last, set, err := s.files.read()
	if last == s.last {
		return
	}
	s.last = last
	if err != nil {
		s.failures.Add(1)
		s.log.Error("certificate files cannot be used, the ones before stay in use", "error", err)
		return
	}
	s.set.Store(set)
	cert, ca := set.NotAfter()
	s.log.Info("certificate files were read again", "cert", s.files.Cert, "ca", s.files.CA, "cert_not_after", cert, "ca_not_after", ca)
}

// pollInterval is how often Follow looks at the files.
const pollInterval = time.Second

// Follow refreshes until ctx ends.
func (s *Source) Follow(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Refresh()
		case <-ctx.Done():
			return
		}
	}
}

// recent is the stat of files that changed so lately that another change may leave
// their sizes and times as they are.
const recent = "recent"

// stat describes the files without reading them.
func (f Files) stat() string {
	var out strings.Builder
	for _, path := range []string{f.Cert, f.Key, f.CA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			fmt.Fprintf(&out, "%v\n", err)
		case time.Since(info.ModTime()) < 2*pollInterval:
			return recent
		default:
			fmt.Fprintf(&out, "%d %d\n", info.Size(), info.ModTime().UnixNano())
		}
	}
	return out.String()
}

// maxKey bounds the file of a private key, in bytes: beside the key it may have its
// certificates.
const maxKey = 1 << 20

// read returns a digest of the contents, or the error as a text, and the set.
func (f Files) read() (digest string, _ *Set, err error) {
	var contents [3][]byte
	sum := sha256.New()
	for i, path := range []string{f.Cert, f.Key, f.CA} {
		if path == "" {
			continue
		}
		read := ReadFile
		if path == f.Key {
			read = func(path string) ([]byte, error) { return ReadPrivate(path, maxKey) }
		}
		if contents[i], err = read(path); err != nil {
			return err.Error(), nil, err
		}
		fmt.Fprintf(sum, "%d ", len(contents[i]))
		sum.Write(contents[i])
	}
	set, err := f.parse(contents[0], contents[1], contents[2])
	return string(sum.Sum(nil)), set, err
}

func (f Files) parse(cert, key, ca []byte) (*Set, error) {
	set := &Set{}
	if f.Cert != "" {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", f.Cert, f.Key, err)
		}
		set.Certificate = &pair
	}
	if f.CA != "" {
		var err error
		if set.authorities, err = parseCertificates(ca); err != nil {
			return nil, fmt.Errorf("%s: %w", f.CA, err)
		}
		set.Pool = x509.NewCertPool()
		for _, c := range set.authorities {
			set.Pool.AddCert(c)
		}
	}
	return set, nil
}

// parseCertificates returns the certificates of a PEM file, at least one.
func parseCertificates(data []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it, want PEM")
	}
	return all, nil
}

// NotAfter is when the certificate and the authorities expire, of several the first;
// zero for what the set does not have.
func (s *Set) NotAfter() (cert, ca time.Time) {
	if s.Certificate != nil {
		cert = s.Certificate.Leaf.NotAfter
	}
	for _, c := range s.authorities {
		if ca.IsZero() || c.NotAfter.Before(ca) {
			ca = c.NotAfter
		}
	}
	return cert, ca
}
