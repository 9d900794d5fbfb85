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

	"github.com/werbenhu/registry/sdk"
)

// shells are started interactively. Ctrl-G appends the line that is being typed
// to $OUT.
var shells = map[string]struct{ start, setup string }{
	"bash": {"bash --norc --noprofile -i", `bind -x '"\C-g": printf "%s\n" "$READLINE_LINE" >>"$OUT"'
bind 'set show-all-if-ambiguous on'
source <(registry completion bash)
`},
	"zsh": {"zsh -f -i", `unsetopt beep; bindkey -e; autoload -Uz compinit && compinit -u -D
zstyle ':completion:*' insert-tab false
show() { print -r -- "$BUFFER" >>"$OUT" }; zle -N show; bindkey '^G' show
source <(registry completion zsh)
`},
}

// typist types into a shell on a terminal, which script(1) makes.
type typist struct {
	t     *testing.T
	keys  io.Writer
	out   string // what Ctrl-G wrote
	shown *output
	lines int
}

func startShell(t *testing.T, name, registries string) *typist {
	t.Helper()
	for _, need := range []string{name, "script"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("there is no %s", need)
		}
	}
	home := t.TempDir()
	s := &typist{t: t, out: filepath.Join(home, "lines"), shown: newOutput(t, name)}
	cmd := exec.CommandContext(t.Context(), "script", "-qec", shells[name].start, "/dev/null")
	cmd.Env = append(slices.Concat(os.Environ(), lockEnv(t)), "SHELL=/bin/sh", "TERM=dumb", "HOME="+home, "INPUTRC=/dev/null", "HISTFILE=/dev/null", "OUT="+s.out,
		"PATH="+binDir+":"+os.Getenv("PATH"), "REGISTRY_ADDRS="+registries)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = home, s.shown, s.shown, time.Second
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the terminal's hangup ends the shell, which writes no history then
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Logf("the terminal of %s:\n%s", name, s.shown.text())
		}
		s.shown.close()
	})
	s.keys = keys
	s.press(shells[name].setup + "echo set-$((1+1))\n")
	eventually(t, 3*patience, "a shell that is set up", func() error {
		if !strings.Contains(s.shown.text(), "set-2") {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	return s
}

func (s *typist) press(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, keys); err != nil {
		s.t.Fatal(err)
	}
}

// tab types a line and a TAB and returns what the line is then.
func (s *typist) tab(line string) string {
	s.t.Helper()
	s.lines++
	s.press("\x15" + line + "\t\x07")
	var lines []string
	eventually(s.t, patience, "the line after TAB", func() error {
		data, err := os.ReadFile(s.out)
		if lines = strings.Split(string(data), "\n"); len(lines) <= s.lines {
			return fmt.Errorf("%q, %w", lines, err)
		}
		return nil
	})
	return lines[s.lines-1]
}

// TestCompletionInShells types into real shells.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	addr := startCluster(t, 1).nodes[0].addr
	client := dial(t, addr)
	for _, s := range []sdk.Service{{Group: "web", ID: "app:1", Addr: "127.0.0.1:80"}, {Group: "x$(touch pwned)", ID: "a", Addr: "127.0.0.1:80"}} {
		s.TTL = time.Hour
		if _, err := client.Register(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for name := range shells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startShell(t, name, addr)
			for _, tt := range [][2]string{
				{"registry ring dig", "registry ring digest"},
				{"registry match --j", "registry match --json"},
				{"registry match web user-1 --lin", "registry match web user-1 --linearizable"},
				{"registry register -group w", "registry register -group web"},
				{"registry register -group=w", "registry register -group=web"},
				{"registry members w", "registry members web"},
				{"registry deregister -group web -id ", "registry deregister -group web -id app:1"},
				{"registry deregister -group web -id app:", "registry deregister -group web -id app:1"},
				{"registry cluster remove ", "registry cluster remove node-1"},
				{"registry members -registries " + addr + " w", "registry members -registries " + addr + " web"},
				{"registry members x", `registry members x\$\(touch\ pwned\)`},
			} {
				if got := strings.TrimRight(s.tab(tt[0]), " "); got != tt[1] {
					t.Errorf("%q became %q, want %q", tt[0], got, tt[1])
				}
			}
			if got := s.tab("registry register -group "); strings.Count(got, "-group") != 1 {
				t.Errorf("a flag was inserted: %q", got)
			}
			s.press("\x15registry match --\t")
			eventually(t, patience, "the flags after --", func() error {
				if !strings.Contains(s.shown.text(), "--max-staleness") {
					return io.ErrUnexpectedEOF
				}
				return nil
			})
			if _, err := os.Stat(filepath.Join(filepath.Dir(s.out), "pwned")); err == nil {
				t.Error("a name was executed")
			}
		})
	}
}
