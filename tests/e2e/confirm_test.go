package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// onTerminal runs a registry command on a terminal, which script(1) makes, and
// types text there.
func onTerminal(t *testing.T, typed string, args ...string) (code int, out string) {
	t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("there is no script(1)")
	}
	cmd := exec.CommandContext(t.Context(), "script", "-qec", program("registry")+" "+strings.Join(args, " "), "/dev/null")
	cmd.Env, cmd.WaitDelay = append(slices.Concat(os.Environ(), lockEnv(t)), "SHELL=/bin/sh"), time.Second
	cmd.Stdin = strings.NewReader(typed)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// TestConfirmOnATerminal: it asks, and only y goes on.
func TestConfirmOnATerminal(t *testing.T) {
	t.Parallel()
	addr := startCluster(t, 1).nodes[0].addr
	client := dial(t, addr)
	for i := range 2 {
		s := sdk.Service{Group: "web", ID: fmt.Sprintf("web-%d", i), Addr: "127.0.0.1:80", TTL: time.Hour}
		if _, err := client.Register(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		typed  string
		code   int
		weight uint32
	}{{"n\n", 7, 1}, {"\n", 7, 1}, {"y\n", 0, 5}} {
		code, out := onTerminal(t, tt.typed, "member", "set", "-registries", addr, "-group", "web", "-id", "web-0", "-weight", "5")
		if code != tt.code || !strings.Contains(out, "Go on? [y/N]") {
			t.Errorf("%q: exit code %d:\n%s", tt.typed, code, out)
		}
		if m := memberOf(t, addr, "web", "web-0"); m.GetWeight() != tt.weight {
			t.Errorf("%q: weight %d", tt.typed, m.GetWeight())
		}
	}
}
