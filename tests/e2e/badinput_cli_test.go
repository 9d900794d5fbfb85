package e2e

import (
	"strings"
	"testing"
)

// cliRefuses runs commands that must end with their exit code and a word that
// tells what was wrong. None of them may change anything.
func cliRefuses(t *testing.T, c *cluster) {
	long := strings.Repeat("x", 256)
	register := func(more ...string) []string {
		return append([]string{"register", "-group", "web", "-id", "web-1", "-addr", "127.0.0.1:8080"}, more...)
	}
	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		code  int
		says  string
	}{
		{"register without an id", []string{"register", "-group", "web", "-addr", "127.0.0.1:8080"}, "", 2, "-id is required"},
		{"empty id", register("-id", ""), "", 2, "-id is required"},
		{"id of 256 bytes", register("-id", long), "", 2, "-id is 256 bytes, want 1 to 255 bytes"},
		{"id with a slash", register("-id", "a/b"), "", 2, "without '/'"},
		{"group with a slash", register("-group", "a/b"), "", 2, "-group is \"a/b\", want"},
		{"weight 0", register("-weight", "0"), "", 2, "1 to 1000"},
		{"weight 1001", register("-weight", "1001"), "", 2, "-weight is 1001, want 1 to 1000"},
		{"weight no number", register("-weight", "heavy"), "", 2, "weight"},
		{"ttl 0", register("-ttl", "0s"), "", 2, "1s to 24h"},
		{"ttl 25h", register("-ttl", "25h"), "", 2, "-ttl is 25h0m0s, want 1s to 24h"},
		{"ttl no duration", register("-ttl", "10"), "", 2, "ttl"},
		{"address without a port", register("-addr", "nowhere"), "", 2, "-addr is \"nowhere\", want host:port"},
		{"address with port 99999", register("-addr", "127.0.0.1:99999"), "", 2, "-addr is \"127.0.0.1:99999\", want host:port"},
		{"metadata without =", register("-meta", "k"), "", 2, "KEY=VALUE"},
		{"9 KiB of metadata", register("-meta", "k="+strings.Repeat("v", 9<<10)), "", 2, "8192 bytes"},
		{"command without --", register("sleep", "1"), "", 2, "after --"},
		{"unknown group", []string{"match", "nowhere", "user-1"}, "", 3, `unknown group: "nowhere"`},
		{"unknown group, as JSON", []string{"match", "-json", "nowhere", "user-1"}, "", 3, `unknown group: "nowhere"`},
		{"members of an unknown group", []string{"members", "nowhere"}, "", 3, "unknown group"},
		{"ring of an unknown group", []string{"ring", "stats", "nowhere"}, "", 3, "unknown group"},
		{"member set to weight 0", []string{"member", "set", "-group", "kept", "-id", "web-1", "-weight", "0"}, "", 2, "1 to 1000"},
		{"key of 4097 bytes", []string{"match", "kept", strings.Repeat("k", 4097)}, "", 2, "4096 bytes"},
		{"key of 2 MiB on stdin", []string{"match", "kept", "-"}, strings.Repeat("k", 2<<20) + "\n", 2, "4096 bytes"},
		{"match without a key", []string{"match", "kept"}, "", 2, "KEY"},
		{"virtual nodes no power of two", []string{"group", "set", "kept", "-virtual-nodes", "100"}, "", 2, "power of two"},
		{"unknown flag", []string{"match", "-nosuch", "kept", "user-1"}, "", 2, "nosuch"},
		{"unknown flag of serve", []string{"-id", "a", "-nosuch"}, "", 2, "nosuch"},
		{"unknown command", []string{"mach", "kept", "user-1"}, "", 2, `unknown command "mach"`},
		{"bad -registries", []string{"match", "-registries", "nowhere", "kept", "user-1"}, "", 2, "host:port"},
		{"nobody at -registries", []string{"match", "-registries", "127.0.0.1:1", "-timeout", "1s", "kept", "user-1"}, "", 5, "127.0.0.1:1"},
		{"timeout 0", []string{"match", "-timeout", "0s", "kept", "user-1"}, "", 2, "-timeout"},
		{"remove an unknown node", []string{"cluster", "remove", "nobody"}, "", 3, `unknown node: "nobody"`},
		{"transfer to an unknown node", []string{"cluster", "transfer", "nobody"}, "", 3, `unknown node: "nobody"`},
		{"join nobody", []string{"cluster", "join", "127.0.0.1:1"}, "", 4, "no node answers at 127.0.0.1:1"},
		{"join a member", []string{"cluster", "join", c.nodes[1].bind}, "", 4, "is in a cluster already"},
		{"join a bad address", []string{"cluster", "join", "nowhere"}, "", 2, "bind: must be host:port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := cliWith(t, tt.stdin, []string{"REGISTRY_ADDRS=" + c.addrs()}, tt.args...)
			if a.code != tt.code || !strings.Contains(a.stderr, tt.says) {
				t.Errorf("exit code %d, want %d; says %q, want %q", a.code, tt.code, a.stderr, tt.says)
			}
			if a.stdout != "" {
				t.Errorf("on stdout: %s", a.stdout)
			}
			if len(a.stderr) > 2000 || strings.Contains(a.stderr, "goroutine ") {
				t.Errorf("%d bytes on stderr: %.300s", len(a.stderr), a.stderr)
			}
			t.Logf("%d: %s", a.code, strings.ReplaceAll(strings.TrimSpace(a.stderr), "\n", " | "))
		})
	}
	if got := memberOf(t, c.nodes[0].addr, "kept", "web-1"); got == nil || got.Weight != 1 {
		t.Errorf("the member that was to stay is %v", got)
	}
}
