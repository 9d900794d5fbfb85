package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/werbenhu/registry/sdk"
)

func Example() {
	ctx := context.Background()
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800") // any nodes; follows the leader by itself
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	// Heartbeats until closed, registers again after a loss.
	reg, err := client.Register(ctx, sdk.Service{Group: "webservice-group", ID: "webserver1", Addr: "172.16.3.3:8080"})
	if err != nil {
		log.Fatal(err)
	}
	defer reg.Close()

	m, err := client.Match(ctx, "webservice-group", "user-id-1") // the member that owns this user
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.ID, m.Addr)

	all, err := client.Members(ctx, "webservice-group")
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range all {
		fmt.Println(m.ID, m.Addr, m.Weight)
	}
}

// The nodes have certificates of an authority of their own.
func ExampleWithTLSFiles() {
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800", sdk.WithTLSFiles("ca.crt", "", ""))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

// The token says what this client may do. A new one in the file is taken as it comes.
func ExampleWithTokenFile() {
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800", sdk.WithTLSFiles("ca.crt", "", ""), sdk.WithTokenFile("web.token"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

// A service must know when another process has taken its id.
func ExampleClient_Register() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	reg, err := client.Register(context.Background(), sdk.Service{
		Group: "webservice-group", ID: "webserver1", Addr: "10.0.0.5:8080",
		TTL: 5 * time.Second, Weight: 2, Meta: map[string]string{"zone": "a"},
		OnEvent: func(e sdk.Event) { log.Println(e.Kind, e.Err) },
	})
	switch {
	case errors.Is(err, sdk.ErrConflict):
		log.Fatal("another process serves as webserver1: choose another id, or take over")
	case errors.Is(err, sdk.ErrOutcomeUnknown):
		log.Fatal("may be registered; calling Register again is safe")
	case err != nil:
		log.Fatal(err)
	}
	<-reg.Done()
	log.Println("the registration has ended:", reg.Err())
}

// A receipt tells what an answer was computed from; freshness can be asked for.
func ExampleWithReceipt() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var r sdk.Receipt
	m, err := client.Match(context.Background(), "webservice-group", "user-id-1",
		sdk.MaxStaleness(2*time.Second), sdk.WithReceipt(&r))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s by ring %016x at revision %d, from %s\n", m.ID, r.Fingerprint, r.Revision, r.Node)
}

// The first three distinct owners: the owner, and where its replicas go.
func ExampleClient_MatchN() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	owners, err := client.MatchN(context.Background(), "webservice-group", "user-id-1", 3)
	if err != nil {
		log.Fatal(err)
	}
	for i, m := range owners {
		fmt.Println(i, m.ID)
	}
}

// A gateway keeps the ring to itself. It survives the loss of all registry
// nodes, and with a copy on disk its own restart meanwhile.
func ExampleClient_Ring() {
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ring, err := client.Ring(context.Background(), "webservice-group",
		sdk.WithDiskCopy("/var/lib/gateway/ring"), sdk.WithDiskCopyMaxAge(24*time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	ring.OnChange(func(c sdk.RingChange) {
		for _, r := range c.Moved {
			fmt.Printf("[%016x, %016x) goes from %s to %s\n", r.Lo, r.Hi, r.From, r.To)
		}
	})
	m, err := ring.Match("user-id-1") // asks nobody
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.ID, m.Addr, "as of", ring.Age(), "ago")
}

func ExampleClient_Watch() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	watch, err := client.Watch(ctx, "webservice-group")
	if err != nil {
		log.Fatal(err)
	}
	defer watch.Close()
	members := map[string]sdk.Member{}
	for e, err := range watch.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if e.Reset || e.Unknown {
			clear(members)
		}
		for _, m := range e.Put {
			members[m.ID] = m
		}
		for _, id := range e.Removed {
			delete(members, id)
		}
		fmt.Println("revision", e.Revision, "has", len(members), "members")
	}
}

// A service that restarts stays a member: its keys go to the next service
// meanwhile, and come back when the id is registered again.
func ExampleRegistration_Hold() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close() // leaves a held member held
	reg, err := client.Register(context.Background(), sdk.Service{Group: "webservice-group", ID: "webserver1", Addr: "10.0.0.5:8080"})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Addr: ":8080"}
	go func() { _ = srv.ListenAndServe() }()

	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-term.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := reg.Hold(ctx, 30*time.Second); err != nil {
		log.Print(err) // then Close deregisters
	}
	_ = srv.Shutdown(ctx)
}

// A service that leaves for good gives its keys away first and finishes its work.
func ExampleRegistration_Drain() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	reg, err := client.Register(ctx, sdk.Service{Group: "webservice-group", ID: "webserver1", Addr: "10.0.0.5:8080"})
	if err != nil {
		log.Fatal(err)
	}
	if err := reg.Drain(ctx); err != nil { // from now on its keys are others'
		log.Fatal(err)
	}
	// … finish what is under way …
	if err := reg.Close(); err != nil { // moves no key any more
		log.Fatal(err)
	}
}

// Match returns the fallback of an owner that is held.
func ExampleMember_Serving() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	m, err := client.Match(context.Background(), "webservice-group", "user-id-1")
	if err != nil {
		log.Fatal(err)
	}
	if m.State == sdk.StateHeld && m.Fallback != nil {
		fmt.Println(m.ID, "restarts,", m.Fallback.ID, "stands in")
	}
	fmt.Println("ask", m.Serving().Addr)
}
