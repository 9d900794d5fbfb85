package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/systems"
)

const (
	batch   = 1000 // members of a call
	callers = 4
	ttl     = 10 * time.Second // of those that beat
	beating = 20 * time.Second
)

type size struct{ members, groups, beat int }

// measure returns a row of the table.
func measure(ctx context.Context, program, dir string, of size) (row string, err error) {
	dir, err = os.MkdirTemp(dir, "nodes-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	nodes, err := systems.StartRegistry(ctx, program, dir)
	if err != nil {
		return "", err
	}
	defer nodes.Close()
	began := time.Now()
	if err := fill(ctx, nodes, of); err != nil {
		return "", fmt.Errorf("fill: %w", err)
	}
	rate := float64(of.members) / time.Since(began).Seconds()
	leader, err := nodes.Leader(ctx)
	if err != nil {
		return "", err
	}
	rss, err := nodes.RSS()
	if err != nil {
		return "", err
	}
	began = time.Now()
	bytes, err := save(ctx, nodes, (leader+1)%systems.Nodes)
	if err != nil {
		return "", fmt.Errorf("save: %w", err)
	}
	saved := since(began)
	began = time.Now()
	if err := nodes.Restart(ctx, (leader+1)%systems.Nodes); err != nil {
		return "", fmt.Errorf("restart: %w", err)
	}
	restarted := since(began)
	began = time.Now()
	if err := nodes.Join(ctx, "n4", filepath.Join(dir, "n4")); err != nil {
		return "", fmt.Errorf("join: %w", err)
	}
	joined := since(began)
	share := "-"
	if of.beat > 0 {
		if share, err = beat(ctx, nodes, leader, of.beat); err != nil {
			return "", fmt.Errorf("beat: %w", err)
		}
	}
	return fmt.Sprintf("%d\t%d\t%.0f\t%.0f MB\t%.1f MB\t%v\t%v\t%v\t%d\t%s\t", of.members, of.groups, rate, float64(rss)/1e6,
		float64(bytes)/1e6, saved, restarted, joined, of.beat, share), nil
}

// fill registers members of typical size: an id of 20 bytes, an address of 21, two pairs
// of metadata. Their leases outlast the run, but those that beat later.
func fill(ctx context.Context, nodes *systems.Registry, of size) error {
	leader, err := nodes.Leader(ctx)
	if err != nil {
		return err
	}
	api := registrypb.NewRegistryClient(nodes.Conns[leader])
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(callers)
	for from := 0; from < of.members; from += batch {
		calls.Go(func() error {
			req := &registrypb.RegisterManyRequest{}
			for i := from; i < min(from+batch, of.members); i++ {
				req.Registrations = append(req.Registrations, registration(i, i%of.groups, time.Hour))
			}
			_, err := register(ctx, api, req)
			return err
		})
	}
	return calls.Wait()
}

func registration(i, group int, ttl time.Duration) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: fmt.Sprintf("group-%05d", group), Id: fmt.Sprintf("member-%013d", i), Addr: fmt.Sprintf("10.%03d.%03d.%03d:08080", i>>16, i>>8&255, i&255),
		Ttl: durationpb.New(ttl), Meta: map[string]string{"zone": "eu-west-1a", "version": "1.24.3"},
	}
}

// register returns the leases.
func register(ctx context.Context, api registrypb.RegistryClient, req *registrypb.RegisterManyRequest) (leases []uint64, err error) {
	resp, err := api.RegisterMany(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, r := range resp.Results {
		if f := r.GetFailure(); f != nil {
			return nil, errors.New(f.String())
		}
		leases = append(leases, r.GetRegistered().GetLeaseId())
	}
	return leases, nil
}

// save returns the size of a snapshot.
func save(ctx context.Context, nodes *systems.Registry, node int) (bytes int, err error) {
	stream, err := registrypb.NewClusterClient(nodes.Conns[node]).SaveSnapshot(ctx, &registrypb.SaveSnapshotRequest{})
	if err != nil {
		return 0, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return bytes, nil
		}
		if err != nil {
			return 0, err
		}
		bytes += len(m.Data)
	}
}

// beat registers members with a TTL of 10 s again and lets 100 clients renew them three
// times in it. It returns the share of a processor that the leader takes.
func beat(ctx context.Context, nodes *systems.Registry, leader, leases int) (share string, err error) {
	const clients = 100
	api := registrypb.NewRegistryClient(nodes.Conns[leader])
	each := max(1, min(batch, leases/clients))
	calls, ctx := errgroup.WithContext(ctx)
	ended := make(chan struct{})
	for from := 0; from < leases; from += each {
		req := &registrypb.RegisterManyRequest{}
		for i := from; i < min(from+each, leases); i++ {
			req.Registrations = append(req.Registrations, registration(i, i%1000, ttl))
			req.Registrations[i-from].Group = "beating-" + req.Registrations[i-from].Group
		}
		ids, err := register(ctx, api, req)
		if err != nil {
			return "", err
		}
		calls.Go(func() error { return renew(ctx, api, ids, ended) })
	}
	before, err := nodes.ProcessorTime(leader)
	if err != nil {
		return "", err
	}
	began := time.Now()
	select {
	case <-time.After(beating):
	case <-ctx.Done():
	}
	after, err := nodes.ProcessorTime(leader)
	took := time.Since(began)
	close(ended)
	if err := errors.Join(err, calls.Wait()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.2f", (after-before).Seconds()/took.Seconds()), nil
}

func renew(ctx context.Context, api registrypb.RegistryClient, ids []uint64, ended <-chan struct{}) error {
	tick := time.NewTicker(ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ended:
			return nil
		}
		resp, err := api.Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: ids})
		if err != nil {
			return err
		}
		if len(resp.Lost) > 0 {
			return fmt.Errorf("%d of %d leases were lost", len(resp.Lost), len(ids))
		}
	}
}
