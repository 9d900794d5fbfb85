package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestLostMajority: two of three nodes are killed. The third one answers reads,
// and every command that needs a leader says why there is none.
func TestLostMajority(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	keptMember(t, c.nodes[0].addr)
	ask := func(args ...string) answer {
		return cliWith(t, "", []string{"REGISTRY_ADDRS=" + c.addrs()}, args...)
	}
	var a answer
	eventually(t, patience, "where the nodes are", func() error { // a node of a busy machine may not answer in time
		a = ask("match", "-at-least", "1000000", "-timeout", "2s", "kept", "user-1")
		if a.code != 5 || !strings.Contains(a.stderr, "no node has applied index 1000000 within 2s: node-1 is at ") || !strings.Contains(a.stderr, ", node-3 is at ") {
			return fmt.Errorf("an index that no node has: %+v", a)
		}
		return nil
	})
	for _, n := range c.nodes[:2] {
		n.kill()
	}
	const why = "no leader: only 1 of 3 voters can be reached\n"
	eventually(t, patience, "a status without a leader", func() error {
		if a = ask("cluster", "status"); a.code != 5 || !strings.HasSuffix(a.stderr, "registry: "+why) || !strings.Contains(a.stdout, "leader none") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	if a = ask("match", "kept", "user-1"); a.code != 0 {
		t.Errorf("a local read: %+v", a)
	}
	for _, tt := range []struct {
		args string
		code string // 5: nothing was done; 6: that is not known
	}{
		{"match -linearizable kept user-1", "5"}, {"cluster transfer", "5"},
		{"group set other", "56"}, {"deregister -yes -group kept -id web-1", "56"}, {"cluster remove -yes node-1", "56"},
	} {
		eventually(t, patience, tt.args, func() error { // a machine that is busy elsewhere may not be asked in time
			a := ask(append(strings.Fields(tt.args), "-timeout", "4s")...)
			if !strings.Contains(tt.code, fmt.Sprint(a.code)) || !strings.HasSuffix(a.stderr, "\n  "+why) {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
	}
	c.nodes[0].start()
	c.nodes[1].start()
	c.settled(3)
	if a := ask("cluster", "status"); a.code != 0 || a.stderr != "" {
		t.Errorf("with all nodes: %+v", a)
	}
}
