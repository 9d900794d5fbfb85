package store

import (
	"context"
	"io"
)

// Peers asks other nodes, by their bind addresses.
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
	// Check asks what a node had at stated points of the log.
	Check(ctx context.Context, node Target, q Question) (Answer, error)
	// State asks for a node's state, of the index or a later one, as a snapshot.
	State(ctx context.Context, node Target, atLeast uint64) (io.ReadCloser, error)
	// Join asks a node to take the calling node in, and returns the id of the
	// cluster that did. One that does not lead answers [ErrNotLeader].
	Join(ctx context.Context, bind string, node Hello) (clusterID string, err error)
}

// Hello says who a node is.
type Hello struct {
	Cluster     string
	ID          string
	Bind        string
	Addr        string
	Version     string
	Incarnation string // random id of the data directory
	HasState    bool   // the node is, or was, part of a cluster
	Nonvoter    bool   // it wants to stay a non-voter
	Leader      string // bind address of the leader it knows
	ClusterID   string // of the cluster it belongs to
	Founders    []Founder
}
