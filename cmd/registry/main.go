package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// env is what a command may touch of the process that it runs in.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func main() {
	tuneGC()
	ctx, cancel := context.WithCancelCause(context.Background())
	first := make(chan os.Signal, 1)
	signal.Notify(first, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		s := <-first
		// The first signal asks for an orderly end; a second one, during it, kills.
		signal.Stop(first)
		cancel(signalCause{s})
	}()
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(run(ctx, e, os.Args[1:]))
}

// signalCause is why main's context ended: the user, or a supervisor, wants it.
type signalCause struct{ os.Signal }

func (s signalCause) Error() string { return s.String() }

// run executes one command line, without the program's name, and returns the
// exit code. It writes the error, if any, to stderr.
func run(ctx context.Context, e *env, args []string) int {
	app := newApp(e)
	if n := len(args); n > 0 && args[n-1] == completeFlag {
		printCompletions(ctx, e.stdout, app, args[:n-1])
		return exitOK
	}
	args, help, err := normalize(app, args)
	if help != nil {
		printHelp(e.stdout, app, help)
		return exitOK
	}
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, args...))
	}
	return report(e.stderr, err)
}
