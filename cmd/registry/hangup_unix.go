//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// untilHangup returns a context that SIGHUP ends too, unless it is ignored, as
// by nohup. A terminal that goes may send it twice: the others change nothing.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	go func() {
		select {
		case s := <-got:
			cancel(signalCause{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(got); cancel(nil) }
}

// hangups returns a channel of SIGHUPs, which do not end the program until stop.
func hangups() (got <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
