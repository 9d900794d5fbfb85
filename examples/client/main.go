// Client matches a thousand users to the services of a group, prints how they
// are distributed, and lists the group.
//
//	go run ./examples/client -registries=127.0.0.1:9800,127.0.0.1:9801
//
// All keys travel in one request and are matched against one ring.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"text/tabwriter"

	"github.com/werbenhu/registry/examples/internal/access"
	"github.com/werbenhu/registry/sdk"
)

func main() {
	registries := flag.String("registries", cmp.Or(os.Getenv("REGISTRY_ADDRS"), "127.0.0.1:9800"), "client addresses of registry nodes, comma-separated (REGISTRY_ADDRS)")
	options := access.Flags(flag.CommandLine)
	group := flag.String("group", "webservice-group", "group to match in")
	users := flag.Int("users", 1000, "how many users to match")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *registries, *group, *users, options()...); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, registries, group string, users int, opts ...sdk.Option) error {
	client, err := sdk.Dial(registries, opts...)
	if err != nil {
		return err
	}
	defer client.Close()

	keys := make([]string, users)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-id-%d", i)
	}
	var receipt sdk.Receipt
	owners, err := client.MatchMany(ctx, group, keys, sdk.WithReceipt(&receipt))
	if err != nil {
		return err
	}
	owned := map[string]int{}
	for _, m := range owners {
		owned[m.ID]++
	}

	members, err := client.Members(ctx, group)
	if err != nil {
		return err
	}
	fmt.Printf("%d users in %s, by ring %016x of node %s\n\n", users, group, receipt.Fingerprint, receipt.Node)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tADDR\tWEIGHT\tSTATE\tUSERS")
	for _, m := range members {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", m.ID, m.Addr, m.Weight, m.State, owned[m.ID])
	}
	return w.Flush()
}
