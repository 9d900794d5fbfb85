package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runs tells whether a process runs; a zombie does not.
func runs(pid int) bool {
	_, state := parentAndState(pid)
	return state != "" && state != "Z"
}

// parentAndState reads /proc; both are zero when there is no such process.
func parentAndState(pid int) (parent int, state string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	parent, _ = strconv.Atoi(fields[1]) // the kernel's own text
	return parent, fields[0]
}

func childrenOf(pid int) (out []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is sound
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		if parent, state := parentAndState(child); parent == pid {
			out = append(out, fmt.Sprintf("%d (%s)", child, state))
		}
	}
	return out
}

// number returns what p has written after text.
func (p *process) number(text string) int {
	p.t.Helper()
	p.says(text, patience)
	_, rest, _ := strings.Cut(p.log.text(), text)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func registerCommand(t *testing.T, addr, id string, script string) *process {
	return start(t, command{name: id, args: []string{
		"register", "-group", "web", "-id", id, "-addr", "127.0.0.1:8080", "-ttl", "1s", "-registries", addr, "--", "sh", "-c", script,
	}})
}

// server is the script of a process that a wrapper starts. It says its number,
// in one write with the end of the line.
func server(trap string) string {
	return fmt.Sprintf(`sh -c 'trap "%s" TERM; echo server $$ .; while :; do sleep 0.1; done' & `, trap)
}

// TestEndReachesTheServerBehindTheWrapper: whoever was told to end, for a stop
// or for another who took the id, leaves no server running that is not registered.
func TestEndReachesTheServerBehindTheWrapper(t *testing.T) {
	t.Parallel()
	addr := startCluster(t, 1).nodes[0].addr
	for _, tt := range []struct {
		name, script string
		takeOver     bool
		code         int
		within       time.Duration
	}{
		{"taken over, neither listens", server("") + `trap "" TERM; echo up; while :; do sleep 0.1; done`, true, 4, 20 * time.Second},
		{"taken over, the wrapper goes first", server("exit 0") + "echo up; wait", true, 4, 8 * time.Second},
		{"taken over, the server does not listen", server("") + "echo up; wait", true, 4, 20 * time.Second},
		{"stopped", server("exit 0") + "echo up; wait", false, 128 + 15, 8 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := strings.NewReplacer(" ", "-", ",", "").Replace(tt.name)
			p := registerCommand(t, addr, id, tt.script)
			p.says("up", patience)
			pid := p.number("server ")
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it is gone, or the test has failed
			if tt.takeOver {
				start(t, command{name: id + "-next", args: []string{
					"register", "-group", "web", "-id", id, "-addr", "127.0.0.1:8081", "-registries", addr, "-take-over",
				}}).says("registered at", patience)
			} else {
				p.send(sigTerm)
			}
			if code := p.ends(tt.within); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if runs(pid) {
				t.Error("the server runs on")
			}
		})
	}
}

// TestKilledRegisterEndsItsCommand: nobody would keep the service registered.
func TestKilledRegisterEndsItsCommand(t *testing.T) {
	t.Parallel()
	addr := startCluster(t, 1).nodes[0].addr
	p := registerCommand(t, addr, "killed", `echo server $$ .; exec sleep 60`)
	pid := p.number("server ")
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	p.kill()
	eventually(t, patience, "the end of the command", func() error {
		if runs(pid) {
			return fmt.Errorf("process %d runs on", pid)
		}
		return nil
	})
}

// TestFirstProcessReaps: as process 1, register has no child but its command.
func TestFirstProcessReaps(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	addr := startCluster(t, 1).nodes[0].addr
	for _, tt := range []struct {
		name, end string
		code      int
	}{{"stopped", "exec sleep 60", 128 + 15}, {"ended", "read line; exit 7", 7}} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, command{
				name: "first", newPIDs: true, args: []string{
					"register", "-group", "web", "-id", "first", "-addr", "127.0.0.1:8080", "-registries", addr, "--",
					"sh", "-c", `for i in 1 2 3; do (sleep 0.2 &); done; echo pid $$ ready; ` + tt.end,
				},
			})
			p.says("ready", patience) // by now the orphans are ours
			if n := p.number("pid "); n == 1 {
				t.Fatal("register is not process 1")
			}
			if tt.code == 7 {
				if code := p.ends(patience); code != tt.code {
					t.Errorf("exit code %d", code)
				}
				return
			}
			eventually(t, patience, "one child", func() error {
				if children := childrenOf(p.cmd.Process.Pid); len(children) != 1 {
					return fmt.Errorf("children %v", children)
				}
				return nil
			})
			p.send(sigTerm)
			if code := p.ends(patience); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
		})
	}
}
