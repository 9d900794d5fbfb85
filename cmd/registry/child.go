package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// killAfter is how long a command that lost its seat may take to end.
const killAfter = 10 * time.Second

// child is the command of "register -- CMD".
type child struct {
	cmd *exec.Cmd
	// shared: a terminal's Ctrl-C reaches the command without our help, since
	// both are in the terminal's foreground process group.
	shared bool
	ended  chan error
	// stopping, when set, is called before the command is told to end. It says
	// whether the seat is held: the registration is over then, and not lost.
	stopping func() (held bool)
}

// newChild finds the command; nil if there is none. It is looked for before the
// service is registered, so that a typing error registers nothing.
func newChild(e *env, args []string) (*child, error) {
	if len(args) == 0 {
		return nil, nil
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNoCommand
		if errors.Is(err, os.ErrPermission) {
			code = exitNoExec
		}
		return nil, &exitError{code: code, err: err}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.stdin, e.stdout, e.stderr
	cmd.WaitDelay = time.Second // a grandchild may hold a pipe open for ever
	return &child{cmd: cmd, shared: isTerminal(e.stdin), ended: make(chan error, 1)}, nil
}

// run starts the command and returns when it has ended: nil for status 0, an
// exitError without a message for another. The end of ctx and the signals that
// this process gets are passed on; when lost is closed the command is told to
// end, and made to after killAfter.
func (c *child) run(ctx context.Context, lost <-chan struct{}) error {
	signals := make(chan os.Signal, 8)
	if len(passedOn) > 0 {
		signal.Notify(signals, passedOn...)
	}
	defer signal.Stop(signals)
	if err := c.cmd.Start(); err != nil {
		return &exitError{code: exitNoExec, err: fmt.Errorf("start the command: %w", err)}
	}
	go func() { c.ended <- c.cmd.Wait() }()

	var kill <-chan time.Time
	stop := ctx.Done()
	for {
		select {
		case err := <-c.ended:
			return c.status(err)
		case s := <-signals:
			c.forward(s)
		case <-stop:
			stop = nil
			// From here on a second signal is passed on too, instead of killing us.
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
			if c.stopping != nil && c.stopping() {
				lost = nil
			}
			c.forward(cause(ctx))
		case <-lost:
			lost = nil
			c.forward(syscall.SIGTERM)
			timer := time.NewTimer(killAfter)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			c.forward(syscall.SIGKILL)
		}
	}
}

// cause is the signal that ended ctx, SIGTERM if it was none.
func cause(ctx context.Context) os.Signal {
	if s, ok := errors.AsType[signalCause](context.Cause(ctx)); ok {
		return s.Signal
	}
	return syscall.SIGTERM
}

// forward sends s to the command, unless the terminal has.
func (c *child) forward(s os.Signal) {
	if c.shared && (s == os.Interrupt || s == syscall.SIGQUIT) {
		return
	}
	_ = c.cmd.Process.Signal(s) // it fails if the command has ended, which run sees next
}

// status turns the end of the command into our own.
func (c *child) status(err error) error {
	state := c.cmd.ProcessState
	if state == nil {
		return fmt.Errorf("wait for the command: %w", err)
	}
	if n := signalNumber(state); n > 0 {
		return &exitError{code: 128 + n}
	}
	if state.ExitCode() != 0 {
		return &exitError{code: state.ExitCode()}
	}
	return nil
}
