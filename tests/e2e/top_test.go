package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// topOn runs "registry top" on a terminal, which script(1) makes, with a shell that tells
// when it has ended. The shell lives on when Ctrl-C signals both.
type topOn struct {
	t     *testing.T
	keys  io.Writer
	shown *output
	code  string // file of the exit code
	pid   string // file of the process id
}

func startTop(t *testing.T, addr string, env ...string) *topOn {
	t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("there is no script (Debian: bsdutils)")
	}
	dir := t.TempDir()
	s := &topOn{t: t, shown: newOutput(t, "top"), code: filepath.Join(dir, "code"), pid: filepath.Join(dir, "pid")}
	run := fmt.Sprintf(`trap : INT; stty rows 20 cols 70; sh -c 'echo $$ >%s; exec registry top -registries %s'; echo $? >%s; stty -a | tr " " "\n" | grep -E "^-?(icanon|echo);?$"; stty rows 5; stty rows 20`, s.pid, addr, s.code)
	cmd := exec.CommandContext(t.Context(), "script", "-qec", run, "/dev/null")
	cmd.Env = slices.Concat(os.Environ(), lockEnv(t), []string{"SHELL=/bin/sh", "TERM=xterm", "PATH=" + binDir + ":" + os.Getenv("PATH")}, env)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = s.shown, s.shown, time.Second
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.keys = keys
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the terminal goes with it
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Logf("the terminal:\n%q", s.shown.tail(40))
		}
		s.shown.close()
	})
	return s
}

func (s *topOn) shows(text string) {
	s.t.Helper()
	eventually(s.t, patience, fmt.Sprintf("%q on the screen", text), func() error {
		if !strings.Contains(s.shown.text(), text) {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
}

func (s *topOn) press(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, keys); err != nil {
		s.t.Fatal(err)
	}
}

// ended waits for the end, which leaves the terminal as it was.
func (s *topOn) ended() {
	s.t.Helper()
	eventually(s.t, patience, "the end", func() error {
		code, err := os.ReadFile(s.code)
		if err == nil && strings.TrimSpace(string(code)) != "0" {
			err = fmt.Errorf("exit code %q", code)
		}
		return err
	})
	s.shows("\x1b[?1049l")
	s.shows("\x1b[?1049licanon")
	if strings.Contains(s.shown.text(), "-icanon") {
		s.t.Error("the terminal is not as it was")
	}
}

// TestTop: a member's arrival and the leader's death are on the screen, which is as wide
// as the terminal; q ends it, and so does Ctrl-C.
func TestTop(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader, others := c.leader()
	register := func(id string) {
		t.Helper()
		err := registerMember(t.Context(), connect(t, others[0].addr), &registrypb.RegisterRequest{
			Group: "web", Id: id, Addr: "127.0.0.1:80", Ttl: durationpb.New(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	register("web-1")
	s := startTop(t, c.addrs())
	s.shows("\x1b[?1049h")
	s.shows("leader " + leader.id)
	s.shows("1 group  1 member ")
	register("web-2")
	s.shows("1 group  2 members ")
	if !strings.Contains(s.shown.text(), "\x1b[1mcluster") {
		t.Error("no colours on a terminal")
	}
	leader.kill()
	tellsOfLeader(t, others[0], leader.id, "leader ", s.shown.text)
	s.shows("unreachable")
	s.press("q")
	s.ended()

	without := startTop(t, others[0].addr, "NO_COLOR=1")
	without.shows("web ")
	without.press("\x03") // the terminal makes a signal of it
	without.ended()
	if text := without.shown.text(); strings.Contains(text, "\x1b[1m") || strings.Contains(text, "\x1b[31m") {
		t.Errorf("colours with NO_COLOR: %q", text)
	}
}
