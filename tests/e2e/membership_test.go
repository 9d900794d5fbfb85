package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// nodeOf finds a node in a status.
func nodeOf(st *registrypb.StatusResponse, id string) *registrypb.NodeStatus {
	for _, n := range st.Nodes {
		if n.Id == id {
			return n
		}
	}
	return nil
}

// TestNodesComeAndGo: a node comes back at another address, a wiped one does
// not come back under its old id, and nodes are taken out and in.
func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	c := startCluster(t, 3)
	addr := c.nodes[0].addr
	created := keptMember(t, addr)

	t.Run("another address", func(t *testing.T) {
		n := c.nodes[2]
		n.stop()
		moved := newNode(c.t, n.id)
		n.bind, n.addr = moved.bind, moved.addr
		began := time.Now()
		n.start()
		eventually(t, patience, "the new address", func() error {
			st, err := statusOf(t, addr)
			if err != nil {
				return err
			}
			if s := nodeOf(st, n.id); s == nil || s.Bind != n.bind || s.Addr != n.addr || !s.Ready {
				return fmt.Errorf("%v", s)
			}
			return nil
		})
		c.settled(3)
		t.Logf("it belongs again %v after its start elsewhere", ms(time.Since(began)))
	})
	t.Run("wiped", func(t *testing.T) { wiped(t, c) })
	t.Run("under a new id", func(t *testing.T) {
		old := c.nodes[2]
		ok(t, "cluster", "remove", "-yes", "-registries", addr, old.id)
		c.nodes = c.nodes[:2]
		c.settled(2)
		n := newNode(c.t, "node-4")
		n.bind, n.addr = old.bind, old.addr
		n.start("-registries", c.nodes[0].bind)
		c.nodes = append(c.nodes, n)
		began := time.Now()
		c.settled(3)
		t.Logf("a voter %v after its start", ms(time.Since(began)))
	})
	t.Run("by invitation", func(t *testing.T) {
		n := newNode(c.t, "node-5")
		n.start("-wait")
		n.says("waiting for an invitation", patience)
		ok(t, "cluster", "join", "-registries", addr, n.bind)
		c.nodes = append(c.nodes, n)
		c.settled(4)
		if m := memberOf(t, n.addr, "kept", "web-1"); m == nil || m.CreatedIndex != created {
			t.Errorf("on the invited node: %v", m)
		}
		// It runs and is taken out: it ends, and says why.
		ok(t, "cluster", "remove", "-yes", "-registries", addr, n.id)
		c.nodes = c.nodes[:len(c.nodes)-1]
		n.refused(4, "was removed from the cluster")
		c.settled(3)
		start(t, command{name: "again", args: n.args()}).refused(4, "was removed from the cluster")
	})
	t.Run("transfer", func(t *testing.T) {
		leader, others := c.leader()
		for _, to := range []*node{others[1], leader} {
			began := time.Now()
			ok(t, "cluster", "transfer", "-registries", addr, to.id)
			var st statusJSON
			if err := json.Unmarshal([]byte(ok(t, "cluster", "status", "-json", "-registries", to.addr)), &st); err != nil || st.Leader != to.id {
				t.Errorf("leader %q, want %q, %v", st.Leader, to.id, err)
			}
			t.Logf("to %s in %v", to.id, ms(time.Since(began)))
		}
		ok(t, "cluster", "transfer", "-registries", addr)
		if now, _ := c.leader(); now.id == leader.id {
			t.Errorf("%s still leads", now.id)
		}
	})
	if m := memberOf(t, addr, "kept", "web-1"); m == nil || m.CreatedIndex != created {
		t.Errorf("the member that was to stay: %v", m)
	}
}

// wiped stops a node, empties its directory and starts it as before.
func wiped(t *testing.T, c *cluster) {
	n := c.nodes[2]
	n.stop()
	term := func() uint64 {
		st, err := statusOf(t, c.nodes[0].addr)
		if err != nil {
			t.Fatal(err)
		}
		return st.Term
	}
	before := term()
	for _, tt := range []struct {
		name string
		more []string
	}{{"told of the cluster", []string{"-registries", c.nodes[0].bind + "," + c.nodes[1].bind}}, {"told of nobody", nil}} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.RemoveAll(n.dir); err != nil {
				t.Fatal(err)
			}
			for _, again := range []string{"", "-again"} { // what it was given meanwhile does not make it a member
				p := start(t, command{name: n.id + again, args: n.args(tt.more...)})
				p.refused(4, `"node-3" is taken`, "cluster remove node-3", "-id")
				if strings.Contains(p.log.text(), "ready") {
					t.Logf("%s: it was ready for a moment", tt.name)
				}
			}
			if m := memberOf(t, c.nodes[0].addr, "kept", "web-1"); m == nil {
				t.Error("the cluster lost its member")
			}
		})
	}
	if after := term(); after != before {
		t.Logf("term %d before, %d after", before, after)
	}
}
