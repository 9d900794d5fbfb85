package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/raftlog"
	"github.com/werbenhu/registry/store/rafttransport"
)

// A recovery makes one survivor of a lost quorum a cluster of its own, like
// raft.RecoverCluster: its state after all entries of its log becomes a snapshot with
// this node as the only voter, and the log is emptied. There are two differences.
//
// The cluster's id is new. Nodes that come back with their old directories have a
// configuration and votes in which they may be a majority, so they are refused
// everywhere.
//
// The snapshot's index is ahead of the log by recoveryGap. The lost nodes may have
// acknowledged entries that the survivor never had. Their revisions, lease ids and
// epochs, which fence storage elsewhere, are not given out again.
//
// The steps: (1) the snapshot is written beside the others and read back, (2) node.json
// gets the new id and names the snapshot, (3) the snapshot replaces the others, (4) the
// log is emptied, (5) node.json no longer names the snapshot. Until 2 the directory is
// as it was; from 2 on each start and each recovery does the rest.

const (
	// recoveryDir has the snapshot of a recovery until it replaces the others.
	recoveryDir = "recovery"
	// recoveryGap is more entries than the survivor may be behind: weeks of writes.
	recoveryGap = 1 << 32
)

// ErrOnlyVoter: there is no lost quorum to recover from.
var ErrOnlyVoter = errors.New("the node is the only voter of its cluster")

// Survivor is what a node has whose cluster lost its quorum.
type Survivor struct {
	ID, Cluster, ClusterID string
	Term                   uint64 // the current one
	// LastIndex and LastTerm are those of the last log entry, which its leader wrote at
	// LastWritten, zero if unknown.
	LastIndex, LastTerm uint64
	LastWritten         time.Time
	// Committed is the last entry that is known to be committed: it is in a snapshot.
	Committed uint64
	Nodes     []SurvivorNode // by id
	// Of the state after the last entry.
	Groups, Members, Tokens int
}

// SurvivorNode is a node of the last configuration.
type SurvivorNode struct {
	ID, Bind string
	Voter    bool
}

// Recovery is a data directory that is locked for a recovery.
type Recovery struct {
	Survivor
	// Begun: an earlier recovery was interrupted. Only its rest is left to do, and only the
	// identifiers of Survivor are set.
	Begun bool
	// Done: an earlier recovery has ended, and the node is still the only voter. Nothing is
	// left to do.
	Done bool

	dir   string
	ident identity
	files *raftlog.Files
	log   hclog.Logger
	state *fsm.State
	step  func(what string) // for tests: called after each step
}

// OpenRecovery locks the data directory of a stopped node and reads all that the node
// has. It returns [ErrOnlyVoter] if there is nothing to recover.
func OpenRecovery(dir string, logger *slog.Logger) (*Recovery, error) {
	return openRecovery(dir, logger, 0)
}

func openRecovery(dir string, logger *slog.Logger, segmentSize int) (_ *Recovery, err error) {
	if _, err := storedIdentity(dir); err != nil { // Lock would create a log
		return nil, err
	}
	r := &Recovery{dir: dir, log: newRaftLogger(logger), step: func(string) {}}
	if r.files, err = raftlog.Lock(dir); err != nil {
		return nil, r.unusable(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.files.Close())
		}
	}()
	if r.ident, err = storedIdentity(dir); err != nil {
		return nil, err
	}
	if err := checkFormat(dir, r.ident, fsm.NewestLevel); err != nil {
		return nil, err
	}
	switch {
	case r.ident.ClusterID == "":
		return nil, fmt.Errorf("%w %s: its node is of no cluster yet", ErrDataDir, dir)
	}
	if err := r.files.Open(r.ident.logKind(), r.log, segmentSize); err != nil {
		return nil, r.unusable(err)
	}
	r.ID, r.Cluster, r.ClusterID = r.ident.ID, r.ident.Cluster, r.ident.ClusterID
	if r.Begun = r.ident.Recovering != ""; r.Begun {
		return r, nil
	}
	if err := r.read(logger); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Recovery) unusable(cause error) error {
	if !errors.Is(cause, ErrCorrupt) {
		return fmt.Errorf("%w %s: %w%s", ErrDataDir, r.dir, cause, raftlog.Advice(cause))
	}
	return fmt.Errorf("%w %s: %w; recover another survivor, or form a new cluster from a snapshot file with: registry serve -restore FILE", ErrDataDir, r.dir, cause)
}

// read verifies what is on disk and builds the state of the last entry.
func (r *Recovery) read(logger *slog.Logger) error {
	from, last, err := r.files.Verify()
	if err != nil {
		return r.unusable(err)
	}
	snaps, err := raftlog.OpenSnapshots(r.dir, r.log)
	if err != nil {
		return r.unusable(err)
	}
	found, err := snaps.Check(logger)
	if err == nil {
		err = found.VerifyBase(from, last, logger)
	}
	if err != nil {
		return r.unusable(err)
	}
	if r.Term, err = r.files.Term(); err != nil {
		return r.unusable(err)
	}
	f := &raftFSM{machine: fsm.New(), dedup: newDedup()}
	servers, err := r.readSnapshot(snaps, f)
	if err != nil {
		return r.unusable(err)
	}
	if servers, err = r.readLog(f, last, servers); err != nil {
		return r.unusable(err)
	}
	r.state = f.machine.State()
	r.Groups, r.Members, r.Tokens = r.state.GroupCount(), r.state.MemberCount(), r.state.TokenCount()
	return r.setNodes(servers)
}

func (r *Recovery) readSnapshot(snaps raft.SnapshotStore, f *raftFSM) ([]raft.Server, error) {
	list, err := snaps.List()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	meta, content, err := snaps.Open(list[0].ID)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.machine.Restore(content), content.Close()); err != nil {
		return nil, err
	}
	r.LastIndex, r.LastTerm, r.Committed = meta.Index, meta.Term, meta.Index
	return meta.Configuration.Servers, nil
}

// replayed is how many entries are applied at a time.
const replayed = 1024

// readLog applies the entries after the snapshot, and returns the last configuration.
func (r *Recovery) readLog(f *raftFSM, last uint64, servers []raft.Server) ([]raft.Server, error) {
	var batch []fsm.Entry
	logs := r.files.Entries()
	for i := r.LastIndex + 1; i <= last; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return nil, err
		}
		if l.Type == raft.LogConfiguration {
			servers = raft.DecodeConfiguration(l.Data).Servers
		}
		r.LastIndex, r.LastTerm, r.LastWritten = l.Index, l.Term, l.AppendedAt
		if batch = append(batch, entryOf(&l)); len(batch) < replayed && i < last {
			continue
		}
		if _, err := f.apply(batch); err != nil {
			return nil, err
		}
		batch = nil
	}
	return servers, nil
}

func (r *Recovery) setNodes(servers []raft.Server) error {
	voters := 0
	for _, server := range servers {
		voter := server.Suffrage == raft.Voter
		if voter {
			voters++
		}
		r.Nodes = append(r.Nodes, SurvivorNode{string(server.ID), string(server.Address), voter})
	}
	slices.SortFunc(r.Nodes, func(a, b SurvivorNode) int { return cmp.Compare(a.ID, b.ID) })
	self := slices.IndexFunc(r.Nodes, func(n SurvivorNode) bool { return n.ID == r.ID })
	switch {
	case self < 0:
		return fmt.Errorf("%w: node %q is not in the cluster's last configuration that it has; recover another survivor", ErrMembership, r.ID)
	case voters == 1 && r.Nodes[self].Voter && len(r.ident.RecoveredFrom) > 0:
		r.Done = true
	case voters == 1 && r.Nodes[self].Voter:
		return fmt.Errorf("%w, id %s: start it as usual", ErrOnlyVoter, r.ClusterID)
	}
	return nil
}

func (r *Recovery) self() SurvivorNode {
	return r.Nodes[slices.IndexFunc(r.Nodes, func(n SurvivorNode) bool { return n.ID == r.ID })]
}

// Run recovers, or ends an interrupted recovery, and returns the id of the new cluster.
func (r *Recovery) Run() (clusterID string, err error) {
	if !r.Begun && !r.Done {
		if err := r.begin(); err != nil {
			return "", fmt.Errorf("recover %s: %w%s", r.dir, err, raftlog.Advice(err))
		}
	}
	err = endRecovery(r.dir, &r.ident, r.files, r.log, r.step)
	return r.ident.ClusterID, err
}

// begin does steps 1 and 2.
func (r *Recovery) begin() error {
	id, err := r.writeSnapshot()
	if err != nil {
		return err
	}
	r.step("snapshot written")
	next := r.ident
	next.RecoveredFrom = append(slices.Clone(next.RecoveredFrom), next.ClusterID)
	next.ClusterID, next.Recovering = recoveredID(next.ClusterID), id
	next.Founders = []Founder{{ID: r.ID, Bind: r.self().Bind, Addr: r.addr(), Version: r.version(), Incarnation: next.Incarnation}}
	if err := next.save(r.dir); err != nil {
		return err
	}
	r.ident, r.Begun = next, true
	r.step("switched")
	return nil
}

// recoveredID is a new cluster id; nothing of the old one leads to it.
func recoveredID(before string) string {
	sum := sha256.Sum256([]byte(before + "\n" + rand.Text()))
	return hex.EncodeToString(sum[:rafttransport.ClusterIDSize/2])
}

func (r *Recovery) addr() string {
	if n := r.state.Node(r.ID); n != nil {
		return n.Addr
	}
	return r.self().Bind // a node always has one; it tells the cluster a new one when it starts
}

func (r *Recovery) version() string {
	if n := r.state.Node(r.ID); n != nil {
		return n.Version
	}
	return ""
}

// writeSnapshot writes the state beside the snapshots and reads it back.
func (r *Recovery) writeSnapshot() (id string, err error) {
	dir := filepath.Join(r.dir, recoveryDir)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	snaps, err := raftlog.OpenSnapshots(dir, r.log)
	if err != nil {
		return "", err
	}
	index, term := r.LastIndex+recoveryGap, max(r.LastTerm, 1)
	machine := fsm.New()
	machine.Install(r.state)
	machine.Apply([]fsm.Entry{{Index: index, Term: term}}) // moves the index and nothing else
	state := machine.State().WithoutNodes()
	self := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(r.ID), Address: raft.ServerAddress(r.self().Bind)}
	_, encoder := raft.NewInmemTransport(self.Address)
	sink, err := snaps.Create(raft.SnapshotVersionMax, index, term, raft.Configuration{Servers: []raft.Server{self}}, index, encoder)
	if err != nil {
		return "", err
	}
	if err := state.WriteSnapshot(sink); err != nil {
		return "", errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return "", err
	}
	_, content, err := snaps.Open(sink.ID())
	if err != nil {
		return "", err
	}
	back, err := fsm.ReadSnapshot(content)
	if err = errors.Join(err, content.Close()); err != nil {
		return "", err
	}
	if back.Digest() != state.Digest() || back.Index() != index {
		return "", fmt.Errorf("%w: the new snapshot has digest %016x at index %d, want %016x at %d", ErrCorrupt, back.Digest(), back.Index(), state.Digest(), index)
	}
	return sink.ID(), errors.Join(raftlog.SyncDir(dir), raftlog.SyncDir(r.dir))
}

// Close releases the directory.
func (r *Recovery) Close() error { return r.files.Close() }

// endRecovery does what a recovery has left to do after step 2, or removes what one that
// did not come so far has left. It may be interrupted and called again.
func endRecovery(dir string, ident *identity, files *raftlog.Files, logger hclog.Logger, step func(string)) error {
	beside := filepath.Join(dir, recoveryDir)
	if ident.Recovering == "" {
		return os.RemoveAll(beside)
	}
	failed := func(err error) error {
		return fmt.Errorf("%w %s: the recovery cannot be ended: %w%s", ErrDataDir, dir, err, raftlog.Advice(err))
	}
	snaps, err := raftlog.OpenSnapshots(dir, logger)
	if err != nil {
		return failed(err)
	}
	if err := snaps.Replace(beside, ident.Recovering); err != nil { // 3
		return failed(err)
	}
	step("snapshot in place")
	if err := files.Empty(); err != nil { // 4
		return failed(err)
	}
	step("log emptied")
	next := *ident
	next.Recovering = ""
	if err := next.save(dir); err != nil { // 5
		return err
	}
	*ident = next
	step("ended")
	return os.RemoveAll(beside)
}

// joinAnew is what a node has to do that has its data of before a recovery.
const joinAnew = "stop it, and start it with an empty -data-dir and -registries"

// recoveredFrom reports whether this node's cluster had that id before a recovery.
func (s *Store) recoveredFrom(cluster string) bool {
	return cluster != "" && slices.Contains(s.ident.Load().RecoveredFrom, cluster)
}

// superseded returns an [ErrMembership] if a node says that its cluster was recovered
// from this node's, without this node.
func (s *Store) superseded(h Hello, at string) error {
	if own := s.ClusterID(); own == "" || !slices.Contains(h.RecoveredFrom, own) {
		return nil
	}
	return fmt.Errorf("%w: the cluster was recovered without this node: node %q at %s has cluster id %s now, and %s has the data of %s, from before; "+
		"to join, start this node with an empty -data-dir and -registries %s", ErrMembership, h.ID, at, h.ClusterID, s.cfg.DataDir, s.ClusterID(), at)
}

// askRecovered asks the other nodes, once after the start, whether the cluster was
// recovered without this node; then this node fails. Without an answer, announce finds
// out, while there is no leader.
func (s *Store) askRecovered(ctx context.Context, peers []string) {
	if !s.hadState {
		return
	}
	for _, p := range s.addresses(peers) {
		call, cancel := context.WithTimeout(ctx, peerTimeout)
		h, err := s.cfg.Peers.Hello(call, p)
		cancel()
		if err != nil {
			continue
		}
		if err := s.superseded(h, p); err != nil {
			s.fail(err)
			return
		}
	}
}
