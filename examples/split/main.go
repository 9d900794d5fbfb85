// Split answers which service owns a key, from several clusters that share the groups: a
// group is in one cluster, and this program knows which one.
//
//	go run ./examples/split -clusters 'eu=127.0.0.1:9800,127.0.0.1:9801 us=127.0.0.1:9900' \
//	    -table 'billing-=eu billing-us-=us' -addr 127.0.0.1:8001
//	curl '127.0.0.1:8001/owner?group=webservice-group&key=user-id-1'
//	{"cluster":"eu","id":"webserver1","addr":"172.16.3.3:8080"}
//
// The table decides by the longest prefix of the group's name. Groups that it does not
// name are spread over the clusters by a hash: when a cluster is added, only groups that
// go to the new one change. Services have to use the same clusters and the same table.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/werbenhu/registry/examples/internal/access"
	"github.com/werbenhu/registry/sdk"
)

func main() {
	list := flag.String("clusters", cmp.Or(os.Getenv("REGISTRY_CLUSTERS"), "default=127.0.0.1:9800"), "the clusters, NAME=ADDRS with the name that their nodes have and client addresses with commas, separated by spaces (REGISTRY_CLUSTERS)")
	table := flag.String("table", "", "groups whose cluster is fixed, PREFIX=NAME, separated by spaces")
	addr := flag.String("addr", ":8001", "address to listen on")
	connect := access.Flags(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *list, *table, *addr, connect()); err != nil {
		fmt.Fprintln(os.Stderr, "split:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, list, table, addr string, connect []sdk.Option) (err error) {
	all, err := dial(list, table, append(connect, sdk.WithLogger(slog.Default()))...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.close()) }()
	srv := &http.Server{Addr: addr, Handler: all, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.ListenAndServe() }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Shutdown waits 5 s for a connection that has sent nothing yet.
	drain, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return srv.Shutdown(drain)
}

// ServeHTTP answers who owns a key, or why nobody is known.
func (c *clusters) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	group, key := r.FormValue("group"), r.FormValue("key")
	in := c.of(group)
	m, err := in.client.Match(r.Context(), group, key)
	switch {
	case errors.Is(err, sdk.ErrInvalidArgument):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, sdk.ErrUnknownGroup), errors.Is(err, sdk.ErrEmptyGroup):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil: // of one cluster: groups of the others are answered
		http.Error(w, in.name+": "+err.Error(), http.StatusBadGateway)
	default:
		serving := m.Serving()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"cluster": in.name, "id": serving.ID, "addr": serving.Addr}) // the caller may be gone
	}
}
