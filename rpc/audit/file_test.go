package audit

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The file is for its owner, is appended to, and is opened again after it was moved.
func TestFileIsReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	open := func() *Writer {
		w, err := Open(path, slog.New(slog.DiscardHandler), func() { t.Error("a failure") })
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	write := func(w *Writer, line string) {
		if _, err := w.Write([]byte(line + "\n")); err != nil {
			t.Error(err)
		}
	}
	w := open()
	write(w, "one")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open()
	write(w, "two")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(w, "three")
	w.Reopen()
	write(w, "four")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if before, now := read(t, path+".1"), read(t, path); before != "one\ntwo\nthree\n" || now != "four\n" {
		t.Errorf("before %q, now %q", before, now)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
}

// A file that cannot be opened again is counted, and the one before stays in use.
func TestReopenFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	failures := 0
	w, err := Open(filepath.Join(dir, "audit.log"), slog.New(slog.DiscardHandler), func() { failures++ })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if err := os.Rename(dir, dir+".1"); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	if _, err := w.Write([]byte("one\n")); err != nil || failures != 1 {
		t.Errorf("%v, %d failures", err, failures)
	}
	if got := read(t, filepath.Join(dir+".1", "audit.log")); got != "one\n" {
		t.Errorf("%q", got)
	}
}

// disk has room for some bytes.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(p []byte) (int, error) {
	if n := min(d.room, len(p)); n < len(p) {
		_, _ = d.Buffer.Write(p[:n])
		d.room = 0
		return n, io.ErrShortWrite
	}
	return d.Buffer.Write(p)
}

// Lines that cannot be written are counted, the first is logged, and the next one that
// can be begins on a line of its own.
func TestWriteErrors(t *testing.T) {
	var log bytes.Buffer
	failures, out := 0, &disk{room: 7}
	w := To(out, slog.New(slog.NewTextHandler(&log, nil)), func() { failures++ })
	l := New(slog.New(NewHandler(w)), nil)
	for range 3 {
		l.Act(from("10.0.0.1:1"))
	}
	if logged := strings.Count(log.String(), "lost"); failures != 3 || logged != 1 {
		t.Errorf("%d failures, logged %d times", failures, logged)
	}
	out.room = 1 << 20
	l.Act(from("10.0.0.1:1"))
	if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], "{") || failures != 3 {
		t.Errorf("%q, %d failures", lines, failures)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l.Act(from("10.0.0.1:1")) // after Close
	if failures != 4 {
		t.Errorf("%d failures", failures)
	}
}
