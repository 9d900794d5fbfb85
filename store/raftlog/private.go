package raftlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// otherUsers are the permissions of a file's group and of everybody.
const otherUsers fs.FileMode = 0o077

// MakePrivate takes the permissions of other users away from a file, or from a directory
// and all that is in it, and returns the paths that had some.
//
// It goes on after an error. A file system without permissions refuses, and so does a
// mount point of another owner: that is for the operator to know, and no reason not to
// run. Links are not followed, but for the path itself.
func MakePrivate(path string) (changed []string, err error) {
	if runtime.GOOS == "windows" {
		return nil, nil // has other permissions
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	// The function returns no error, so neither does WalkDir.
	_ = filepath.WalkDir(path, func(at string, e fs.DirEntry, failed error) error {
		if failed == nil && e.IsDir() && e.Name() == "lost+found" {
			return fs.SkipDir
		}
		wide, cherr := false, failed
		if cherr == nil {
			wide, cherr = makePrivate(at, e)
		}
		if err = errors.Join(err, cherr); wide {
			changed = append(changed, at)
		}
		return nil
	})
	return changed, err
}

func makePrivate(path string, e fs.DirEntry) (wide bool, err error) {
	info, err := e.Info()
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() || info.Mode()&otherUsers == 0 {
		return false, err
	}
	err = os.Chmod(path, info.Mode()&^otherUsers)
	return err == nil, err
}
