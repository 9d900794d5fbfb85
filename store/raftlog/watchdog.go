package raftlog

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Watchdog ends the node when a write of its log fails or hangs. Otherwise a leader with
// such a disk would stay the leader and acknowledge nothing.
type Watchdog struct {
	MaxHang time.Duration   // how long a write may take
	Fatal   func(error)     // called with a failure; the node must end
	Closed  <-chan struct{} // closed when the node is being closed
}

// run runs one write under the watchdog.
func (f Watchdog) run(what string, write func() error) error {
	watch := startHangWatch(f.MaxHang, func() {
		f.Fatal(fmt.Errorf("%w: %s has not returned for %s", ErrStorage, what, f.MaxHang))
	})
	defer watch.stop()
	if err := guardPanic(write); err != nil {
		err = fmt.Errorf("%w: %s: %w%s", ErrStorage, what, err, Advice(err))
		f.Fatal(err)
		return err
	}
	return nil
}

// hangSteps is how many checks in a row must find the same write unfinished.
const hangSteps = 10

// hangWatch checks a write in steps and counts the steps, not the time: after a pause of
// the process or the machine during a write one step is late, which is no hanging disk.
type hangWatch struct {
	step  time.Duration
	hangs func()

	mu    sync.Mutex // guards the rest
	timer *time.Timer
	left  int // steps; 0: done
}

func startHangWatch(limit time.Duration, hangs func()) *hangWatch {
	w := &hangWatch{step: limit / hangSteps, hangs: hangs, left: hangSteps}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.step, w.tick)
	return w
}

func (w *hangWatch) tick() {
	w.mu.Lock()
	hung := w.left == 1
	if w.left = max(w.left-1, 0); w.left > 0 {
		w.timer.Reset(w.step)
	}
	w.mu.Unlock()
	if hung {
		w.hangs()
	}
}

func (w *hangWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = 0
	w.timer.Stop()
}

// Advice is what to do about an error of the disk; empty if there is nothing.
func Advice(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "; free some space there and start the node again, what it acknowledged is on its disk"
	}
	return ""
}

// readFailed ends the node after it read damaged data. raft would panic at the error,
// so its goroutine blocks here until the node is closed, and then exits.
func (f Watchdog) readFailed(err error) {
	f.Fatal(err)
	f.waitForEnd()
}

// waitForEnd blocks raft's goroutine until the node is closed, and exits it.
func (f Watchdog) waitForEnd() {
	<-f.Closed
	runtime.Goexit()
}
