package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
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
// first node that answers; a node of another is an error, and so is it when none
// answers.
func holdTogether(ctx context.Context, cluster string, timeout time.Duration, nodes []registrypb.RegistryClient) (context.Context, error) {
	ctx, err := forCluster(ctx, cluster)
	if err != nil {
		return nil, err
	}
	held, answered := false, false
	var failed error
	for _, node := range nodes {
		one, cancel := context.WithTimeout(ctx, timeout)
		var header metadata.MD
		_, err := node.Members(one, &registrypb.MembersRequest{Group: "bench"}, grpc.Header(&header)) // which need not exist
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, sdk.ErrWrongCluster), errors.Is(err, sdk.ErrUnauthenticated):
			return nil, err
		case errors.Is(err, sdk.ErrUnavailable):
			failed = cmp.Or(failed, err)
			continue
		}
		answered = true
		if named := header.Get(registrypb.ClusterHeader); !held && len(named) > 0 {
			ctx, held = metadata.AppendToOutgoingContext(ctx, registrypb.ClusterHeader, named[0]), true
		}
	}
	if !answered {
		return nil, failed
	}
	return ctx, nil
}
