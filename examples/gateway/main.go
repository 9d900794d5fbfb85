// Gateway sends each user to the web service that owns the user: an HTTP
// reverse proxy in front of a group. The user is the header X-User-ID, or the
// cookie user.
//
//	go run ./examples/gateway -registries=127.0.0.1:9800,127.0.0.1:9801 -addr=127.0.0.1:8000
//	curl -H 'X-User-ID: user-id-1' 127.0.0.1:8000/
//
// Any number of gateways send one user to one service, without talking to each
// other. They keep the ring to themselves, so a request asks no registry node,
// and with all of those down each user stays with the same service. With
// -disk-copy that is so even if the gateway is restarted meanwhile.
package main

import (
	"cmp"
	"context"
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
	"github.com/werbenhu/registry/sdk/routing"
)

// userOf tells whose request it is.
var userOf = routing.FirstKey(routing.KeyFromHeader("X-User-ID"), routing.KeyFromCookie("user"))

func main() {
	registries := flag.String("registries", cmp.Or(os.Getenv("REGISTRY_ADDRS"), "127.0.0.1:9800"), "client addresses of registry nodes, comma-separated (REGISTRY_ADDRS)")
	connect := access.Flags(flag.CommandLine)
	group := flag.String("group", "webservice-group", "group of web services to route to")
	addr := flag.String("addr", ":8000", "address to listen on")
	disk := flag.String("disk-copy", "", "file for a copy of the ring, to start with when no registry node answers")
	fallbacks := flag.Int("fallbacks", 0, "how many next owners may serve a user whose own cannot be reached")
	wait := flag.Duration("wait", time.Minute, "how long to wait at the start for a first ring: the registry may be starting too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *registries, *addr, options{connect: connect(), group: *group, disk: *disk, fallbacks: *fallbacks, wait: *wait}); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// options say how to route.
type options struct {
	connect   []sdk.Option
	group     string
	disk      string // file for a copy of the ring
	fallbacks int
	wait      time.Duration
}

func run(ctx context.Context, registries, addr string, o options) (err error) {
	client, err := sdk.Dial(registries, append(o.connect, sdk.WithLogger(slog.Default()))...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	handler, err := gateway(ctx, client, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before there was a ring
		}
		return err
	}
	srv := &http.Server{Addr: addr, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
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

// gateway keeps the group's ring and proxies by it.
func gateway(ctx context.Context, client *sdk.Client, o options) (http.Handler, error) {
	var opts []sdk.RingOption
	if o.disk != "" {
		opts = append(opts, sdk.WithDiskCopy(o.disk))
	}
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	ring, err := client.Ring(ctx, o.group, opts...)
	if err != nil {
		return nil, err
	}
	ring.OnChange(func(c sdk.RingChange) {
		slog.Info("ring changed", "revision", c.To, "members", len(c.After.Members()), "ranges", len(c.Moved))
	})
	return routing.NewProxy(&routing.Transport{Ring: ring, Key: userOf, Fallbacks: o.fallbacks}), nil
}
