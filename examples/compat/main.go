// Compat is for people who come from this project's first version, the one whose
// nodes gossiped: each call of that version stands in a comment, with what takes
// its place below it.
//
//	go run ./examples/compat -registries=127.0.0.1:9800,127.0.0.1:9801 -id=webserver1 -addr=127.0.0.1:8001
//
// It registers a service that does nothing, matches some users, lists the group,
// and tells of the members that come, go and change, until Ctrl-C. Start it a
// second time with another -id to see that.
//
// What is different on the whole:
//
//   - A service does not take part in the cluster any more: it needs no port of
//     its own (bind, advertise) and no rule in a firewall, and talks to the
//     nodes' client addresses (9800) alone, not to those for nodes (7370).
//   - All nodes have one log, and so one ring.
//   - Keys have other owners than before: the ring has another hash function.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/werbenhu/registry/examples/internal/access"
	"github.com/werbenhu/registry/sdk"
)

func main() {
	registries := flag.String("registries", cmp.Or(os.Getenv("REGISTRY_ADDRS"), "127.0.0.1:9800"), "client addresses of registry nodes, comma-separated (REGISTRY_ADDRS)")
	options := access.Flags(flag.CommandLine)
	id := flag.String("id", "webserver1", "id of the service in the group")
	addr := flag.String("addr", "127.0.0.1:8001", "address of the service")
	group := flag.String("group", "webservice-group", "group of the service")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *registries, sdk.Service{Group: *group, ID: *id, Addr: *addr}, options()...); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, registries string, service sdk.Service, opts ...sdk.Option) (err error) {
	// Then:
	//
	//	client, err := client.NewRpcClient("172.16.3.3:9801")
	//	defer client.Close()
	//
	// Now, with more than one address, so that the client can start while one
	// node is down; it learns those that are not named. One client serves for
	// everything, registration too, and Close gives back what it registered.
	client, err := sdk.Dial(registries, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	service.OnEvent = func(e sdk.Event) {
		if e.Kind == sdk.EventEnded { // another process has the id, for instance
			cancel()
		}
	}
	reg, err := register(ctx, client, service)
	if err != nil {
		return err
	}
	if err := match(ctx, out, client, service.Group); err != nil {
		return err
	}
	if err := members(ctx, out, client, service.Group); err != nil {
		return err
	}
	return errors.Join(follow(ctx, client, service.Group, printer{out}), reg.Err())
}

// Then:
//
//	r := register.New(id, ":8370", "172.16.3.3:8370", "172.16.3.3:7370", group, addr)
//	err := r.Start()
//	...
//	r.Stop()
//
// Now: the service is in the group when Register returns, kept there by
// heartbeats, and registered again if its lease was lost. An id that another
// live process holds is sdk.ErrConflict. Registration.Close deregisters it, or
// the client's Close.
func register(ctx context.Context, client *sdk.Client, service sdk.Service) (*sdk.Registration, error) {
	return client.Register(ctx, service)
}

// Then:
//
//	service, err := client.Match(group, "user-id-1")
//	log.Println(service.Id, service.Group, service.Addr)
//
// Now, for single keys, there is the same call with a context. A program that
// routes keeps the ring to itself: its Match asks nobody, and goes on while no
// node can be reached.
func match(ctx context.Context, out io.Writer, client *sdk.Client, group string) error {
	m, err := client.Match(ctx, group, "user-id-1")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "user-id-1 is with %s at %s, says a node\n", m.ID, m.Addr)

	ring, err := client.Ring(ctx, group)
	if err != nil {
		return err
	}
	defer ring.Close() // a program that routes keeps it
	for i := range 3 {
		key := fmt.Sprint("user-id-", i)
		m, err := ring.Match(key)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s is with %s at %s\n", key, m.ID, m.Addr)
	}
	return nil
}

// Then:
//
//	services, err := client.Members(group)
//
// Now: the same, and members have a weight, a state and metadata as well. A group
// that does not exist is sdk.ErrUnknownGroup.
func members(ctx context.Context, out io.Writer, client *sdk.Client, group string) error {
	all, err := client.Members(ctx, group)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tADDR\tWEIGHT\tSTATE")
	for _, m := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", m.ID, m.Addr, m.Weight, m.State)
	}
	return w.Flush()
}

// handler is what used to be given to a registration or a node:
//
//	type Handler interface {
//		OnMemberJoin(*Member) error
//		OnMemberLeave(*Member) error
//		OnMemberUpdate(*Member) error
//	}
//	r.SetHandler(handler)
//
// The SDK has no such interface: a Watch tells what changed, and follow makes
// these calls of it. They have no error to return, for there is nothing that a
// watch could do about it.
type handler interface {
	OnMemberJoin(sdk.Member)
	OnMemberLeave(sdk.Member)
	OnMemberUpdate(sdk.Member)
}

// follow tells h of the members of one group, those that are there at first
// included, until ctx ends. For all groups, as it used to be, there is
// Client.WatchPrefix with an empty prefix, and for the registry's own nodes,
// which used to be members too, Client.WatchNodes. To learn which keys went from
// whom to whom, use Ring.OnChange instead.
func follow(ctx context.Context, client *sdk.Client, group string, h handler) error {
	watch, err := client.Watch(ctx, group)
	if err != nil {
		return err
	}
	defer watch.Close()
	known := map[string]sdk.Member{}
	for e, err := range watch.All(ctx) {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		tell(known, e, h)
	}
	return nil
}

// tell brings known up to date.
func tell(known map[string]sdk.Member, e sdk.GroupEvent, h handler) {
	gone := e.Removed
	if e.Reset || e.Unknown { // the event is all there is
		put := map[string]bool{}
		for _, m := range e.Put {
			put[m.ID] = true
		}
		for id := range known {
			if !put[id] {
				gone = append(gone, id)
			}
		}
	}
	for _, id := range gone {
		if m, ok := known[id]; ok {
			delete(known, id)
			h.OnMemberLeave(m)
		}
	}
	for _, m := range e.Put {
		was, ok := known[m.ID]
		known[m.ID] = m
		switch {
		case !ok:
			h.OnMemberJoin(m)
		case was.ModifiedIndex != m.ModifiedIndex:
			h.OnMemberUpdate(m)
		}
	}
}

type printer struct{ out io.Writer }

func (p printer) OnMemberJoin(m sdk.Member)  { fmt.Fprintf(p.out, "join %s at %s\n", m.ID, m.Addr) }
func (p printer) OnMemberLeave(m sdk.Member) { fmt.Fprintf(p.out, "leave %s\n", m.ID) }
func (p printer) OnMemberUpdate(m sdk.Member) {
	fmt.Fprintf(p.out, "update %s at %s, %s\n", m.ID, m.Addr, m.State)
}
