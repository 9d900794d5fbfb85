package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/systems"
)

const (
	batch   = 1000 // members of a call
	callers = 4
	beating = 20 * time.Second
)

// size is what a run is of. virtualNodes are those of each group; 0: the default.
type size struct{ members, groups, virtualNodes, beat, saves int }

// result is a row of the table.
type result struct {
	Members      int     `json:"members"` // that the nodes took
	Groups       int     `json:"groups"`
	VirtualNodes int     `json:"virtual_nodes"` // 0: the default
	Refused      string  `json:"refused"`       // why the nodes took no more; empty: they took all
	PerSecond    float64 `json:"registered_per_second"`
	RSS          int64   `json:"rss_bytes"` // of the node with most, after the registrations
	Snapshot     int     `json:"snapshot_bytes"`
	Save         float64 `json:"save_seconds"`
	besideSaves
	Restart   float64 `json:"restart_seconds"`
	Join      float64 `json:"join_seconds"`
	Beating   int     `json:"leases_that_beat"`
	Processor float64 `json:"leader_processors"` // while they beat
	Failover  float64 `json:"failover_seconds"`  // from the loss of the leader until all had beaten again
	Peak      int64   `json:"peak_rss_bytes"`    // of any node, at any time
}

const header = "members\tgroups\tmembers/s\tRSS of a node\tsnapshot\tsave\twrites p99\tbeside saves\tsave beside writes\trestore\trestart\tjoin\tbeating\tleader's processor\tall beat after its loss\tpeak RSS\tno more because\t"

func (r result) String() string {
	beats := "-\t-"
	if r.Beating > 0 {
		beats = fmt.Sprintf("%.2f\t%.1fs", r.Processor, r.Failover)
	}
	mb := func(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/1e6) }
	return fmt.Sprintf("%d\t%d\t%.0f\t%s\t%.1f MB\t%.2fs\t%s\t%.1fs\t%.1fs\t%d\t%s\t%s\t%s\t", r.Members, r.Groups, r.PerSecond, mb(r.RSS),
		float64(r.Snapshot)/1e6, r.Save, r.besideSaves, r.Restart, r.Join, r.Beating, beats, mb(r.Peak), r.Refused)
}

// measure fills three new nodes and returns their row.
func measure(ctx context.Context, program, dir string, of size) (r result, err error) {
	dir, err = os.MkdirTemp(dir, "nodes-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	nodes, err := systems.StartRegistry(ctx, program, dir)
	if err != nil {
		return r, err
	}
	defer nodes.Close()
	r = result{Groups: of.groups, VirtualNodes: of.virtualNodes}
	if err := setGroups(ctx, nodes, of); err != nil {
		return r, fmt.Errorf("set groups: %w", err)
	}
	began := time.Now()
	if r.Members, r.Refused, err = fill(ctx, nodes, of); err != nil {
		return r, fmt.Errorf("fill: %w", err)
	}
	r.PerSecond = float64(r.Members) / time.Since(began).Seconds()
	if r.RSS, err = nodes.RSS(); err != nil {
		return r, err
	}
	follower := -1
	for _, step := range []struct {
		name string
		took *float64
		do   func() error
	}{
		{"find the leader", nil, func() error { leader, err := nodes.Leader(ctx); follower = (leader + 1) % systems.Nodes; return err }},
		{"save", &r.Save, func() (err error) { r.Snapshot, err = save(ctx, nodes, follower); return err }},
		{"saves beside writes", nil, func() (err error) {
			r.besideSaves, err = measureSaves(ctx, program, dir, nodes, of.saves)
			return err
		}},
		{"restart", &r.Restart, func() error { return nodes.Restart(ctx, follower) }},
		{"join", &r.Join, func() error { return nodes.Join(ctx, "n4", filepath.Join(dir, "n4")) }},
		{"beat", nil, func() error {
			if of.beat = min(of.beat, r.Members); r.Refused != "" {
				of.beat = min(of.beat, r.Members/2) // of the last ones some are missing
			}
			return r.beat(ctx, nodes, of)
		}},
	} {
		began := time.Now()
		if err := step.do(); err != nil {
			return r, fmt.Errorf("%s: %w", step.name, err)
		}
		if step.took != nil {
			*step.took = time.Since(began).Seconds()
		}
	}
	return r, nil
}

// beat measures what heartbeats cost, and their return after the loss of the leader.
func (r *result) beat(ctx context.Context, nodes *systems.Registry, of size) (err error) {
	if of.beat > 0 {
		s, err := startServices(ctx, nodes, of)
		if err != nil {
			return err
		}
		defer s.close()
		leader, err := nodes.Leader(ctx)
		if err != nil {
			return err
		}
		r.Beating = of.beat
		if r.Processor, err = s.processorShare(ctx, nodes, leader); err != nil {
			return err
		}
		if r.Peak, err = nodes.PeakRSS(); err != nil { // of the leader, too
			return err
		}
		took, err := s.loseLeader(ctx, nodes, leader)
		if err != nil {
			return fmt.Errorf("loss of the leader: %w", err)
		}
		r.Failover = took.Seconds()
	}
	peak, err := nodes.PeakRSS()
	r.Peak = max(r.Peak, peak)
	return err
}

// setGroups creates the groups, if they are to have other virtual nodes than by default.
func setGroups(ctx context.Context, nodes *systems.Registry, of size) error {
	if of.virtualNodes == 0 {
		return nil
	}
	leader, err := nodes.Leader(ctx)
	if err != nil {
		return err
	}
	api := registrypb.NewRegistryClient(nodes.Conns[leader])
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(batch)
	for g := range of.groups {
		calls.Go(func() error {
			_, err := api.SetGroup(ctx, &registrypb.SetGroupRequest{Group: group(g), Config: &registrypb.GroupConfig{VirtualNodes: uint32(of.virtualNodes)}})
			return err
		})
	}
	return calls.Wait()
}

// fill registers members of typical size: an id of 20 bytes, an address of 21, two pairs
// of metadata. Their leases outlast the run, but those that beat later. At a limit it
// returns how many there are and which limit it is.
func fill(ctx context.Context, nodes *systems.Registry, of size) (members int, refused string, err error) {
	leader, err := nodes.Leader(ctx)
	if err != nil {
		return 0, "", err
	}
	api := registrypb.NewRegistryClient(nodes.Conns[leader])
	var taken atomic.Int64
	var limit atomic.Pointer[string]
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(callers)
	for from := 0; from < of.members && ctx.Err() == nil && limit.Load() == nil; from += batch {
		calls.Go(func() error {
			req := &registrypb.RegisterManyRequest{}
			for i := from; i < min(from+batch, of.members); i++ {
				req.Registrations = append(req.Registrations, registration(i, i%of.groups))
			}
			n, reached, err := register(ctx, api, req)
			taken.Add(int64(n))
			if reached != "" {
				limit.Store(&reached)
			}
			return err
		})
	}
	err = calls.Wait()
	if reached := limit.Load(); reached != nil {
		refused = *reached
	}
	return int(taken.Load()), refused, err
}

func group(i int) string { return fmt.Sprintf("group-%05d", i) }

func registration(i, of int) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: group(of), Id: fmt.Sprintf("member-%013d", i), Addr: fmt.Sprintf("10.%03d.%03d.%03d:08080", i>>16, i>>8&255, i&255),
		Ttl: durationpb.New(time.Hour), Meta: map[string]string{"zone": "eu-west-1a", "version": "1.24.3"},
	}
}

// register returns how many the nodes took, and which limit they refused others for.
// What fails for want of a leader, as on a busy machine, is tried again.
func register(ctx context.Context, api registrypb.RegistryClient, req *registrypb.RegisterManyRequest) (taken int, limit string, err error) {
	left := req.Registrations
	for range 20 {
		resp, err := api.RegisterMany(ctx, &registrypb.RegisterManyRequest{Registrations: left})
		if err != nil {
			return taken, limit, err
		}
		var again []*registrypb.RegisterRequest
		for i, r := range resp.Results {
			f := r.GetFailure()
			if f == nil {
				taken++
				continue
			}
			switch f.GetDetail().GetReason() {
			case registrypb.ErrorDetail_EXHAUSTED:
				limit = f.Message
			case registrypb.ErrorDetail_NO_LEADER, registrypb.ErrorDetail_BUSY, registrypb.ErrorDetail_OUTCOME_UNKNOWN:
				again = append(again, left[i])
			default:
				return taken, limit, errors.New(f.String())
			}
		}
		if left = again; len(left) == 0 {
			return taken, limit, nil
		}
	}
	return taken, limit, fmt.Errorf("%d registrations failed 20 times", len(left))
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
