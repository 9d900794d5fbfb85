package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// command says what to run.
type command struct {
	name    string // of the log
	program string // registry if empty
	path    string // of another program
	args    []string
	dir     string
	env     []string
	newPIDs bool // it is process 1 of a PID namespace: Linux, root
}

// process is a program that runs, or ran.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	log    *output
	exited chan struct{}
	code   int // set before exited is closed; -1: ended by a signal
}

// needSignal skips a test where the signal does not exist.
func needSignal(t *testing.T, signals ...os.Signal) {
	t.Helper()
	for _, s := range signals {
		if s == nil {
			t.Skip("this system lacks a signal that the test sends")
		}
	}
}

func start(t *testing.T, c command) *process {
	t.Helper()
	if c.program == "" {
		c.program = "registry"
	}
	p := &process{t: t, name: c.name, log: newOutput(t, c.name), exited: make(chan struct{})}
	if c.path == "" {
		c.path = program(c.program)
	}
	p.cmd = exec.Command(c.path, c.args...)
	p.cmd.Dir, p.cmd.Env = c.dir, slices.Concat(os.Environ(), lockEnv(t), c.env)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second // its own child may hold the pipes
	ownGroup(p.cmd)
	if c.newPIDs {
		newPIDs(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says more
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.exited)
	}()
	t.Cleanup(p.cleanup)
	return p
}

// cleanup ends the process, looks for what no process may write, and prints
// the log of a failed test.
func (p *process) cleanup() {
	state := "runs"
	if p.hasEnded() {
		state = p.cmd.ProcessState.String()
	}
	killGroup(p.cmd.Process)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		p.t.Errorf("%s: process %d did not end after a kill", p.name, p.cmd.Process.Pid)
	}
	if bad := unacceptable.FindString(p.log.text()); bad != "" {
		p.t.Errorf("%s: the log has %q", p.name, bad)
	}
	p.log.close()
	if p.t.Failed() {
		p.t.Logf("%s (%s): end of the log of %v:\n%s", p.name, state, p.cmd.Args[1:], p.log.tail(40))
	}
}

// unacceptable is what the Go runtime writes when a program is wrong.
var unacceptable = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE).*`)

// send sends a signal to the process alone.
func (p *process) send(s os.Signal) {
	p.t.Helper()
	needSignal(p.t, s)
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: signal %v: %v", p.name, s, err)
	}
}

// kill is SIGKILL; it waits until the process is gone.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatalf("%s: kill: %v", p.name, err)
	}
	p.ends(10 * time.Second)
}

// killIfRuns is kill for a process that may end by itself at any time.
func (p *process) killIfRuns() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("%s: kill: %v", p.name, err)
	}
	p.ends(10 * time.Second)
}

// ends waits for the end of the process and returns its exit code.
func (p *process) ends(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.code
	case <-time.After(within):
		p.t.Fatalf("%s still runs after %v", p.name, within)
		return 0
	}
}

// stop sends SIGTERM and expects an orderly end.
func (p *process) stop() time.Duration {
	p.t.Helper()
	began := time.Now()
	p.send(sigTerm)
	if code := p.ends(patience); code != 0 {
		p.t.Errorf("%s: exit code %d after SIGTERM", p.name, code)
	}
	return time.Since(began)
}

// says waits until the process has written text.
func (p *process) says(text string, within time.Duration) {
	p.t.Helper()
	deadline := time.After(within)
	for {
		have, changed := p.log.watch()
		if strings.Contains(have, text) {
			return
		}
		select {
		case <-changed:
		case <-p.exited:
			if !strings.Contains(p.log.text(), text) {
				p.t.Fatalf("%s ended with exit code %d before it said %q:\n%s", p.name, p.code, text, p.log.tail(20))
			}
			return
		case <-deadline:
			p.t.Fatalf("%s did not say %q within %v", p.name, text, within)
		}
	}
}

// output keeps what a process writes, in memory and in a file.
type output struct {
	mu      sync.Mutex // guards the rest
	data    []byte
	changed chan struct{} // closed at the next write
	file    *os.File
}

var logs atomic.Int64

func newOutput(t *testing.T, name string) *output {
	t.Helper()
	test := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	f, err := os.Create(filepath.Join(logDir, fmt.Sprintf("%s-%03d-%s.log", test, logs.Add(1), name)))
	if err != nil {
		t.Fatal(err)
	}
	return &output{changed: make(chan struct{}), file: f}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = append(o.data, p...)
	close(o.changed)
	o.changed = make(chan struct{})
	if o.file == nil { // a grandchild that outlived its test
		return len(p), nil
	}
	return o.file.Write(p)
}

func (o *output) watch() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.data), o.changed
}

func (o *output) text() string {
	text, _ := o.watch()
	return text
}

func (o *output) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(o.text()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.file.Close() // a log that lacks its end is no failure
	o.file = nil
}

// answer is what a command that ran to its end left behind.
type answer struct {
	code           int
	stdout, stderr string
}

// cli runs a registry command to its end.
func cli(t *testing.T, args ...string) answer { return cliWith(t, "", nil, args...) }

// cliWith is cli with text on stdin and more in the environment.
func cliWith(t *testing.T, stdin string, env []string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program("registry"), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Dir, cmd.Env, cmd.WaitDelay = t.TempDir(), slices.Concat(os.Environ(), lockEnv(t), env), time.Second
	ownGroup(cmd)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("registry %q: %v", args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("registry %q did not end in 30 s:\n%s", args, &stderr)
	}
	return answer{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok is cli for a command that must succeed; it returns its stdout.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	a := cli(t, args...)
	if a.code != 0 {
		t.Fatalf("registry %q: exit code %d:\n%s", args, a.code, a.stderr)
	}
	return a.stdout
}
