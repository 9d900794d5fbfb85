package registrytest_test

import (
	"testing"
	"time"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
)

// A service must stop its work when its lease is lost, and may go on when it
// has its place in the group again.
func TestExampleServiceLosesItsLease(t *testing.T) {
	c := registrytest.Start(t)

	events := make(chan sdk.EventKind, 10)
	service := sdk.Service{
		Group: "web", ID: "web-1", Addr: "127.0.0.1:8080", TTL: time.Second,
		OnEvent: func(e sdk.Event) { events <- e.Kind },
	}
	if _, err := c.Client().Register(t.Context(), service); err != nil {
		t.Fatal(err)
	}

	resume := c.Expire("web", "web-1") // takes the TTL
	resume()                           // the next heartbeat finds out

	for _, want := range []sdk.EventKind{sdk.EventRegistered, sdk.EventLost, sdk.EventReregistered} {
		got := <-events
		for got == sdk.EventUnreachable || got == sdk.EventRenewed { // a heartbeat was late, as on a busy machine
			got = <-events
		}
		if got != want {
			t.Errorf("event %v, want %v", got, want)
		}
	}
}

// A router sends a key elsewhere when its owner falls silent.
func TestExampleRouterFollowsTheGroup(t *testing.T) {
	c := registrytest.Start(t)
	for id, ttl := range map[string]time.Duration{"web-1": time.Minute, "web-2": time.Second} {
		service := sdk.Service{Group: "web", ID: id, Addr: "127.0.0.1:8080", TTL: ttl}
		if _, err := c.Dial().Register(t.Context(), service); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := c.Client().Ring(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan sdk.RingChange, 10)
	ring.OnChange(func(change sdk.RingChange) { changes <- change })

	key := c.Key("web", "web-2")
	c.Expire("web", "web-2")

	for m, err := ring.Match(key); m.ID != "web-1"; m, err = ring.Match(key) {
		if err != nil {
			t.Fatal(err)
		}
		<-changes
	}
}

// Callers go on while the cluster's leader changes.
func TestExampleLeaderStops(t *testing.T) {
	c := registrytest.Start(t, registrytest.WithNodes(3))

	stopped := c.StopLeader()

	service := sdk.Service{Group: "web", ID: "web-1", Addr: "127.0.0.1:8080"}
	if _, err := c.Client().Register(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	c.Restart(stopped)

	var receipt sdk.Receipt
	if _, err := c.Client().Members(t.Context(), "web", sdk.Linearizable(), sdk.WithReceipt(&receipt)); err != nil {
		t.Fatal(err)
	}
	c.WaitIndex(receipt.Index) // now every node has it
}
