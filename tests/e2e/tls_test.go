package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A cluster whose client ports have TLS and ask for certificates, all of them made by
// the commands: registrations, matches, watches and health checks work, through the
// loss of the leader too, and nobody else gets an answer.
func TestClusterWithTLS(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	ok(t, "tls", "init", "-dir", dir)
	ok(t, "tls", "issue", "-dir", dir, "-client", "web")
	file := func(name string) string { return filepath.Join(dir, name) }
	c := &cluster{t: t}
	for i := range 3 {
		n := newNode(t, fmt.Sprintf("node-%d", i+1))
		ok(t, "tls", "issue", "-dir", dir, "-server", "-host", "127.0.0.1", "-out", n.id)
		more := []string{"-cert", file(n.id + ".crt"), "-key", file(n.id + ".key"), "-client-ca", file("ca.crt")}
		if i > 0 {
			more = append(more, "-registries", c.nodes[0].bind)
		}
		n.start(more...)
		c.nodes = append(c.nodes, n)
	}
	env := []string{
		"REGISTRY_ADDRS=" + c.addrs(), "REGISTRY_CA=" + file("ca.crt"),
		"REGISTRY_CLIENT_CERT=" + file("web.crt"), "REGISTRY_CLIENT_KEY=" + file("web.key"),
	}
	says := func(want string, args ...string) error {
		if a := cliWith(t, "", env, args...); a.code != 0 || !strings.Contains(a.stdout, want) {
			return fmt.Errorf("%v: exit code %d: %s%s", args, a.code, a.stdout, a.stderr)
		}
		return nil
	}
	eventually(t, patience, "three nodes that serve", func() error { return says("serving", "health") })
	start(t, command{name: "register", args: []string{"register", "-group", "web", "-id", "web-1", "-addr", "127.0.0.1:8080"}, env: env}).says("registered", patience)
	watch := start(t, command{name: "watch", args: []string{"watch", "web"}, env: env})
	watch.says("web-1", patience)
	for _, n := range c.nodes {
		if err := says("web-1", "match", "-linearizable", "-registries", n.addr, "web", "user-1"); err != nil {
			t.Error(err)
		}
	}

	bare := []string{"REGISTRY_ADDRS=" + c.addrs()}
	for want, args := range map[string][]string{
		"the node speaks TLS": {"groups"},
		"the node refuses":    {"groups", "-ca", file("ca.crt")},
	} {
		began := time.Now()
		if a := cliWith(t, "", bare, args...); a.code != 5 || !strings.Contains(a.stderr, want) {
			t.Errorf("%v: exit code %d: %s", args, a.code, a.stderr)
		} else {
			t.Logf("%v after %v: %s", args, ms(time.Since(began)), strings.ReplaceAll(strings.TrimSpace(a.stderr), "\n", " | "))
		}
	}

	eventually(t, patience, "three voters", func() error {
		var st statusJSON
		a := cliWith(t, "", env, "cluster", "status", "--json")
		if err := json.Unmarshal([]byte(a.stdout), &st); err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if !n.Voter || !n.Ready {
				return fmt.Errorf("%+v", st)
			}
		}
		return nil
	})
	c.nodes[0].kill() // it led when the others joined
	start(t, command{name: "register-2", args: []string{"register", "-group", "web", "-id", "web-2", "-addr", "127.0.0.1:8081"}, env: env}).says("registered", patience)
	watch.says("web-2", patience)
	if err := says("web-1", "members", "-linearizable", "web"); err != nil {
		t.Error(err)
	}
}
