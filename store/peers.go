package store

import (
	"context"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// Peers calls other nodes by their bind addresses.
type Peers interface {
	// Hello asks a node who it is.
	Hello(ctx context.Context, bind string) (Hello, error)
	// Term asks for a node's current raft term.
	Term(ctx context.Context, node Target) (uint64, error)
	// ReadIndex asks the leader for a confirmed index.
	ReadIndex(ctx context.Context, leader Target) (uint64, error)
	// Applied asks for the index that a node has applied.
	Applied(ctx context.Context, node Target) (uint64, error)
	// LowDisk asks whether a node's disk is below its low-water mark.
	LowDisk(ctx context.Context, node Target) (bool, error)
	// Check asks for a node's digests.
	Check(ctx context.Context, node Target, req CheckRequest) (CheckResponse, error)
	// State asks for a node's state at the index or a later one, as a snapshot.
	State(ctx context.Context, node Target, atLeast uint64) (io.ReadCloser, error)
	// Join asks the leader to admit a node, and returns the cluster's id. A node
	// that does not lead returns [ErrNotLeader].
	Join(ctx context.Context, bind string, node Hello) (clusterID string, err error)
}

// eachPeer calls f for each other server, all at once, and waits for all calls.
func (s *Store) eachPeer(servers []raft.Server, f func(raft.Server, Target)) {
	var calls sync.WaitGroup
	for _, server := range servers {
		if server.ID != raft.ServerID(s.cfg.ID) {
			calls.Go(func() { f(server, s.target(string(server.Address), string(server.ID))) })
		}
	}
	calls.Wait()
}

// Hello describes a node.
type Hello struct {
	Cluster     string
	ID          string
	Bind        string
	Addr        string
	Version     string
	Incarnation string // random id of the data directory
	HasState    bool   // the node is, or was, part of a cluster
	Nonvoter    bool   // it stays a non-voter
	Zone        string // failure zone; not in the answer to Hello
	Leader      string // bind address of the leader that it knows
	ClusterID   string // of the cluster it belongs to
	Founders    []Founder
	// FeatureLevel is the newest feature level that it supports, and DataLevel that of
	// its data. 0: level 1.
	FeatureLevel, DataLevel uint32
	// RecoveredFrom are ids of the clusters that this one was recovered from.
	RecoveredFrom []string
}
