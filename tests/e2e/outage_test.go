package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOutageOfAllNodes: every node is killed. A gateway goes on sending every
// user to the same service, and so does one that is restarted meanwhile with
// its copy of the ring; without a copy, or with a damaged one, it refuses. When
// the nodes come back, nothing is empty, nobody moves, and changes arrive again.
func TestOutageOfAllNodes(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	const ttl = 3 * time.Second
	c := startCluster(t, 3)
	for i, n := range c.nodes {
		newWebservice(t, fmt.Sprintf("web-%d", i+1), n.addr, ttl).registered(c.nodes[0].addr)
	}
	disk := filepath.Join(t.TempDir(), "ring")
	steady := startGateway(t, "steady", c.addrs())
	copied := startGateway(t, "copied", c.addrs(), "-disk-copy", disk)
	both := []router{steady, copied}
	owners := mustSweep(t, both)
	t.Logf("services: %v", countOf(owners))
	same := func(when string) {
		t.Helper()
		if n := moved(t, when, owners, mustSweep(t, both), func(string, string) bool { return false }); n > 0 {
			t.Fatalf("%s: %d users moved", when, n)
		}
	}
	eventually(t, patience, "a copy on disk", func() error {
		_, err := os.Stat(disk)
		return err
	})

	began := time.Now()
	load := startLoad(t, []router{steady})
	for _, n := range c.nodes {
		n.kill()
	}
	down := time.Now()
	same("all nodes are down")

	unused, err := net.Dial("tcp", copied.addr) // a connection without a request does not fail the stop
	if err != nil {
		t.Fatal(err)
	}
	copied.process.stop()
	_ = unused.Close()
	copied.start(t, "copied-again", c.addrs(), "-disk-copy", disk)
	t.Logf("restarted without a registry after %v", ms(time.Since(down)))
	same("restarted with its copy")

	good, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(damaged, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"absent": filepath.Join(t.TempDir(), "none"), "damaged": damaged} {
		p := start(t, command{name: "gateway-" + name, program: "gateway", args: []string{
			"-registries", c.addrs(), "-group", "web", "-addr", local(freePorts(t, 1)[0]), "-disk-copy", path, "-wait", "3s",
		}})
		p.refused(1, "no node sent the group web")
	}

	pass(t, max(0, ttl+time.Second-time.Since(down))) // beyond every lease
	same("beyond every lease")
	for _, n := range c.nodes {
		n.start()
	}
	up := time.Now()
	c.settled(3)
	t.Logf("down for %v, settled %v after the start", ms(up.Sub(down)), ms(time.Since(up)))
	same("the nodes are back")
	pass(t, ttl+time.Second) // what was forgotten would expire now
	same("a TTL after the nodes are back")

	load.end()
	all := load.sorted()
	failed, wrong := 0, 0
	for _, s := range all {
		switch {
		case !s.ok():
			if failed++; failed <= 5 {
				t.Errorf("failed: %v", s)
			}
		case s.served != owners[s.user]:
			if wrong++; wrong <= 5 {
				t.Errorf("user %d belongs to %s: %v", s.user, owners[s.user], s)
			}
		}
	}
	t.Logf("%d requests in %v, %d failed, %d at another service", len(all), ms(time.Since(began)), failed, wrong)
	if len(all) < 100 {
		t.Error("there was no load to speak of")
	}

	newWebservice(t, "web-4", c.nodes[1].addr, ttl).registered(c.nodes[2].addr)
	eventually(t, patience, "both gateways send users to the fourth service", func() error {
		now, err := sweep(t, both)
		if err == nil && countOf(now)["web-4"] == 0 {
			err = fmt.Errorf("%v", countOf(now))
		}
		return err
	})
}
