package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// clientAt makes an SDK client of all nodes whose calls go to that node.
func clientAt(t *testing.T, c *cluster, n *node) *sdk.Client {
	t.Helper()
	for range 100 { // a client begins with a node chosen at random
		client := dial(t, c.addrs())
		var receipt sdk.Receipt
		if _, err := client.Match(t.Context(), "web", "user-1", sdk.WithReceipt(&receipt)); err != nil {
			t.Fatal(err)
		}
		if receipt.Node == n.id {
			return client
		}
		_ = client.Close()
	}
	t.Fatalf("no client began with %s", n.id)
	return nil
}

// TestStalledNode stops a follower and then the leader with SIGSTOP: their
// connections stay open and nothing answers.
func TestStalledNode(t *testing.T) {
	t.Parallel()
	needSignal(t, sigStop, sigCont)
	const ttl = 3 * time.Second
	c := startCluster(t, 3)
	told := &events{}
	for i := range c.nodes {
		service(t, dial(t, c.addrs()), "web", fmt.Sprintf("web-%d", i+1), ttl, told)
	}
	leader, others := c.leader()
	t.Run("follower", func(t *testing.T) { stalled(t, c, others[0], ttl+time.Second, told) })
	t.Run("leader", func(t *testing.T) { stalled(t, c, leader, shorter(10*time.Second, ttl+time.Second), told) })
	if n := len(membersOf(t, c.nodes[0].addr, "web")); n < 3 {
		t.Errorf("%d members", n)
	}
}

// Bounds of a failover: the client waits this long for a node that does not
// answer, see sdk.WithAttemptTimeout, and a write waits for an election too.
const (
	readFailover  = time.Second
	writeFailover = 3 * time.Second
)

func stalled(t *testing.T, c *cluster, victim *node, d time.Duration, told *events) {
	var alive []*node
	for _, n := range c.nodes {
		if n != victim {
			alive = append(alive, n)
		}
	}
	reader, register := clientAt(t, c, victim), clientAt(t, c, victim)
	direct := registrypb.NewRegistryClient(connect(t, alive[0].addr))
	var lost int
	before := len(told.losses())

	began := time.Now()
	victim.send(sigStop)
	defer victim.send(sigCont) // for a test that ends here: the cleanup kills

	// The nodes that are left go on: reads at once, writes when there is a leader.
	read := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond+noise)
		defer cancel()
		_, err := direct.Match(ctx, &registrypb.MatchRequest{Group: "web", Key: []byte("user-1")})
		return err
	}
	if err := read(); err != nil {
		t.Errorf("match at %s: %v", alive[0].id, err)
	}
	at := time.Now()
	if _, err := dial(t, alive[0].addr+","+alive[1].addr).Register(t.Context(), otherService("through-others", victim)); err != nil {
		t.Errorf("register through the others: %v", err)
	}
	took := time.Since(at)
	t.Logf("registered through the others in %v", ms(took))
	if took > 2*writeFailover+noise { // one write that went to the stopped leader, one after its successor's election
		t.Errorf("register through the others took %v", took)
	}

	// Clients of the stopped node go to another.
	at = time.Now()
	if _, err := reader.Match(t.Context(), "web", "user-1"); err != nil {
		t.Errorf("match by a client of the stopped node: %v", err)
	}
	took = time.Since(at)
	t.Logf("match by a client of the stopped node: %v", ms(took))
	if took > readFailover+noise {
		t.Errorf("match took %v to go to another node", took)
	}
	at = time.Now()
	if _, err := reader.Match(t.Context(), "web", "user-2"); err != nil {
		t.Errorf("second match: %v", err)
	}
	if took := time.Since(at); took > readFailover/2+noise {
		t.Errorf("second match took %v: the client asked the stopped node again", took)
	}
	at = time.Now()
	if _, err := register.Register(t.Context(), otherService("by-its-client", victim)); err != nil {
		t.Errorf("register by a client of the stopped node: %v", err)
	}
	took = time.Since(at)
	t.Logf("register by a client of the stopped node: %v", ms(took))
	if took > writeFailover+noise {
		t.Errorf("register took %v to go to another node", took)
	}

	throughout(t, time.Until(began.Add(d)), "match through the others", func() error {
		err := read()
		if lost = len(told.losses()) - before; err == nil && lost > 0 {
			err = fmt.Errorf("leases were lost: %+v", told.losses())
		}
		return err
	})
	victim.send(sigCont)
	at = time.Now()
	c.settled(len(c.nodes))
	t.Logf("stopped for %v; it had caught up %v after SIGCONT", ms(at.Sub(began)), ms(time.Since(at)))
	// What expired in its own mind while it stood still must not expire now.
	throughout(t, shorter(2*time.Second, time.Second), "after SIGCONT", func() error {
		if len(told.losses()) > before {
			return fmt.Errorf("leases were lost: %+v", told.losses())
		}
		return nil
	})
	if victim.hasEnded() {
		t.Error(errors.New("the stopped node ended"))
	}
}

// otherService is a service that no other part of the test registers.
func otherService(what string, victim *node) sdk.Service {
	return sdk.Service{Group: "web", ID: what + "-" + victim.id, Addr: "127.0.0.1:8080", TTL: time.Minute}
}
