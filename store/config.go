package store

import (
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

// Config says how a store runs. It is copied when the store opens.
type Config struct {
	// ID is the node's name in the cluster, for ever.
	ID string
	// Cluster is the cluster's name; nodes of different names never join.
	Cluster string
	// BindAdvertise is where other nodes reach this one, host:port. A name
	// stays a name and is resolved at every dial.
	BindAdvertise string
	// Addr is where clients reach this node, host:port; told to the others.
	Addr string
	// Version of the program; told to the others.
	Version string
	// DataDir holds the log, the snapshots and the node's identity.
	DataDir string
	// LogStore is where the log is, raftlog.WAL or raftlog.Bolt. Empty: where the
	// directory has it; in a new one raftlog.Default.
	LogStore string

	// Listener accepts the raft connections of other nodes.
	Listener net.Listener
	// DialRaft opens a raft connection to another node.
	DialRaft func(address string, timeout time.Duration) (net.Conn, error)
	// Peers asks other nodes.
	Peers Peers

	// ElectionTimeout is how long a follower hears nothing before it stands
	// for election. Short finds a dead leader soon and takes a slow disk for
	// a dead leader.
	ElectionTimeout time.Duration
	// SnapshotThreshold is how many entries are applied between snapshots.
	SnapshotThreshold uint64
	// SnapshotInterval is how often the node looks whether a snapshot is due;
	// each time up to twice as long.
	SnapshotInterval time.Duration
	// CheckInterval is how often, while the log moves, the nodes compare their
	// states and rings; negative: never.
	CheckInterval time.Duration
	// MinFreeDisk is the low-water mark, in bytes: while the disk of DataDir
	// has less free, what makes the state grow is refused; 0: none.
	MinFreeDisk uint64
	// RingMemory is the budget of rings in bytes; 0: rings.DefaultMemory.
	RingMemory int64
	// MaxHang is how long one write to the disk may take before the node ends.
	MaxHang time.Duration

	Logger    *slog.Logger
	Observers []fsm.Observer
	// Instruments are told how long things took.
	Instruments Instruments

	diskFree func(dir string) (bytes uint64, err error) // nil: asks the system

	segmentSize int // of a log in segments; tests have small ones

	// Tests put faults before the log and the votes, compare heartbeat handlers, and
	// have connections end soon.
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
	// DefaultMinFreeDisk is what deregistering or expiring 100,000 members may
	// add to the log before a snapshot shortens it, twice.
	DefaultMinFreeDisk = 128 << 20
)

// Least values that make sense; the tests of this package go below. A threshold
// that is low has the nodes write snapshots instead of entries, and a follower
// that was away for a moment is sent a snapshot where some entries would do.
const (
	MinSnapshotThreshold = 256
	MinSnapshotInterval  = time.Second
)

func (c Config) withDefaults() Config {
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = DefaultElectionTimeout
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
