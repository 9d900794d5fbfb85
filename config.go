package registry

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
)

// Config says how a node runs. Start copies it.
type Config struct {
	// ID is the node's name, for ever; required. 1–255 bytes of printable
	// UTF-8 without a slash.
	ID string
	// Cluster is the cluster's name; nodes of different names never join.
	Cluster string
	// Bind is the listening address for other nodes, host:port. Without a
	// host: on all interfaces.
	Bind string
	// BindAdvertise is where other nodes reach Bind; a name stays a name.
	// Empty: Bind. Without a host, the machine's one private IPv4 address is used,
	// not counting bridges and interfaces of containers.
	BindAdvertise string
	// Addr is the listening address for clients.
	Addr string
	// Advertise is where clients reach Addr; completed like BindAdvertise.
	Advertise string
	// SecretFile locks the bind port: nodes accept only those that have the same
	// secret and cluster name. The file has one or two secrets, see
	// peertls.ParseSecrets; it is followed.
	SecretFile string
	// PeerCert, PeerKey and PeerCA lock the bind port by certificates instead, in PEM:
	// this node's, its key, and the authorities that sign for nodes. Package peertls
	// says what a certificate must have. The files are followed.
	PeerCert, PeerKey, PeerCA string
	// Cert and Key are PEM files of the client port's certificate, which must name the
	// host of Advertise, and of its key. With them the port has TLS 1.3, and no
	// connection without TLS. They are read again when they change, as is ClientCA.
	Cert, Key string
	// ClientCA is a PEM file of the authorities of clients' certificates. Empty: no
	// client is asked for one.
	ClientCA string
	// ClientAuth is ClientAuthRequire, the default with ClientCA, or
	// ClientAuthVerifyIfGiven.
	ClientAuth string
	// TLS12 also accepts TLS 1.2 on the client port.
	TLS12 bool
	// AuditLog is a file for the audit log, one JSON object on each line: who changed
	// what, and who was refused; or AuditStderr. Reload opens the file again. Empty: these
	// lines go to Logger, at info.
	AuditLog string
	// Registries are bind addresses of other nodes to join, or to form a
	// cluster with. Ignored by a node that has state.
	Registries []string
	// BootstrapExpect is the number of nodes, this one included, that form a
	// new cluster together. 0 and 1: without Registries the node is a cluster
	// by itself.
	BootstrapExpect int
	// Restore is a snapshot file, with which a node with an empty DataDir forms a new
	// cluster: without Registries, BootstrapExpect and Wait. Other nodes join it. The
	// field has no effect on a node that has the file's state.
	Restore string
	// Wait: start empty and wait until a cluster takes this node in.
	Wait bool
	// ReadReplica: join without a vote, for good: the node answers reads and watches,
	// passes writes on, and counts for no majority. It joins by Registries or Wait. It
	// has no effect on a node that has state, whose part in the cluster is recorded.
	ReadReplica bool
	// ServeStaleOnStart: if this node is restarted and finds no leader for ten election
	// timeouts, it answers reads and watches from what it knows to be committed. How old
	// that is it does not know: its lag is store.UnknownLag, and reads with a limit are
	// refused. For this it records what is committed, so set it before it is needed.
	ServeStaleOnStart bool
	// JoinTimeout bounds the attempts to join a cluster.
	JoinTimeout time.Duration
	// ElectionTimeout: how long a node hears no leader before it stands for
	// election; 50 ms to 1 m. Below what the disk needs for a write at its
	// worst, leaders come and go.
	ElectionTimeout time.Duration
	// RemoveDeadAfter: while it leads, the node removes a voter that it has not reached for
	// that long, at least 1 s, if all others are healthy or as dead; one at a time. 0: no
	// node is removed. It should be longer than any restart of a machine.
	RemoveDeadAfter time.Duration
	// MinVoters is how many voters RemoveDeadAfter leaves at least, 3 to 99; 0: the
	// default, 3.
	MinVoters int
	// DeleteEmptyAfter: while it leads, the node deletes a group that has had no members for
	// that long, at least 10 s, counted anew by each leader. A group whose virtual nodes or
	// bound differ from the default stays. 0: groups stay until somebody deletes them.
	DeleteEmptyAfter time.Duration
	// DataDir holds the log, the snapshots and the node's identity. Empty:
	// registry-data/<id>.
	DataDir string
	// LogStore is where the log is: "wal", in segments, or "boltdb", in one
	// file. Empty: where the directory has it, and in a new one "wal". Another
	// than the directory's is refused: "registry migrate-log" moves the log.
	LogStore string
	// SnapshotThreshold is how many entries are applied between snapshots, at
	// least 256; 0: the default, 16,384. Twice as many stay in the log after a
	// snapshot: a node that was away for longer gets the snapshot.
	SnapshotThreshold uint64
	// MinFreeDisk is the low-water mark of the disk under DataDir, in bytes.
	// While less is free there, on the leader or on so many voters that no
	// majority has room, new members and groups are refused; 0: no mark.
	MinFreeDisk uint64
	// RingMemory is the budget in bytes of the rings of the groups that this node is
	// asked about, and of building them; at least 16 MiB; 0: the default, 512 MiB.
	// Rings that do not fit go, the least recently used first.
	RingMemory int64
	// SnapshotInterval is how often the node looks whether a snapshot is due;
	// each time up to twice as long. At least 1 s; 0: the default, 20 s.
	SnapshotInterval time.Duration
	// Registerer takes the node's metrics, and GET /metrics on the client port
	// serves them if it is a prometheus.Gatherer too, as a *prometheus.Registry
	// is. Several nodes in one process need one each, or one that is wrapped for
	// each with a label (prometheus.WrapRegistererWith). nil: a registry of the node's own, with
	// the process's and the Go runtime's metrics besides.
	Registerer prometheus.Registerer
	// Logger; nil: no logs.
	Logger *slog.Logger
	// TracerProvider makes the OpenTelemetry spans of clients' calls, of their forwarding and of
	// the wait for their commit. It is not shut down with the node. nil: no spans.
	TracerProvider trace.TracerProvider
	// Settings are the values in force as the program's user knows them, without secrets; the
	// node shows them to administrators (registry debug bundle). Empty: there are none.
	Settings string
	// Zone is the failure zone that the node is in: a name like ID, for instance of a data
	// centre; empty: none. The status has it, and the leader's alarms name a zone whose loss
	// would lose the quorum. It needs feature level 2.
	Zone string
	// Version of the program, told to other nodes and shown in the status.
	Version string

	limits rpc.Limits // of messages; tests set smaller ones
}

// DefaultConfig returns a config that lacks only an ID.
func DefaultConfig() Config {
	return Config{
		Cluster:           "registry",
		Bind:              ":7370",
		Addr:              ":9800",
		JoinTimeout:       30 * time.Second,
		ElectionTimeout:   store.DefaultElectionTimeout,
		MinVoters:         store.DefaultMinVoters,
		SnapshotThreshold: store.DefaultSnapshotThreshold,
		SnapshotInterval:  store.DefaultSnapshotInterval,
		MinFreeDisk:       store.DefaultMinFreeDisk,
		RingMemory:        rings.DefaultMemory,
		Version:           "dev",
	}
}

// ErrConfig is what every error of Validate is.
var ErrConfig = errors.New("invalid configuration")

// Validate checks what can be checked without touching the machine. Every
// message names the flag of the command line that sets the field.
func (c Config) Validate() error {
	errs := []error{
		fsm.ValidateName("-id", c.ID),
		fsm.ValidateName("-cluster", c.Cluster),
		fsm.ValidateZone("-zone", c.Zone),
		validateListen("-bind", c.Bind),
		validateListen("-addr", c.Addr),
	}
	if c.ID == "." || c.ID == ".." {
		errs = append(errs, &fsm.FieldError{Field: "-id", Limit: "a name", Got: c.ID})
	}
	if c.BindAdvertise != "" {
		errs = append(errs, validateListen("-bind-advertise", c.BindAdvertise))
	}
	if c.Advertise != "" {
		errs = append(errs, validateListen("-advertise", c.Advertise))
	}
	errs = append(errs, c.validateLock())
	for _, r := range c.Registries {
		errs = append(errs, fsm.ValidateAddr("-registries", r))
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > 99 {
		errs = append(errs, &fsm.FieldError{Field: "-bootstrap-expect", Limit: "0 to 99", Got: strconv.Itoa(c.BootstrapExpect)})
	}
	if c.BootstrapExpect > 1 && len(c.Registries) == 0 {
		errs = append(errs, errors.New("-bootstrap-expect: needs the other nodes in -registries"))
	}
	if c.Restore != "" && (len(c.Registries) > 0 || c.BootstrapExpect > 1 || c.Wait) {
		errs = append(errs, errors.New("-restore: forms a new cluster of this node; leave out -registries, -bootstrap-expect and -wait, and let the other nodes join it"))
	}
	if c.ReadReplica && (c.BootstrapExpect > 1 || c.Restore != "") {
		errs = append(errs, errors.New("-read-replica: joins a cluster, and forms none; leave out -bootstrap-expect and -restore"))
	}
	if c.ElectionTimeout < 50*time.Millisecond || c.ElectionTimeout > time.Minute {
		errs = append(errs, &fsm.FieldError{Field: "-election-timeout", Limit: "50ms to 1m", Got: c.ElectionTimeout.String()})
	}
	if c.RemoveDeadAfter != 0 && c.RemoveDeadAfter < store.MinRemoveDeadAfter {
		errs = append(errs, &fsm.FieldError{Field: "-remove-dead-after", Limit: fmt.Sprintf("0, or at least %s", store.MinRemoveDeadAfter), Got: c.RemoveDeadAfter.String()})
	}
	if c.MinVoters != 0 && (c.MinVoters < store.DefaultMinVoters || c.MinVoters > 99) {
		errs = append(errs, &fsm.FieldError{Field: "-min-voters", Limit: fmt.Sprintf("%d to 99", store.DefaultMinVoters), Got: strconv.Itoa(c.MinVoters)})
	}
	if c.DeleteEmptyAfter != 0 && c.DeleteEmptyAfter < store.MinDeleteEmptyAfter {
		errs = append(errs, &fsm.FieldError{Field: "-delete-empty-after", Limit: fmt.Sprintf("0, or at least %s", store.MinDeleteEmptyAfter), Got: c.DeleteEmptyAfter.String()})
	}
	if c.SnapshotThreshold != 0 && c.SnapshotThreshold < store.MinSnapshotThreshold {
		errs = append(errs, &fsm.FieldError{Field: "-snapshot-threshold", Limit: fmt.Sprintf("at least %d", store.MinSnapshotThreshold), Got: strconv.FormatUint(c.SnapshotThreshold, 10)})
	}
	if c.SnapshotInterval != 0 && c.SnapshotInterval < store.MinSnapshotInterval {
		errs = append(errs, &fsm.FieldError{Field: "-snapshot-interval", Limit: fmt.Sprintf("at least %s", store.MinSnapshotInterval), Got: c.SnapshotInterval.String()})
	}
	if c.RingMemory != 0 && c.RingMemory < rings.MinMemory {
		errs = append(errs, &fsm.FieldError{Field: "-ring-memory", Limit: fmt.Sprintf("at least %d bytes (16MiB)", rings.MinMemory), Got: strconv.FormatInt(c.RingMemory, 10)})
	}
	if c.LogStore != "" && !raftlog.Valid(c.LogStore) {
		errs = append(errs, &fsm.FieldError{Field: "-log-store", Limit: raftlog.WAL + " or " + raftlog.Bolt, Got: strconv.Quote(c.LogStore)})
	}
	errs = append(errs, c.validateTLS(), c.validateFiles())
	if c.JoinTimeout <= 0 {
		errs = append(errs, &fsm.FieldError{Field: "-join-timeout", Limit: "more than 0", Got: c.JoinTimeout.String()})
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// locked reports whether only nodes can use the bind port.
func (c Config) locked() bool { return c.SecretFile != "" || c.PeerCert != "" }

func (c Config) validateLock() error {
	some := c.PeerCert != "" || c.PeerKey != "" || c.PeerCA != ""
	switch {
	case some && (c.PeerCert == "" || c.PeerKey == "" || c.PeerCA == ""):
		return errors.New("-peer-cert, -peer-key, -peer-ca: all three are needed together")
	case some && c.SecretFile != "":
		return errors.New("-secret-file: not together with -peer-cert, -peer-key and -peer-ca")
	}
	return nil
}

// validateListen checks [host]:port; port 0 lets the system choose.
func validateListen(field, addr string) error {
	limit := "host:port or :port, port 0 to 65535"
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return &fsm.FieldError{Field: field, Limit: limit, Got: strconv.Quote(addr)}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return &fsm.FieldError{Field: field, Limit: limit, Got: strconv.Quote(addr)}
	}
	if host != "" && n != 0 {
		return fsm.ValidateAddr(field, addr)
	}
	return nil
}

// peerOptions are those of the connections to other nodes.
func (c Config) peerOptions() []grpc.DialOption {
	if c.TracerProvider == nil {
		return nil
	}
	return []grpc.DialOption{rpc.ClientTraces(c.TracerProvider)}
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.DataDir == "" {
		c.DataDir = filepath.Join("registry-data", c.ID)
	}
	return c
}
