package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/systems"
)

const ours = "registry"

// registry is three nodes.
type registry struct {
	*systems.Registry
	leases []uint64
}

func startRegistry(ctx context.Context, program, dir string) (system, error) {
	nodes, err := systems.StartRegistry(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	return &registry{Registry: nodes}, nil
}

func (r *registry) leader(ctx context.Context) (int, error) { return r.Leader(ctx) }

// registration has about as many bytes as a key and a value of etcd's.
func registration(group string, n int) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: group, Id: memberOf(n), Addr: "10.0.0.1:8080", Ttl: durationpb.New(time.Hour), Instance: []byte(memberOf(n)),
		Meta: map[string]string{"zone": strings.Repeat("z", 60)},
	}
}

func (r *registry) prepare(ctx context.Context) error {
	r.leases = make([]uint64, leases)
	return together(ctx, groups*members, func(i int) error {
		resp, err := registrypb.NewRegistryClient(r.Conns[i%systems.Nodes]).Register(ctx, registration(groupOf(i), i))
		if err == nil && i < leases {
			r.leases[i] = resp.LeaseId
		}
		return err
	})
}

func (r *registry) calls(l load, leader int) (calls []call, closeAll func(), err error) {
	if l.place == oneClient {
		return r.clientCalls(l)
	}
	var clients []registrypb.RegistryClient
	var closes []func() error
	closeAll = func() {
		for _, c := range closes {
			_ = c() // no call is under way
		}
	}
	for range l.connections() {
		for _, node := range l.nodes(leader, systems.Nodes) {
			conn, err := systems.DialRegistry(r.Addrs[node])
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			closes = append(closes, conn.Close)
			clients = append(clients, registrypb.NewRegistryClient(conn))
		}
	}
	for i := range l.callers {
		calls = append(calls, r.caller(l, i, clients[i%len(clients)]))
	}
	return calls, closeAll, nil
}

func (r *registry) caller(l load, i int, client registrypb.RegistryClient) call {
	n := i * 1_000_003
	switch {
	case l.kind == register && l.batch > 0:
		return func(ctx context.Context) (int, error) {
			req := &registrypb.RegisterManyRequest{}
			for range l.batch {
				at := int(serial.Add(1))
				req.Registrations = append(req.Registrations, registration(newGroup(at), at))
			}
			resp, err := client.RegisterMany(ctx, req)
			for _, r := range resp.GetResults() {
				if f := r.GetFailure(); f != nil {
					err = errors.New(f.Message)
				}
			}
			return l.batch, err
		}
	case l.kind == register:
		return func(ctx context.Context) (int, error) {
			at := int(serial.Add(1))
			_, err := client.Register(ctx, registration(newGroup(at), at))
			return 1, err
		}
	case l.kind == heartbeat && l.batch > 0:
		var stream grpc.BidiStreamingClient[registrypb.HeartbeatRequest, registrypb.HeartbeatResponse]
		return func(ctx context.Context) (_ int, err error) {
			if stream == nil {
				if stream, err = client.HeartbeatStream(ctx); err != nil {
					return 0, err
				}
			}
			req := &registrypb.HeartbeatRequest{}
			for range l.batch {
				n++
				req.LeaseIds = append(req.LeaseIds, r.leases[n%leases])
			}
			if err := stream.Send(req); err != nil {
				return 0, err
			}
			resp, err := stream.Recv()
			if err == nil && len(resp.Lost) > 0 {
				err = fmt.Errorf("%d leases lost", len(resp.Lost))
			}
			return l.batch, err
		}
	case l.kind == heartbeat:
		return func(ctx context.Context) (int, error) {
			n++
			resp, err := client.Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: []uint64{r.leases[n%leases]}})
			if err == nil && len(resp.Lost) > 0 {
				err = fmt.Errorf("%d leases lost", len(resp.Lost))
			}
			return 1, err
		}
	case l.batch > 0:
		return func(ctx context.Context) (int, error) {
			keys := make([][]byte, l.batch)
			for k := range keys {
				n++
				keys[k] = []byte(keyOf(n))
			}
			_, err := client.MatchMany(ctx, &registrypb.MatchManyRequest{Group: groupOf(n), Keys: keys})
			return l.batch, err
		}
	}
	read := &registrypb.ReadOptions{Linearizable: l.kind == matchLinearizable}
	return func(ctx context.Context) (int, error) {
		n++
		_, err := client.Match(ctx, &registrypb.MatchRequest{Group: groupOf(n), Key: []byte(keyOf(n)), Read: read})
		return 1, err
	}
}

// clientCalls are registrations that end with the member's registration and nothing
// else: their leases outlast the run.
func (r *registry) clientCalls(l load) (calls []call, closeAll func(), err error) {
	client, err := sdk.Dial(strings.Join(r.Addrs, ","), sdk.WithCloseTimeout(time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	for range l.callers {
		calls = append(calls, func(ctx context.Context) (int, error) {
			n := int(serial.Add(1))
			_, err := client.Register(ctx, sdk.Service{
				Group: newGroup(n), ID: memberOf(n), Addr: "10.0.0.1:8080", TTL: time.Hour, Meta: map[string]string{"zone": strings.Repeat("z", 60)},
			})
			return 1, err
		})
	}
	return calls, func() { _ = client.Close() }, nil // its members would take long to deregister
}
