package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/werbenhu/registry/sdk"
)

// Tokens outlive the processes: all nodes are killed and restarted, from snapshots and
// logs, and a new node joins. One that was revoked stays revoked, and nobody is let in
// without one meanwhile. (etcd #14409 and #14648 were users that a restart or a restore
// lost.)
func TestTokensOutliveTheProcesses(t *testing.T) {
	t.Parallel()
	small := []string{"-snapshot-threshold", "256", "-snapshot-interval", "1s"}
	lock(t) // TLS; the tokens are the test's own
	c := startNodes(t, 3, small...)
	first := strings.TrimSpace(ok(t, "token", "init", "-registries", c.addrs()))
	with := func(token string, args ...string) answer {
		t.Helper()
		env := []string{"REGISTRY_ADDRS=" + c.addrs()}
		if token != "" {
			env = append(env, "REGISTRY_TOKEN="+token)
		}
		return cliWith(t, "", env, args...)
	}
	must := func(token string, args ...string) string {
		t.Helper()
		a := with(token, args...)
		if a.code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, a.code, a.stderr)
		}
		return strings.TrimSpace(a.stdout)
	}
	agent := must(first, "token", "create", "-name", "agent", "-allow", "discover,register:web")
	gone := must(first, "token", "create", "-name", "gone", "-allow", "discover:web")
	must(first, "token", "revoke", "-yes", "gone")

	check := func(t *testing.T, when string, n *node) {
		t.Helper()
		if out := must(agent, "token", "self", "-registries", n.addr); !strings.Contains(out, "agent") {
			t.Errorf("%s, %s: %s", when, n.id, out)
		}
		for name, token := range map[string]string{"no token": "", "a revoked one": gone} {
			for _, args := range [][]string{{"members", "web", "-registries", n.addr}, {"groups", "-registries", n.addr}} {
				if a := with(token, args...); a.code == 0 || strings.Contains(a.stdout, "web") {
					t.Errorf("%s, %s, %s: %q: %s", when, n.id, name, args, a.stdout)
				}
			}
		}
		if a := with("", "token", "init", "-registries", n.addr); a.code == 0 {
			t.Errorf("%s, %s: another first token", when, n.id)
		}
	}
	client := dial(t, c.addrs(), sdk.WithToken(agent))
	for i := range 300 { // more than the threshold of a snapshot
		if _, err := client.Register(t.Context(), sdk.Service{Group: "web", ID: fmt.Sprintf("web-%d", i), Addr: "127.0.0.1:8080"}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, patience, "a snapshot", func() error {
		if found, _ := filepath.Glob(filepath.Join(c.nodes[0].dir, "snapshots", "*", "state.bin")); len(found) == 0 {
			return fmt.Errorf("none in %s", c.nodes[0].dir)
		}
		return nil
	})
	for _, n := range c.nodes {
		n.kill()
	}
	for _, n := range c.nodes {
		n.start(small...)
	}
	ready := func(n *node) {
		t.Helper()
		eventually(t, patience, n.id+" that serves", func() error {
			if a := with(agent, "health", "-registries", n.addr); a.code != 0 {
				return fmt.Errorf("exit code %d: %s", a.code, a.stderr)
			}
			return nil
		})
	}
	for _, n := range c.nodes {
		ready(n)
		check(t, "after a restart of all", n)
	}
	joiner := newNode(t, "node-4")
	joiner.start(append([]string{"-registries", c.nodes[0].bind}, small...)...)
	ready(joiner)
	check(t, "joined", joiner)
}
