// Package certstest makes the certificate files of tests.
package certstest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
)

// CA is an authority whose files are in a directory of the test.
type CA struct {
	t         testing.TB
	dir       string
	authority *certs.Authority
	Path      string // of its certificate
}

// NewCA makes an authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	pair, err := certs.NewAuthority("test CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := certs.ReadAuthority(pair)
	if err != nil {
		t.Fatal(err)
	}
	ca := &CA{t: t, dir: t.TempDir(), authority: authority}
	ca.Path = filepath.Join(ca.dir, "ca.crt")
	Write(t, ca.Path, pair.Cert)
	return ca
}

// Issue writes a certificate and its key under a name. A lifetime of zero is an hour;
// one below zero has ended.
func (c *CA) Issue(name string, r certs.Request) certs.Files {
	c.t.Helper()
	if r.Name = name; r.Lifetime == 0 {
		r.Lifetime = time.Hour
	}
	pair, err := c.authority.Issue(r)
	if err != nil {
		c.t.Fatal(err)
	}
	files := certs.Files{Cert: filepath.Join(c.dir, name+".crt"), Key: filepath.Join(c.dir, name+".key"), CA: c.Path}
	Write(c.t, files.Key, pair.Key)
	Write(c.t, files.Cert, pair.Cert)
	return files
}

// Server is the certificate of a node on loopback.
func (c *CA) Server(name string) certs.Files {
	c.t.Helper()
	return c.Issue(name, certs.Request{Server: true, Hosts: []string{"127.0.0.1", "localhost"}})
}

// Client is a client's certificate.
func (c *CA) Client(name string) certs.Files {
	c.t.Helper()
	return c.Issue(name, certs.Request{Client: true})
}

// Write replaces a file in one step.
func Write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
