package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
)

// addressLog passes on the lists of addresses that a client says it knows.
type addressLog chan string

func (addressLog) Enabled(context.Context, slog.Level) bool { return true }
func (l addressLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l addressLog) WithGroup(string) slog.Handler          { return l }
func (l addressLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "addrs" {
			l <- fmt.Sprint(a.Value)
		}
		return true
	})
	return nil
}

// has waits until the client knows the addresses of all nodes.
func (l addressLog) has(t *testing.T, nodes []*registry.Node) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	for {
		select {
		case known := <-l:
			missing := false
			for _, n := range nodes {
				missing = missing || !strings.Contains(known, n.Addr())
			}
			if !missing {
				return
			}
		case <-deadline.C:
			t.Fatal("the client does not learn the nodes' addresses")
		}
	}
}

// move stops a node and starts it again on other ports.
func (c *lastingCluster) move(i int) {
	c.t.Helper()
	c.stop(i)
	c.nodes[i] = startNode(c.t, fmt.Sprintf("n%d", i+1), func(cfg *registry.Config) {
		c.configs[i](cfg)
		cfg.Bind, cfg.Addr = "127.0.0.1:0", "127.0.0.1:0"
	})
	waitReady(c.t, c.nodes[i])
}

// A client that was given three addresses outlives them all: the nodes restart
// on others, one after another, faster than the client would ask by itself. So
// does its registration, and so does one that only follows a ring.
func TestClientOutlivesItsAddresses(t *testing.T) {
	t.Parallel()
	c := newLastingCluster(t)
	var given []string
	for _, n := range c.nodes {
		given = append(given, n.Addr())
	}
	dial := func() (*sdk.Client, addressLog) {
		known := make(addressLog, 1000)
		client, err := sdk.Dial(strings.Join(given, ","), sdk.WithLogger(slog.New(known)), sdk.WithCallTimeout(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client, known
	}
	service, serviceKnows := dial()
	router, routerKnows := dial()
	events := make(chan sdk.Event, 100)
	reg, err := service.Register(t.Context(), sdk.Service{Group: "web", ID: "web1", Addr: "10.0.0.1:80", OnEvent: func(e sdk.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	before, err := service.Match(t.Context(), "web", "k")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := router.Ring(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	serviceKnows.has(t, c.nodes)
	routerKnows.has(t, c.nodes)
	for i := range c.nodes {
		c.move(i)
		serviceKnows.has(t, c.nodes)
		routerKnows.has(t, c.nodes)
	}

	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	beats := c.heartbeats()
	for deadline := time.Now().Add(60 * time.Second); c.heartbeats() == beats; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("no heartbeat reaches the nodes where they are now")
		}
	}
	after, err := service.Match(t.Context(), "web", "k", sdk.Linearizable())
	if err != nil || after.CreatedIndex != before.CreatedIndex {
		t.Errorf("the member was of index %d, now %d: %v", before.CreatedIndex, after.CreatedIndex, err)
	}
	revision, err := service.UpdateMember(t.Context(), "web", "web1", sdk.MemberUpdate{Weight: new(3)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := ring.Wait(ctx, revision); err != nil {
		t.Errorf("the ring is at revision %d, the group at %d: %v", ring.Revision(), revision, err)
	}
	if err := reg.Close(); err != nil {
		t.Error(err)
	}
	for e := range events {
		if e.Kind == sdk.EventEnded && errors.Is(e.Err, sdk.ErrClosed) {
			break
		}
		if e.Kind != sdk.EventRegistered && e.Kind != sdk.EventUnreachable && e.Kind != sdk.EventRenewed {
			t.Errorf("the registration: %v, %v", e.Kind, e.Err)
		}
	}
}

// heartbeats counts the leases that the nodes have renewed since they were started.
func (c *lastingCluster) heartbeats() (sum float64) {
	c.t.Helper()
	for _, n := range c.nodes {
		sum += samples(c.t, scrape(c.t, n))["registry_heartbeats_total"]
	}
	return sum
}
