//go:build unix

package certs

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// inTime fails the test where f waits, as a read of a FIFO without a writer does.
func inTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}

// What is secret is read only where others cannot read it.
func TestReadPrivateModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o440: true,
		0o644: false, 0o604: false, 0o660: false, 0o601: false, 0o444: false, 0o777: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		data, err := ReadPrivate(path, 100)
		wide, refused := errors.AsType[*ModeError](err)
		if refused == want || want && string(data) != "0123456789" || refused && (wide.Mode != mode || wide.Path != path) {
			t.Errorf("%04o: %q, %v", mode, data, err)
		}
		if _, err := ReadFile(path); err != nil {
			t.Errorf("%04o, where it is no secret: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadPrivate(path, 4); err != nil || len(data) != 5 {
		t.Errorf("%q, %v, want one byte more than 4", data, err)
	}
}

// What is no regular file is refused at once; a link to one is followed.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("x"), 0o600), os.Symlink("file", at("link")),
		syscall.Mkfifo(at("fifo"), 0o600), os.Symlink("fifo", at("link-to-fifo"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"file": nil, "link": nil, "fifo": ErrNotRegular, "link-to-fifo": ErrNotRegular, ".": ErrNotRegular, "none": fs.ErrNotExist,
	} {
		inTime(t, func() {
			_, public := ReadFile(at(name))
			_, private := ReadPrivate(at(name), 10)
			if !errors.Is(public, want) || !errors.Is(private, want) {
				t.Errorf("%s: %v, %v, want %v", name, public, private, want)
			}
		})
	}
	inTime(t, func() {
		if _, err := ReadFile(os.DevNull); !errors.Is(err, ErrNotRegular) {
			t.Errorf("a device: %v", err)
		}
	})
}

// A FIFO in the place of a file does not stop the reloads, and a key that others can read
// is not used.
func TestReloadOfUnusableFiles(t *testing.T) {
	root, err := NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := Files{Cert: filepath.Join(dir, "c.crt"), Key: filepath.Join(dir, "c.key")}
	if err := root.Write(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	s, err := Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	set := s.Set()
	if err := os.Chmod(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if _, err := Open(files, slog.New(slog.DiscardHandler)); s.Failures() != 1 || s.Set() != set || err == nil {
		t.Errorf("a key for everybody: %d failures, %v", s.Failures(), err)
	}
	if err := errors.Join(os.Remove(files.Cert), syscall.Mkfifo(files.Cert, 0o600)); err != nil {
		t.Fatal(err)
	}
	inTime(t, s.Reload)
	if s.Failures() != 2 || s.Set() != set {
		t.Errorf("a FIFO: %d failures", s.Failures())
	}
}
