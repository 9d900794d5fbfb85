package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/rafttransport"
)

// Config configures a store. It is copied when the store opens.
type Config struct {
	// ID is the node's name in the cluster, for ever.
	ID string
	// Cluster is the cluster's name; nodes of different names never join.
	Cluster string
	// BindAdvertise is where other nodes reach this one, host:port. A name
	// stays a name and is resolved at every dial.
	BindAdvertise string
	// Addr is where clients reach this node, host:port. Other nodes learn it.
	Addr string
	// Version of the program. Other nodes learn it.
	Version string
	// Zone is the failure zone that the node is in, see [fsm.ValidateZone]; empty: none is
	// named. Other nodes learn it.
	Zone string
	// FeatureLevel is the newest feature level that the node supports; 0:
	// fsm.NewestLevel. Tests of clusters with earlier versions use less.
	FeatureLevel uint32
	// DataDir holds the log, the snapshots and the node's identity.
	DataDir string
	// LogStore is the kind of log, raftlog.WAL or raftlog.Bolt. Empty: the kind that
	// the directory has, and in a new one raftlog.Default.
	LogStore string

	// Listener accepts the raft connections of other nodes.
	Listener net.Listener
	// DialRaft opens a raft connection to another node. ctx ends with a timeout or with
	// this node.
	DialRaft func(ctx context.Context, address string) (net.Conn, error)
	// Peers calls other nodes.
	Peers Peers

	// ElectionTimeout is how long a follower goes without a heartbeat before it
	// campaigns. A short one detects a failed leader sooner, and is more likely to
	// take a slow disk for a failed leader.
	ElectionTimeout time.Duration
	// SnapshotThreshold is how many entries are applied between snapshots.
	SnapshotThreshold uint64
	// SnapshotInterval is how often the node checks whether a snapshot is due. raft
	// randomises it up to twice that.
	SnapshotInterval time.Duration
	// CheckInterval is how often the nodes compare their states and rings while
	// entries are applied; negative: never.
	CheckInterval time.Duration
	// MinFreeDisk is the low-water mark of the disk of DataDir, in bytes. Below it,
	// new members and groups are refused; 0: none.
	MinFreeDisk uint64
	// RingMemory is the budget of rings in bytes; 0: rings.DefaultMemory.
	RingMemory int64
	// MaxHang is how long one write to the disk may take before the node fails.
	MaxHang time.Duration

	// RemoveDeadAfter: while it leads, the node removes a voter that it has not reached
	// for that long, see [DeadVoter]; 0: none.
	RemoveDeadAfter time.Duration
	// MinVoters is how many voters such removals leave at least.
	MinVoters int
	// Removed is told of the removals of dead voters; err is of one that failed. May be nil.
	Removed func(id string, err error)

	// DeleteEmptyAfter: while it leads, the node deletes a group that has had no members for
	// that long and has no settings of its own; 0: none.
	DeleteEmptyAfter time.Duration

	// Nonvoter: a node without state joins as a non-voter, and stays one. It forms no
	// cluster.
	Nonvoter bool
	// StaleOnStart: a restarted node that finds no leader for ten election timeouts answers
	// from what it knows to be committed. It also makes the node record that, at every
	// entry, for the next start.
	StaleOnStart bool
	// Restore is a snapshot file: a node with an empty directory forms a new cluster,
	// alone, with the file's state. No effect on one that has done so.
	Restore string

	Logger    *slog.Logger
	Observers []fsm.Observer
	// Alarms returns conditions of the node outside the store, for its status; nil: there
	// are none. It is called concurrently.
	Alarms func() []string
	// Instruments observe durations.
	Instruments Instruments

	diskFree func(dir string) (bytes uint64, err error) // nil: statfs

	segmentSize int // of a log in segments; tests use small ones

	// For tests: faults of log and votes, other heartbeat handlers, and a short idle limit.
	wrapLog    func(raft.LogStore) raft.LogStore
	wrapStable func(raft.StableStore) raft.StableStore
	heartbeats func(t *rafttransport.Transport, rafts func(raft.RPC)) func(raft.RPC)
	idleLimit  time.Duration // how long a raft connection may be silent; 0: idleLimit
}

// Defaults of the fields of [Config].
const (
	DefaultElectionTimeout   = 500 * time.Millisecond
	DefaultSnapshotThreshold = 16 << 10
	DefaultSnapshotInterval  = 20 * time.Second
	DefaultMaxHang           = 10 * time.Second
	DefaultCheckInterval     = 2 * time.Second
	DefaultMinVoters         = 3
	// DefaultMinFreeDisk is twice what the removal of 100,000 members may add to the
	// log before a snapshot shortens it.
	DefaultMinFreeDisk = 128 << 20
)

// Minimum values for users; the tests of this package use smaller ones. With a low
// threshold the nodes write snapshots all the time, and a follower that was down
// briefly needs a snapshot instead of some entries.
const (
	MinSnapshotThreshold = 256
	MinSnapshotInterval  = time.Second
	MinRemoveDeadAfter   = time.Second
	MinDeleteEmptyAfter  = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = DefaultElectionTimeout
	}
	if c.FeatureLevel == 0 {
		c.FeatureLevel = fsm.NewestLevel
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = DefaultSnapshotThreshold
	}
	if c.CheckInterval == 0 {
		c.CheckInterval = DefaultCheckInterval
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = DefaultSnapshotInterval
	}
	if c.MaxHang == 0 {
		c.MaxHang = DefaultMaxHang
	}
	if c.MinVoters == 0 {
		c.MinVoters = DefaultMinVoters
	}
	if c.diskFree == nil {
		c.diskFree = diskFree
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.ElectionTimeout < 50*time.Millisecond || c.ElectionTimeout > time.Minute {
		return fmt.Errorf("election timeout: must be 50ms to 1m, got %s", c.ElectionTimeout)
	}
	if c.Listener == nil || c.DialRaft == nil || c.Peers == nil {
		return errors.New("store: Listener, DialRaft and Peers are required")
	}
	if c.LogStore != "" && !raftlog.Valid(c.LogStore) {
		return &fsm.FieldError{Field: "log-store", Limit: raftlog.WAL + " or " + raftlog.Bolt, Got: c.LogStore}
	}
	return errors.Join(
		fsm.ValidateName("id", c.ID),
		fsm.ValidateName("cluster", c.Cluster),
		fsm.ValidateAddr("bind-advertise", c.BindAdvertise),
		fsm.ValidateAddr("advertise", c.Addr))
}
