package raftlog

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Watchdog ends the node when its log cannot be written: a leader whose disk
// fails or hangs would otherwise lead on, acknowledge nothing and never step
// down. The cluster goes on without it.
type Watchdog struct {
	MaxHang time.Duration   // how long a write may take
	Fatal   func(error)     // told of a failure; the node has to end
	Closed  <-chan struct{} // closed when the node is being closed
}

// run runs one write.
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

// hangSteps is how many times in a row a write must be seen hanging.
const hangSteps = 10

// hangWatch looks at a write in steps and counts the steps, not the time: a
// process that stood still, or a machine that slept, in the middle of a write
// comes back to one step that took long, and not to a disk that hangs.
type hangWatch struct {
	step  time.Duration
	hangs func()

	mu    sync.Mutex // guards the rest
	timer *time.Timer
	left  int // 0: it is over
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
	defer w.mu.Unlock()
	if w.left == 0 {
		return
	}
	if w.left--; w.left == 0 {
		w.hangs()
		return
	}
	w.timer.Reset(w.step)
}

func (w *hangWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = 0
	w.timer.Stop()
}

// Advice says what helps against an error of the disk.
func Advice(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "; free some space there and start the node again, what it acknowledged is on its disk"
	}
	return ""
}

// readFailed ends the node when what it reads is damaged. Raft would panic at
// the error, so its goroutine waits here for the end and then ends itself.
func (f Watchdog) readFailed(err error) {
	f.Fatal(err)
	f.waitForEnd()
}

// waitForEnd keeps raft's goroutine until the node is closed, and ends it.
func (f Watchdog) waitForEnd() {
	<-f.Closed
	runtime.Goexit()
}
