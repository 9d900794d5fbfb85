package certs_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, files certs.Files) *certs.Source {
	t.Helper()
	s, err := certs.Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func subject(s *certs.Source) string { return s.Set().Certificate.Leaf.Subject.CommonName }

// replace puts the certificate and key of another pair under the names of files.
func replace(t *testing.T, files, by certs.Files) {
	t.Helper()
	for to, from := range map[string]string{files.Key: by.Key, files.Cert: by.Cert} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		certstest.Write(t, to, data)
	}
}

func TestOpenRefusesUnusableFiles(t *testing.T) {
	ca := certstest.NewCA(t)
	a, b := ca.Server("a"), ca.Server("b")
	empty := filepath.Join(t.TempDir(), "empty")
	certstest.Write(t, empty, nil)
	for name, c := range map[string]struct {
		files certs.Files
		says  string
	}{
		"cert without key":   {certs.Files{Cert: a.Cert}, "together"},
		"key without cert":   {certs.Files{Key: a.Key}, "together"},
		"key of another":     {certs.Files{Cert: a.Cert, Key: b.Key}, a.Cert},
		"no such cert":       {certs.Files{Cert: "/none.crt", Key: a.Key}, "/none.crt"},
		"empty cert":         {certs.Files{Cert: empty, Key: a.Key}, empty},
		"no such CA":         {certs.Files{CA: "/none.crt"}, "/none.crt"},
		"CA without a cert":  {certs.Files{CA: a.Key}, a.Key},
		"CA that is nothing": {certs.Files{CA: empty}, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := certs.Open(c.files, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
		})
	}
}

// New files are used; unusable ones leave the ones before, once counted each.
func TestRefreshTakesUsableFilesOnly(t *testing.T) {
	ca := certstest.NewCA(t)
	files, next := ca.Server("a"), ca.Server("b")
	s := open(t, files)
	s.Refresh()
	if subject(s) != "a" || s.Failures() != 0 {
		t.Fatalf("%s, %d failures", subject(s), s.Failures())
	}
	for name, c := range map[string]struct{ path, data string }{
		"garbage":         {files.Cert, "no PEM"},
		"a CA of nothing": {files.CA, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, files)
			good, err := os.ReadFile(c.path)
			if err != nil {
				t.Fatal(err)
			}
			defer certstest.Write(t, c.path, good)
			certstest.Write(t, c.path, []byte(c.data))
			for range 3 {
				s.Refresh()
			}
			if subject(s) != "a" || s.Set().Pool == nil || s.Failures() != 1 {
				t.Errorf("%s, %d failures", subject(s), s.Failures())
			}
		})
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	s.Refresh()
	if subject(s) != "a" || s.Failures() != 1 {
		t.Errorf("without a key: %s, %d failures", subject(s), s.Failures())
	}
	replace(t, files, next)
	s.Refresh()
	if subject(s) != "b" || s.Failures() != 1 {
		t.Errorf("new files: %s, %d failures", subject(s), s.Failures())
	}
}

// A file of another content and the same size and time is found while it is young, and
// by Reload at any age.
func TestRefreshLooksAtSizeAndTime(t *testing.T) {
	ca := certstest.NewCA(t)
	files, next := ca.Server("a"), ca.Server("b")
	old := time.Now().Add(-time.Hour)
	age := func() {
		for _, f := range []string{files.Cert, files.Key, files.CA} {
			if err := os.Chtimes(f, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := open(t, files)
	replace(t, files, next) // within the file system's resolution, maybe
	s.Refresh()
	if subject(s) != "b" {
		t.Error("a young file was not read again")
	}
	age()
	s.Refresh()
	replace(t, files, ca.Server("c"))
	age()
	if s.Refresh(); subject(s) == "c" {
		t.Skip("the sizes differ by chance") // of the signatures
	}
	if s.Reload(); subject(s) != "c" {
		t.Error("Reload did not read the files")
	}
}

func TestFollowRefreshesUntilItsContextEnds(t *testing.T) {
	ca := certstest.NewCA(t)
	files, next := ca.Server("a"), ca.Server("b")
	s := open(t, files)
	replace(t, files, next)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.Follow(ctx)
		time.Sleep(3 * time.Second) // of the bubble's clock
		synctest.Wait()
		if subject(s) != "b" {
			t.Error("the files were not read again")
		}
	})
}

func TestNotAfterIsTheFirstToExpire(t *testing.T) {
	long, short := certstest.NewCA(t), certstest.NewCA(t)
	data := ""
	for _, path := range []string{long.Path, short.Path} {
		pem, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data += string(pem)
	}
	both := filepath.Join(t.TempDir(), "both.crt")
	certstest.Write(t, both, []byte(data))
	files := long.Issue("a", certs.Request{Lifetime: time.Minute})
	files.CA = both
	cert, ca := open(t, files).Set().NotAfter()
	_, first := open(t, certs.Files{CA: long.Path}).Set().NotAfter()
	if until := time.Until(cert); until < 50*time.Second || until > time.Minute || !ca.Equal(first) {
		t.Errorf("cert %v, CA %v, want a minute and %v", cert, ca, first)
	}
}

// Connections after a reload have the new certificate, and resume no session of before.
func TestServerConfigFollowsTheFiles(t *testing.T) {
	ca := certstest.NewCA(t)
	files, next := ca.Server("a"), ca.Server("b")
	s := open(t, files)
	server := certs.NewServer(s, certs.ServerOptions{})
	before := server.Config()
	if server.Config() != before {
		t.Error("a configuration for each connection: no session is ever resumed")
	}
	replace(t, files, next)
	s.Refresh()
	if after := server.Config(); after == before || after.Certificates[0].Leaf.Subject.CommonName != "b" || after.MinVersion != tls.VersionTLS13 {
		t.Errorf("got %+v", after)
	}
}
