// Webservice is a service that registers itself and answers who it is.
//
//	go run ./examples/webservice -registries=127.0.0.1:9800 -id=webserver1 -addr=127.0.0.1:8001
//	curl 127.0.0.1:8001/    {"id":"webserver1","group":"webservice-group","addr":"127.0.0.1:8001"}
//
// It listens before it registers, so that no request finds it absent, and
// deregisters before it stops listening, on SIGTERM or Ctrl-C. A service whose
// id is taken over by another process ends with an error: two of them would serve
// the same users.
//
// With -hold 30s it is held for a restart instead: its users go to the
// next service meanwhile, and come back when it is registered again, at whatever
// address, within that time. No other user moves.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/werbenhu/registry/examples/internal/access"
	"github.com/werbenhu/registry/sdk"
)

func main() {
	registries := flag.String("registries", cmp.Or(os.Getenv("REGISTRY_ADDRS"), "127.0.0.1:9800"), "client addresses of registry nodes, comma-separated (REGISTRY_ADDRS)")
	options := access.Flags(flag.CommandLine)
	group := flag.String("group", "webservice-group", "group to register in")
	id := flag.String("id", "", "id in the group (required)")
	addr := flag.String("addr", ":8080", "address to listen on")
	advertise := flag.String("advertise", "", "address that clients reach this service at (default: -addr)")
	ttl := flag.Duration("ttl", 10*time.Second, "how long the registration outlives this process")
	hold := flag.Duration("hold", 0, "on SIGTERM or Ctrl-C hold the member for so long, for a restart (1s to 24h; 0: give it back)")
	debug := flag.Bool("debug", false, "also log what the SDK does: the nodes that it asks, for instance")
	flag.Parse()
	if *advertise == "" {
		*advertise = *addr
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := sdk.Service{Group: *group, ID: *id, Addr: *advertise, TTL: *ttl}
	opts := options()
	if *debug {
		slog.SetLogLoggerLevel(slog.LevelDebug)
		opts = append(opts, sdk.WithLogger(slog.Default()))
	}
	if err := run(ctx, *registries, *addr, s, *hold, opts...); err != nil {
		fmt.Fprintln(os.Stderr, "webservice:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, registries, addr string, s sdk.Service, hold time.Duration, opts ...sdk.Option) error {
	if s.ID == "" {
		return errors.New("-id is required")
	}
	if host, _, err := net.SplitHostPort(s.Addr); err != nil || host == "" {
		return fmt.Errorf("%q is no address for others: set -advertise to host:port", s.Addr)
	}
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler(s), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	err = serve(ctx, registries, s, hold, served, opts)
	// The member is deregistered or held: now finish what is under way.
	// Shutdown waits 5 s for a connection that has sent nothing yet.
	drain, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(drain))
}

// serve stays registered until a signal comes, the registration is lost, or the
// HTTP server fails.
func serve(ctx context.Context, registries string, s sdk.Service, hold time.Duration, served <-chan error, opts []sdk.Option) (err error) {
	client, err := sdk.Dial(registries, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }() // deregisters what is not held
	s.OnEvent = tell
	starting, cancel := context.WithTimeout(ctx, time.Minute) // the registry may be starting too
	defer cancel()
	reg, err := client.Register(starting, s)
	if err != nil {
		return err
	}
	slog.Info("registered", "group", s.Group, "id", s.ID, "addr", s.Addr)
	select {
	case <-ctx.Done():
		return leave(reg, hold)
	case <-reg.Done():
		return reg.Err()
	case err := <-served:
		return err
	}
}

// tell logs what becomes of the registration: a line for each event that a person
// needs.
func tell(e sdk.Event) {
	log := slog.With("group", e.Group, "id", e.ID)
	switch e.Kind {
	case sdk.EventUnreachable:
		log.Warn("unreachable", "error", e.Err)
		if errors.Is(e.Err, sdk.ErrWrongCluster) {
			log.Warn("the nodes that answer are of another cluster; if the cluster was formed anew, restart this service to register there")
		}
	case sdk.EventLost:
		log.Warn("lost; registering again")
	case sdk.EventRegistered, sdk.EventEnded: // serve and leave say more
	default:
		log.Info(e.Kind.String())
	}
}

// linger is how long a held service goes on listening: routers learn of the hold
// within milliseconds, and one that is busy a little later.
const linger = 500 * time.Millisecond

// leave deregisters, or holds the member if that was asked for, and gives routers
// time to hear of it. The client deregisters a member that cannot be held.
func leave(reg *sdk.Registration, hold time.Duration) error {
	s := reg.Service()
	log := slog.With("group", s.Group, "id", s.ID)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if hold == 0 {
		err := reg.CloseContext(ctx)
		switch {
		case err != nil:
			return err
		case reg.Removed():
			log.Info("deregistered")
		default: // an operator holds it, or its lease had expired
			log.Info("ended; not deregistered: held by an operator, or gone before")
		}
		return nil
	}
	if err := reg.Hold(ctx, hold); err != nil {
		return err
	}
	log.Info("held", "hold", max(hold, s.TTL))
	<-time.After(linger)
	return nil
}

func handler(s sdk.Service) http.Handler {
	who, err := json.Marshal(map[string]string{"id": s.ID, "group": s.Group, "addr": s.Addr})
	if err != nil {
		panic(err) // strings always marshal
	}
	who = append(who, '\n')
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(who) // the client is gone: nothing to do
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
