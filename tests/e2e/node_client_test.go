package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startJS starts sdk/js/test/scenario.js, or skips the test where Node is missing.
func startJS(t *testing.T, name string, args ...string) *process {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no Node (Debian: nodejs)")
	}
	script, err := filepath.Abs(filepath.Join(repository, "sdk", "js", "test", "scenario.js"))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, command{name: name, path: node, args: append([]string{script}, args...)})
}

// count is how often a process has written a text.
func (p *process) count(text string) int { return strings.Count(p.log.text(), text) }

// saysAgain waits until the process has written a text more often than before.
func (p *process) saysAgain(text string, before int) {
	p.t.Helper()
	eventually(p.t, patience, fmt.Sprintf("%s says %q again", p.name, text), func() error {
		if p.count(text) <= before {
			return fmt.Errorf("said %d times:\n%s", p.count(text), p.log.tail(5))
		}
		return nil
	})
}

// TestJavaScriptClient: a service in JavaScript on a locked cluster keeps its
// registration through the death of the leader and of all nodes, follows the group by a
// watch, and owns the same keys by its own ring as by the nodes. A hold outlives its
// process; a second process does not get the id; and who is deregistered stops.
func TestJavaScriptClient(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	c := startCluster(t, 3)
	leader, others := c.leader()
	service := func(name, id, addr string, more ...string) *process {
		return startJS(t, name, append([]string{c.addrs(), "web", id, addr}, more...)...)
	}
	first := service("js-1", "js-1", "127.0.0.1:8080")
	first.says("registered, lease", patience)
	first.says("watch snapshot", patience)
	first.says("agrees", patience)
	second := service("js-2", "js-2", "127.0.0.1:8081", "30s")
	first.says("js-1:active,js-2:active", patience)

	other := service("js-other", "js-1", "127.0.0.1:9999")
	if code := other.ends(patience); code != 1 {
		t.Errorf("a second process: exit code %d", code)
	}
	other.says("failed ConflictError", patience)

	before, agreed := memberOf(t, others[0].addr, "web", "js-1"), first.count("agrees")
	leader.kill()
	second.stop() // with a hold
	second.says("ended HeldError", patience)
	first.says("js-1:active,js-2:held", patience)
	first.saysAgain("agrees", agreed)
	again := service("js-2-again", "js-2", "127.0.0.1:8082")
	again.says("registered, lease", patience)
	again.says("agrees", patience) // it has its ring before the nodes die
	if after := memberOf(t, others[0].addr, "web", "js-1"); after == nil || after.CreatedIndex != before.CreatedIndex {
		t.Errorf("the death of the leader cost the lease: %v, then %v", before, after)
	}
	outage(t, c, first)

	ok(t, "deregister", "-group", "web", "-id", "js-1", "-yes", "-registries", c.nodes[0].addr)
	if code := first.ends(patience); code != 1 {
		t.Errorf("after the deregistration: exit code %d", code)
	}
	first.says("lost", patience)
	first.says("ended FencedError", patience)
	again.stop()
	again.says("ended ClosedError deregistered", patience)
	if members := membersOf(t, c.nodes[0].addr, "web"); len(members) > 0 {
		t.Errorf("still there: %v", members)
	}
	for _, p := range []*process{first, second, again} {
		for _, bad := range []string{"DIFFERS", "    at "} {
			if p.count(bad) > 0 {
				t.Errorf("%s says %q:\n%s", p.name, bad, p.log.tail(20))
			}
		}
	}
}

// outage kills all nodes that run for longer than a lease. The ring in the process goes on; the
// registration is told to be in doubt, and is renewed when the nodes are back.
func outage(t *testing.T, c *cluster, p *process) {
	t.Helper()
	unreachable, regained := p.count("unreachable"), p.count("regained")
	began, ended := p.count("ring outage"), p.count("ring recovered")
	for _, n := range c.nodes {
		if !n.hasEnded() {
			n.kill()
		}
	}
	p.saysAgain("unreachable", unreachable)
	p.saysAgain("local match of 50 keys valid false", p.count("local match of 50 keys valid false"))
	p.saysAgain("ring outage", began)
	up := time.Now()
	for _, n := range c.nodes {
		n.start()
	}
	c.settled(3)
	p.saysAgain("regained", regained)
	p.saysAgain("ring recovered", ended)
	p.saysAgain("valid true", p.count("valid true"))
	t.Logf("settled, renewed and followed again %v after the start", ms(time.Since(up)))
}
