package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// ErrNotRegular: a read of a FIFO or a device could wait for ever.
var ErrNotRegular = errors.New("not a regular file")

// ModeError: others than the owner and the group can use a file that is secret, or the
// group can change it.
type ModeError struct {
	Path string
	Mode fs.FileMode
}

// PrivateModes says what modes a file may have that is secret.
const PrivateModes = "mode 0600, 0400, 0640 or 0440"

func (e *ModeError) Error() string {
	return fmt.Sprintf("%s has mode %04o, want %s", e.Path, e.Mode, PrivateModes)
}

// ReadFile reads a regular file, also through symbolic links.
func ReadFile(path string) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// ReadPrivate is ReadFile for a file that is secret: its group may read it, and others
// may not (ModeError). It reads at most that many bytes and one more, which shows that
// there are too many.
func ReadPrivate(path string, most int64) ([]byte, error) {
	f, mode, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	if mode&0o037 != 0 && runtime.GOOS != "windows" {
		return nil, errors.Join(&ModeError{path, mode}, f.Close())
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	return data, errors.Join(err, f.Close())
}

func openRegular(path string) (*os.File, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is opened without waiting for a writer
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Mode().Perm(), nil
}
