package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A service that is held and ends, kill -9 of all registry nodes, and a
// restart on the same directories: the hold begins again, in full, and ends.
func TestHoldOutlivesTheRegistry(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	const hold = 4 * time.Second
	c := startCluster(t, 3)
	args := []string{"register", "-registries", c.addrs(), "-group", "web", "-id", "web-1", "-ttl", "1s", "-hold-on-exit", hold.String()}
	p := start(t, command{name: "web-1", args: append(args, "-addr", "10.0.0.1:80")})
	p.says("registered at", patience)
	asked := time.Now()
	p.stop()
	p.says("held for", patience)
	c.settled(3)
	for _, n := range c.nodes {
		if err := n.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		n.ends(10 * time.Second)
	}
	restarted := time.Now() // no node leads before
	for _, n := range c.nodes {
		n.start()
	}
	c.settled(3)
	if m := memberOf(t, c.nodes[1].addr, "web", "web-1"); m.GetState() != registrypb.MemberState_MEMBER_STATE_HELD || m.GetHold().AsDuration() != hold {
		t.Fatalf("after the restart: %v", m)
	}
	eventually(t, patience, "the end of the hold", func() error {
		if m := memberOf(t, c.nodes[0].addr, "web", "web-1"); m != nil {
			return fmt.Errorf("%v", m)
		}
		return nil
	})
	gone := time.Since(restarted)
	t.Logf("held for %v, all nodes killed %v later; the member went %v after their restart", hold, ms(restarted.Sub(asked)), ms(gone))
	if gone < hold {
		t.Errorf("the member went %v after the restart, before its hold of %v", ms(gone), hold)
	}

	back := start(t, command{name: "web-1", args: append(args, "-addr", "10.0.0.1:80")})
	back.says("registered at", patience)
	back.stop()
	elsewhere := start(t, command{name: "web-1", args: append(args, "-addr", "10.0.0.2:80")})
	elsewhere.says("registered at", patience)
	if m := memberOf(t, c.nodes[2].addr, "web", "web-1"); m.GetState() != 0 || m.GetAddr() != "10.0.0.2:80" {
		t.Errorf("returned as %v", m)
	}
	ok(t, "deregister", "-registries", c.addrs(), "-group", "web", "-id", "web-1", "-yes")
}
