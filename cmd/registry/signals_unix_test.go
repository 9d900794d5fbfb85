//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
)

func TestSignalsArePassedOn(t *testing.T) {
	f := startFake(t)
	t.Run("the one that stops us", func(t *testing.T) {
		r := startWaiting(t, f)
		r.cancel(signalCause{os.Interrupt})
		r.until("got INT")
		r.wait(3)
		f.expect(t, "deregister web/w1")
	})
	t.Run("one that is not for us", func(t *testing.T) {
		r := startWaiting(t, f)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.until("got HUP")
		r.cancel(nil)
		r.until("got TERM")
		r.wait(4)
		f.expect(t, "deregister web/w1")
	})
}
