package raftlog

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces a file so that a crash leaves the old or the new one.
func WriteFile(path string, data []byte) error {
	return ReplaceFile(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// ReplaceFile is WriteFile for a file that write fills. It is open to its owner only.
func ReplaceFile(path string, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // best effort: the error to report is err
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
