package main

import (
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
)

// issued opens what the command wrote, and checks that the authority signed it.
func issued(t *testing.T, dir, name string, usage x509.ExtKeyUsage) *x509.Certificate {
	t.Helper()
	base := filepath.Join(dir, name)
	s, err := certs.Open(certs.Files{Cert: base + ".crt", Key: base + ".key", CA: filepath.Join(dir, caCert)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cert := s.Set().Certificate.Leaf
	if _, err := cert.Verify(x509.VerifyOptions{Roots: s.Set().Pool, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	info, err := os.Stat(base + ".key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s.key: %v, %v", name, info.Mode(), err)
	}
	return cert
}

func TestTLSMakesWorkingCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ok(t, "tls", "init", "-dir", dir)
	if out := ok(t, "tls", "issue", "-dir", dir, "-server", "-host", "172.16.3.3,node1.example", "-host", "::1"); !strings.Contains(out, filepath.Join(dir, "172.16.3.3.key")) {
		t.Error(out)
	}
	server := issued(t, dir, "172.16.3.3", x509.ExtKeyUsageServerAuth)
	for _, host := range []string{"172.16.3.3", "node1.example", "::1"} {
		if err := server.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if left := time.Until(server.NotAfter); left < 364*24*time.Hour || left > 366*24*time.Hour {
		t.Errorf("valid for %v, want a year", left)
	}
	ok(t, "tls", "issue", "-dir", dir, "-client", "web-1", "-days", "7")
	client := issued(t, dir, "web-1", x509.ExtKeyUsageClientAuth)
	if left := time.Until(client.NotAfter); client.Subject.CommonName != "web-1" || left > 7*24*time.Hour {
		t.Errorf("%s, valid for %v", client.Subject, left)
	}
	ok(t, "tls", "issue", "-dir", dir, "-node", "service-1", "-cluster", "prod", "-out", "peer-1")
	issued(t, dir, "peer-1", x509.ExtKeyUsageServerAuth)
	if peer := issued(t, dir, "peer-1", x509.ExtKeyUsageClientAuth); len(peer.URIs) != 1 || peer.URIs[0].String() != "registry://prod/node/service-1" {
		t.Errorf("%v", peer.URIs)
	}
}

// With -keep what is there and fits is kept; half of a pair is not.
func TestTLSKeepsFiles(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"init"}, {"issue", "-client", "a"}} {
		args = append([]string{"tls", args[0], "-dir", dir, "-keep"}, args[1:]...)
		if out := ok(t, args...); !strings.Contains(out, "wrote ") {
			t.Errorf("%v: %s", args, out)
		}
		if out := ok(t, args...); !strings.Contains(out, "exist and were kept") {
			t.Errorf("%v again: %s", args, out)
		}
	}
	issued(t, dir, "a", x509.ExtKeyUsageClientAuth)
	if err := os.Remove(filepath.Join(dir, "a.key")); err != nil {
		t.Fatal(err)
	}
	if r := execute(t, t.Context(), "", "tls", "issue", "-dir", dir, "-client", "a", "-keep"); r.code != exitFailure || !strings.Contains(r.stderr, "exists") {
		t.Errorf("%+v", r)
	}
}

// No file is replaced, and none is left by a command that failed.
func TestTLSReplacesNoFile(t *testing.T) {
	dir := t.TempDir()
	ok(t, "tls", "init", "-dir", dir)
	ok(t, "tls", "issue", "-dir", dir, "-client", "a")
	if err := os.Remove(filepath.Join(dir, "a.key")); err != nil { // the other half is still there
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, caKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init"}, {"issue", "-client", "a"}, {"issue", "-client", "ca"}} {
		r := execute(t, t.Context(), "", append([]string{"tls", args[0], "-dir", dir}, args[1:]...)...)
		if r.code != exitFailure || !strings.Contains(r.stderr, "exists") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, caKey))
	if err != nil || string(after) != string(before) {
		t.Errorf("the authority's key was replaced, %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a.key")); err == nil {
		t.Error("a key without a certificate was left")
	}
}

func TestTLSRefusesWhatMakesNoCertificate(t *testing.T) {
	dir := t.TempDir()
	ok(t, "tls", "init", "-dir", dir)
	for name, c := range map[string]struct {
		args string
		code int
		says string
	}{
		"nothing":           {"-dir " + dir, exitUsage, "want one of"},
		"no directory":      {"-client a", exitUsage, "-dir is required"},
		"no authority":      {"-dir " + t.TempDir() + " -client a", exitFailure, "tls init"},
		"no host":           {"-dir " + dir + " -server", exitUsage, "-host"},
		"host with a port":  {"-dir " + dir + " -server -host 127.0.0.1:9800", exitUsage, "port"},
		"host of a client":  {"-dir " + dir + " -client a -host b", exitUsage, "-server alone"},
		"two kinds":         {"-dir " + dir + " -server -host a -client b", exitUsage, "-server alone"},
		"client and node":   {"-dir " + dir + " -client a -node b", exitUsage, "want one of"},
		"name with a slash": {"-dir " + dir + " -client a/b", exitUsage, "-client"},
		"not a file's name": {"-dir " + dir + " -client a -out ../b", exitUsage, "-out"},
		"no days":           {"-dir " + dir + " -client a -days 0", exitUsage, "-days"},
		"cluster's name":    {"-dir " + dir + " -node a -cluster b/c", exitUsage, "-cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			r := execute(t, t.Context(), "", append([]string{"tls", "issue"}, strings.Fields(c.args)...)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.says) {
				t.Errorf("%+v", r)
			}
		})
	}
}
