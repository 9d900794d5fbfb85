package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// forCluster names the cluster of -cluster in calls that do not go through the SDK.
func forCluster(ctx context.Context, cluster string) (context.Context, error) {
	ref, err := registrypb.ParseClusterRef(cluster)
	if err != nil {
		return nil, usageErrorf("-%s: %w", flagCluster, err)
	}
	if named := ref.Encode(); named != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, registrypb.ClusterHeader, named)
	}
	return ctx, nil
}

// holdTogether asks every node once, before there is load. The calls that follow
// with the returned context are for the cluster of -cluster, or for that of the
// first node that answers; a node of another is an error.
func holdTogether(ctx context.Context, cluster string, timeout time.Duration, clients []registrypb.RegistryClient) (context.Context, error) {
	ctx, err := forCluster(ctx, cluster)
	if err != nil {
		return nil, err
	}
	held := false
	for _, client := range clients {
		one, cancel := context.WithTimeout(ctx, timeout)
		var header metadata.MD
		_, err := client.Members(one, &registrypb.MembersRequest{Group: "bench"}, grpc.Header(&header)) // which need not exist
		cancel()
		if isWrongCluster(err) {
			return nil, &exitError{code: exitConflict, err: errors.New(status.Convert(err).Message())}
		}
		if named := header.Get(registrypb.ClusterHeader); !held && len(named) > 0 {
			ctx, held = metadata.AppendToOutgoingContext(ctx, registrypb.ClusterHeader, named[0]), true
		}
	}
	return ctx, nil
}

// isWrongCluster tells whether a node refused a call because it is of another cluster.
func isWrongCluster(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if d, ok := d.(*registrypb.ErrorDetail); ok && d.GetReason() == registrypb.ErrorDetail_WRONG_CLUSTER {
			return true
		}
	}
	return false
}
