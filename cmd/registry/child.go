package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// killAfter is how long a command that lost its registration may take to end, and how
// long the processes that a command leaves behind may.
const killAfter = 10 * time.Second

// child is the command of "register -- CMD".
type child struct {
	cmd *exec.Cmd
	// shared: the command stays in our process group, since only the foreground
	// group of a terminal may read from it. A terminal's Ctrl-C then reaches the
	// command without our help. Without a terminal it gets a group of its own.
	shared bool
	ended  chan error
	// stopping, when set, is called before the command is told to end. It says
	// whether the member is held: the registration is over then, and not lost.
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
	// The token is this process's, not the service's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, tokenVariable+"=") })
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.stdin, e.stdout, e.stderr
	cmd.WaitDelay = time.Second // a grandchild may hold a pipe open for ever
	c := &child{cmd: cmd, shared: isTerminal(e.stdin), ended: make(chan error, 1)}
	cmd.SysProcAttr = childAttr(!c.shared)
	return c, nil
}

// run starts the command and returns when it has ended: nil for status 0, an
// exitError without a message for another. The end of ctx and the signals that
// this process gets are passed on; when lost is closed the command is told to
// end, and made to after killAfter. What a command that was told to end leaves
// running in its group ends too: it is not registered any more.
func (c *child) run(ctx context.Context, lost <-chan struct{}) error {
	signals := make(chan os.Signal, 8)
	for _, s := range passedOn {
		if !signal.Ignored(s) { // nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if err := c.start(); err != nil {
		return &exitError{code: exitNoExec, err: fmt.Errorf("start the command: %w", err)}
	}
	var kill <-chan time.Time
	stop, signaled := ctx.Done(), false
	for {
		select {
		case err := <-c.ended:
			if signaled {
				c.endGroup()
			}
			return err
		case s := <-signals:
			c.forward(s)
		case <-stop:
			stop, signaled = nil, true
			// From here on a second signal is passed on too, instead of killing us.
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
			if c.stopping != nil && c.stopping() {
				lost = nil
			}
			c.forward(cause(ctx))
		case <-lost:
			lost, signaled = nil, true
			c.forward(syscall.SIGTERM)
			timer := time.NewTimer(killAfter)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			c.kill()
		}
	}
}

// start starts the command from a thread that lives as long as the command:
// Linux sends the parent-death signal when the thread that forked ends.
func (c *child) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.ended <- c.wait()
		}
	}()
	return <-started
}

// wait returns the command's end as our own.
func (c *child) wait() error {
	if os.Getpid() == 1 {
		return waitAsInit(c.cmd.Process.Pid)
	}
	err := c.cmd.Wait()
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

// endGroup ends what an ended command has left in its group: by SIGTERM, and
// after killAfter by SIGKILL.
func (c *child) endGroup() {
	if c.shared || groupEnded(c.cmd.Process.Pid) {
		return
	}
	signalGroup(c.cmd.Process.Pid, syscall.SIGTERM)
	timer, ticker := time.NewTimer(killAfter), time.NewTicker(20*time.Millisecond)
	defer timer.Stop()
	defer ticker.Stop()
	for !groupEnded(c.cmd.Process.Pid) {
		select {
		case <-ticker.C: // nothing tells of the end of another's child
		case <-timer.C:
			c.kill()
			return
		}
	}
}

// kill ends the command, and all of its group if that is not ours.
func (c *child) kill() {
	if c.shared {
		_ = c.cmd.Process.Kill() // it fails if the command has ended
		return
	}
	signalGroup(c.cmd.Process.Pid, syscall.SIGKILL)
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
