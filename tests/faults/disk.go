//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/werbenhu/registry/tests/faults/cluster"
)

// needsStrace is for faults of single system calls.
func needsStrace(*Env) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return errors.New("no strace (Debian: apt-get install strace)")
	}
	if out, err := exec.Command("strace", "-o", os.DevNull, "-e", "inject=fsync:delay_exit=1", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("strace does not work here: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// tamper has strace change a node's syncs from now on until the returned
// function is called.
func (r *Run) tamper(ctx context.Context, n *cluster.Node, how string) (stop func() error, err error) {
	said := filepath.Join(r.Cluster.Dir, n.ID+".strace")
	if err := os.Remove(said); err != nil && !errors.Is(err, os.ErrNotExist) { // of a run before
		return nil, err
	}
	cmd := exec.Command("strace", "-f", "-o", said, "-p", fmt.Sprint(n.PID()), "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+how)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // also when its process ended, or it was killed
		close(ended)
	}()
	stop = func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		timer := time.NewTimer(5 * time.Second) // it waits for a call that is delayed
		defer timer.Stop()
		select {
		case <-ended:
			return nil
		case <-timer.C:
		}
		err := cmd.Process.Kill()
		<-ended
		return err
	}
	// It works when it has seen a call, and may have ended by then, because the
	// call that failed ended the node.
	err = within(ctx, 10*time.Second, func() error {
		if info, err := os.Stat(said); err == nil && info.Size() > 0 {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("strace of %s ended and has seen nothing", n.ID)
		default:
			return fmt.Errorf("strace of %s has seen nothing yet", n.ID)
		}
	})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// endsSaying waits until a node ended by itself, as a failed one does, and has
// written the words.
func (r *Run) endsSaying(ctx context.Context, n *cluster.Node, since int64, words ...string) error {
	err := within(ctx, mendLimit, func() error {
		if n.Running() {
			return fmt.Errorf("%s goes on", n.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if code := n.ExitCode(); code != 1 {
		return fmt.Errorf("%s ended with exit code %d, want 1", n.ID, code)
	}
	return says(n, since, words...)
}

// says looks for words in what a node wrote since then.
func says(n *cluster.Node, since int64, words ...string) error {
	said, err := os.ReadFile(n.Log)
	if err != nil {
		return err
	}
	for _, w := range words {
		if !strings.Contains(string(said[since:]), w) {
			return fmt.Errorf("%s does not say %q", n.ID, w)
		}
	}
	return nil
}

// logSize is how much a node has written so far.
func logSize(n *cluster.Node) int64 {
	info, err := os.Stat(n.Log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// rejoin does what a node says that refuses its data: remove, wipe, join.
func (r *Run) rejoin(ctx context.Context, n *cluster.Node) error {
	others := r.Cluster.Others(n)
	if err := r.remove(ctx, n); err != nil {
		return err
	}
	r.Heal("%s was removed and joins", n.ID)
	return errors.Join(n.Wipe(), n.Start("-registries="+others[0].Bind()+","+others[1].Bind()))
}

// needsMounts is for disks of a stated size.
func needsMounts(*Env) error {
	dir, err := os.MkdirTemp("", "registry-faults-mount-")
	if err != nil {
		return err
	}
	err = unix.Mount("registry-faults", dir, "tmpfs", 0, "size=1m")
	if err == nil {
		err = unix.Unmount(dir, 0)
	}
	return errors.Join(err, os.Remove(dir))
}

// diskMiB is the size of a small disk. With room on it again, it takes what the others have
// written meanwhile, in whole segments of the log, and is above the low-water mark.
const diskMiB = 320

// smallDisk moves the data of a node that does not run to a disk of its own.
// The returned functions make room on it, and move the data back.
func smallDisk(n *cluster.Node) (room, back func() error, err error) {
	aside := n.Dir + ".aside"
	if err := errors.Join(os.Rename(n.Dir, aside), os.Mkdir(n.Dir, 0o700)); err != nil {
		return nil, nil, err
	}
	if err := unix.Mount("registry-faults", n.Dir, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMiB)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("mount: %w", err), os.Remove(n.Dir), os.Rename(aside, n.Dir))
	}
	if err := errors.Join(os.CopyFS(n.Dir, os.DirFS(aside)), punch(filepath.Join(n.Dir, "raft.db"))); err != nil {
		return nil, nil, errors.Join(err, unix.Unmount(n.Dir, 0))
	}
	room = func() error { return os.Remove(filepath.Join(n.Dir, filler)) }
	back = func() error {
		if err := errors.Join(os.RemoveAll(aside), os.CopyFS(aside, os.DirFS(n.Dir))); err != nil {
			return err
		}
		return errors.Join(unix.Unmount(n.Dir, 0), os.Remove(n.Dir), os.Rename(aside, n.Dir))
	}
	return room, back, nil
}

// punch gives back what a file has of empty pages: the log's file has room
// ahead, as holes, which its copy has filled.
func punch(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page, empty := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); ; at += int64(len(page)) {
		if _, err := f.ReadAt(page, at); err != nil {
			return unlessEOF(err)
		}
		if !bytes.Equal(page, empty) {
			continue
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, int64(len(page))); err != nil {
			return fmt.Errorf("punch a hole: %w", err)
		}
	}
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

const filler = "filler"

// fill writes until the disk is full.
func fill(dir string) error {
	f, err := os.Create(filepath.Join(dir, filler))
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
