package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// Writer writes lines to a file or to standard error. What cannot be written is counted,
// and lost.
type Writer struct {
	path   string // empty: not a file
	log    *slog.Logger
	failed func()

	mu      sync.Mutex // guards the rest
	out     io.Writer
	file    *os.File // nil: not a file, or closed
	failing bool     // the last line was not written
	partial bool     // a part of it was
}

// Open opens the file, for its owner alone if it is new. log is told of the first of
// several errors in a row, failed of each.
func Open(path string, log *slog.Logger, failed func()) (*Writer, error) {
	w := &Writer{path: path, log: log, failed: failed}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	w.out, w.file = f, f
	return w, nil
}

// To returns a Writer that writes to out.
func To(out io.Writer, log *slog.Logger, failed func()) *Writer {
	return &Writer{out: out, log: log, failed: failed}
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// Write writes one line.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		return 0, w.noteLocked(os.ErrClosed)
	}
	if w.partial {
		line = append([]byte{'\n'}, line...)
	}
	n, err := w.out.Write(line)
	w.partial = err != nil && (n > 0 || w.partial)
	return n, w.noteLocked(err)
}

func (w *Writer) noteLocked(err error) error {
	if err != nil {
		w.failed()
		if !w.failing {
			w.log.Error("a line of the audit log was lost", "error", err)
		}
	}
	w.failing = err != nil
	return err
}

// Reopen opens the file again under its name, as after logrotate has moved it. If that
// fails, the file before stays in use.
func (w *Writer) Reopen() {
	if w.path == "" {
		return
	}
	f, err := openFile(w.path)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil:
		w.failed()
		w.log.Error("the audit log cannot be opened again, the file before stays in use", "error", err)
	case w.file == nil: // closed meanwhile
		_ = f.Close()
	default:
		before := w.file
		w.out, w.file, w.failing, w.partial = f, f, false, false
		if err := before.Close(); err != nil {
			w.log.Error("close the audit log before", "error", err)
		}
	}
}

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = nil
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}
