package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedLogRefused: a node whose log was damaged while it was stopped ends
// with a message that says what to do, and what it says works.
func TestDamagedLogRefused(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader, others := c.leader()
	keptMember(t, leader.addr)
	hurt := others[0]
	hurt.kill()
	log := filepath.Join(hurt.dir, "raft.db")
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for at := 8192; at < len(data); at += 4096 { // the headers of all pages but the first two
		data[at+8] ^= 0x40
	}
	if err := os.WriteFile(log, data, 0o600); err != nil {
		t.Fatal(err)
	}
	hurt.start()
	if code := hurt.ends(patience); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := hurt.log.text()
	for _, part := range []string{hurt.dir, "raft.db", "damaged", "registry cluster remove " + hurt.id, "-data-dir"} {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %q:\n%s", part, hurt.log.tail(5))
		}
	}
	if strings.Contains(said, "goroutine ") {
		t.Errorf("it panicked:\n%s", hurt.log.tail(20))
	}
	if code := start(t, command{name: "remove", args: []string{"cluster", "remove", "-yes", "-registries", leader.addr, hurt.id}}).ends(patience); code != 0 {
		t.Fatalf("remove: exit code %d", code)
	}
	fresh := newNode(t, "fresh")
	fresh.start("-registries", leader.bind)
	fresh.says("ready", patience)
	keptIsThere(t, fresh)
}
