package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/raftlog"
)

// A new cluster from a snapshot file is one node whose first raft snapshot is the file's
// state. Other nodes join it. Its id is new, so nodes of the old cluster, which have
// its votes and another log, are refused everywhere, and it never runs without the
// tokens of the file.
//
// node.json orders the steps: (1) the file is named there, (2) raft's snapshot and term
// are written, (3) the cluster's id is. A directory that a crash left between 1 and 3 is
// refused without -restore, and started over with it.

// restoring reports whether the steps have begun and not ended.
func (i identity) restoring() bool { return i.RestoredFrom != "" && i.ClusterID == "" }

// fileName names a file by what it has.
func fileName(h *fsmpb.BackupHeader) string {
	return fmt.Sprintf("%s/%d/%016x", h.ClusterId, h.Index, h.Digest)
}

// prepareRestore checks the directory before raft's files are opened, and removes what
// an unfinished restoration left.
func (s *Store) prepareRestore() error {
	ident := s.ident.Load()
	switch {
	case ident.restoring() && s.cfg.Restore == "":
		return fmt.Errorf("%w %s: the restoration of a snapshot into it has not ended; start with -restore again, or with an empty directory", ErrDataDir, s.cfg.DataDir)
	case ident.restoring():
		return os.RemoveAll(filepath.Join(s.cfg.DataDir, raftlog.SnapshotDir))
	case s.cfg.Restore != "" && ident.ClusterID != "":
		return s.restoredBefore(ident)
	}
	return nil
}

// restoredBefore lets a node that has the file's state start again with the same flags,
// as containers do, also when the file is gone.
func (s *Store) restoredBefore(ident *identity) error {
	h, err := readHeader(s.cfg.Restore)
	if ident.RestoredFrom != "" && (errors.Is(err, fs.ErrNotExist) || err == nil && fileName(h) == ident.RestoredFrom) {
		s.log.Info("the snapshot was restored before; -restore has no effect", "file", s.cfg.Restore)
		return nil
	}
	if err != nil {
		return fmt.Errorf("-restore %s: %w", s.cfg.Restore, err)
	}
	return fmt.Errorf("%w %s: it has the state of cluster id %s; -restore forms a new cluster and needs an empty directory", ErrDataDir, s.cfg.DataDir, ident.ClusterID)
}

func readHeader(path string) (*fsmpb.BackupHeader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h, err := backup.ReadHeader(f)
	return h, errors.Join(err, f.Close())
}

// restoreFile makes the file's state this node's, which forms a cluster alone.
func (s *Store) restoreFile(snaps raft.SnapshotStore, stable raft.StableStore) error {
	if s.cfg.Restore == "" || s.ClusterID() != "" {
		return nil
	}
	f, err := os.Open(s.cfg.Restore)
	if err != nil {
		return fmt.Errorf("-restore: %w", err)
	}
	file, err := backup.Read(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("-restore %s: %w", s.cfg.Restore, err)
	}
	if err := s.saveRestoring(file.Header); err != nil { // 1
		return err
	}
	term := max(file.State.Term(), 1)
	if err := s.writeRestored(snaps, file, term); err != nil { // 2
		return fmt.Errorf("-restore %s: %w", s.cfg.Restore, err)
	}
	if err := stable.SetUint64([]byte(raftlog.KeyCurrentTerm), term); err != nil {
		return fmt.Errorf("-restore %s: %w", s.cfg.Restore, err)
	}
	founder := Founder{ID: s.cfg.ID, Bind: s.cfg.BindAdvertise, Addr: s.cfg.Addr, Version: s.cfg.Version, Incarnation: s.incarnation}
	if err := s.setCluster(clusterID([]Founder{founder}), []Founder{founder}, nil, s.cfg.FeatureLevel); err != nil { // 3
		return err
	}
	s.log.Warn("new cluster from a snapshot", "file", s.cfg.Restore, "cluster_id", s.ClusterID(),
		"from_cluster_id", file.Header.ClusterId, "index", file.Header.Index, "members", file.Header.Members)
	return nil
}

func (s *Store) saveRestoring(h *fsmpb.BackupHeader) error {
	s.identMu.Lock()
	defer s.identMu.Unlock()
	next := *s.ident.Load()
	next.RestoredFrom = fileName(h)
	if err := next.save(s.cfg.DataDir); err != nil {
		return err
	}
	s.ident.Store(&next)
	return nil
}

// writeRestored writes raft's snapshot, with this node as the only voter.
func (s *Store) writeRestored(snaps raft.SnapshotStore, file *backup.File, term uint64) error {
	self := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(s.cfg.ID), Address: raft.ServerAddress(s.cfg.BindAdvertise)}
	index := file.State.Index()
	sink, err := snaps.Create(raft.SnapshotVersionMax, index, term, raft.Configuration{Servers: []raft.Server{self}}, index, s.transport)
	if err != nil {
		return err
	}
	if err := file.State.WithoutNodes().WithLevel(s.cfg.FeatureLevel).WriteSnapshot(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
