package rpc

import (
	"errors"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// A node that is in no cluster yet may form one while a stream is open: then it
// would answer the heartbeats of another cluster's members with "lost".
func TestNodeWithoutClusterRefusesCallsForOne(t *testing.T) {
	own := ownIdentity{ClusterRef: registrypb.ClusterRef{Name: "prod"}}
	own.encoded = own.Encode()
	for named, want := range map[string]error{
		"":          nil,
		"prod":      nil,
		"prod/0123": store.ErrNotReady,
		"/0123":     store.ErrNotReady,
		"test/0123": errWrongCluster,
	} {
		ctx := t.Context()
		if named != "" {
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(registrypb.ClusterHeader, named))
		}
		if err := own.check(ctx); !errors.Is(err, want) {
			t.Errorf("a call for %q: %v, want %v", named, err, want)
		}
	}
}
