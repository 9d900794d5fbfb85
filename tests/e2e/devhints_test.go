package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestDevHints runs what dev proposes, as printed, in a shell elsewhere: for who
// built the program, who started it by go run, and who has it on the PATH.
func TestDevHints(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no sh")
	}
	onPath := "PATH=" + binDir + ":" + t.TempDir()
	for _, tt := range []struct {
		name  string
		start []string
		env   []string // of the shell too
	}{
		{"not on the PATH", []string{program("registry")}, nil},
		{"go run", []string{"go", "run", "./cmd/registry"}, nil},
		{"on the PATH", []string{program("registry")}, []string{onPath}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := freePorts(t, 6)
			args := append(tt.start[1:], "dev", "-bind-port", strconv.Itoa(p[0]), "-addr-port", strconv.Itoa(p[3]))
			env := append(tt.env, "TMPDIR="+t.TempDir(), "GOTMPDIR="+t.TempDir())
			dev := start(t, command{name: "dev", path: tt.start[0], args: args, dir: repository, env: env})
			dev.says("ring stats", 4*patience) // go run compiles
			_, hints, _ := strings.Cut(dev.log.text(), "In another terminal:\n")
			if short := strings.Contains(hints, "\n  registry "); short != (tt.env != nil) {
				t.Errorf("the hints are\n%s", hints)
			}
			lines := strings.Split(strings.TrimSpace(hints), "\n")
			if len(lines) != 7 {
				t.Errorf("%d hints", len(lines))
			}
			for i, line := range lines {
				sh := start(t, command{name: "hint-" + strconv.Itoa(i), path: "/bin/sh", args: []string{"-c", line}, dir: t.TempDir(), env: tt.env})
				if strings.Contains(line, " register ") {
					sh.says("registered at", patience)
				} else if code := sh.ends(patience); code != 0 {
					t.Errorf("%s: exit code %d:\n%s", line, code, sh.log.tail(5))
				}
			}
		})
	}
}
