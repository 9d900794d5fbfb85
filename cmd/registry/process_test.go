package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// processEnv makes the test binary the program.
const processEnv = "REGISTRY_TEST_PROCESS"

// process is the program in a process of its own, which ends with the test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  bytes.Buffer // read when it has ended
	done chan struct{}
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), processEnv+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says more
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%q:\n%s", args, &p.log)
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// stop ends the process as a user does, who expects exit code 0.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
			p.t.Errorf("%q: exit code %d", p.cmd.Args[1:], code)
		}
	case <-time.After(20 * time.Second):
		p.t.Errorf("%q does not end", p.cmd.Args[1:])
	}
}

// settled waits until three voters are ready and follow one leader, of which it
// returns the id.
func settled(t *testing.T, addrs string) string {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		r := execute(t, t.Context(), "", "cluster", "status", "-json", "-timeout", "3s", "-registries", addrs)
		var st statusJSON
		if r.code == exitOK && json.Unmarshal([]byte(r.stdout), &st) == nil && st.Leader != "" {
			ready := 0
			for _, n := range st.Nodes {
				if n.Voter && n.Ready {
					ready++
				}
			}
			if ready == 3 {
				return st.Leader
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no cluster of three: %+v", r)
		}
	}
}

// TestProcesses: three nodes and a service as processes. The leader is killed,
// the others answer, it comes back, and all end in order. Module tests does much
// more of this.
func TestProcesses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can be interrupted")
	}
	bind, addr := freePorts(t, 3), freePorts(t, 3)
	binds := strings.Join([]string{local(bind), local(bind + 1), local(bind + 2)}, ",")
	addrs := strings.Join([]string{local(addr), local(addr + 1), local(addr + 2)}, ",")
	dir, nodes := t.TempDir(), map[string]*process{}
	startNode := func(i int) {
		id := fmt.Sprintf("n%d", i+1)
		nodes[id] = startProcess(t, "serve", "-id", id, "-bind", local(bind+i), "-addr", local(addr+i),
			"-data-dir", filepath.Join(dir, id), "-bootstrap-expect", "3", "-registries", binds)
	}
	for i := range 3 {
		startNode(i)
	}
	leader := settled(t, addrs)
	service := startProcess(t, "register", "-registries", addrs, "-group", "web", "-id", "web-1", "-addr", "127.0.0.1:8080")
	owner := func() {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); ; <-tick.C {
			r := execute(t, t.Context(), "", "match", "-linearizable", "-timeout", "5s", "-registries", addrs, "web", "user-1")
			if r.code == exitOK && strings.Contains(r.stdout, "web-1") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody owns the key: %+v", r)
			}
		}
	}
	owner()
	nodes[leader].kill()
	owner()
	startNode(int(leader[1] - '1'))
	settled(t, addrs)
	service.stop()
	if r := execute(t, t.Context(), "", "match", "-linearizable", "-registries", addrs, "web", "user-1"); r.code == exitOK {
		t.Errorf("the service has ended and owns a key: %s", r.stdout)
	}
	for _, n := range nodes {
		n.stop()
	}
}
