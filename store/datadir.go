package store

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/store/raftlog"
)

// identity is the content of node.json: whose data directory this is.
type identity struct {
	ID          string `json:"id"`
	Cluster     string `json:"cluster"`
	Incarnation string `json:"incarnation"`
	// ClusterID tells clusters of one name apart; empty until the node is part
	// of one.
	ClusterID string `json:"cluster_id,omitempty"`
	// Log is where the log is. Empty: in raft.db, as in directories that are
	// older than the choice.
	Log string `json:"log,omitempty"`
	// Founders are the nodes that this one formed the cluster with.
	Founders []Founder `json:"founders,omitempty"`
	// Format of the log and the snapshots; none was written by version 1.
	Format int `json:"format,omitempty"`
	// Sum is the checksum of the rest; none was written by an older version.
	Sum string `json:"sum,omitempty"`
}

// Founder is a node as it was when it formed a cluster with others.
type Founder struct {
	ID          string `json:"id"`
	Bind        string `json:"bind"`
	Addr        string `json:"addr"`
	Version     string `json:"version"`
	Incarnation string `json:"incarnation"`
}

func (i identity) save(dir string) error {
	i.Sum = i.checksum()
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", identityFile, err)
	}
	if err := raftlog.WriteFile(filepath.Join(dir, identityFile), append(data, '\n')); err != nil {
		return fmt.Errorf("%w %s: cannot be written: %w%s", ErrDataDir, dir, err, raftlog.Advice(err))
	}
	return nil
}

// checksum is that of everything but Sum.
func (i identity) checksum() string {
	i.Sum = ""
	data, err := json.Marshal(i)
	if err != nil {
		return "" // a struct of strings: it cannot
	}
	return strconv.FormatUint(xxhash.Sum64(data), 16)
}

// dataFormat is what a data directory is made with, and the only one that is
// read. It goes up when an old log would be applied to another state.
const dataFormat = 2

func (i identity) logKind() string {
	if i.Log == "" {
		return raftlog.Bolt
	}
	return i.Log
}

func (i *identity) setLogKind(kind string) {
	i.Log = kind
	if kind == raftlog.Bolt {
		i.Log = "" // versions without the choice can read it
	}
}

const identityFile = "node.json"

// openDataDir makes the directory, or checks that it is this node's. With a log
// it must be one that keeps its log there. The caller holds the log's file lock
// before it trusts the rest.
func openDataDir(dir, id, cluster, log string) (identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return identity{}, fmt.Errorf("%w %s: cannot be created: %w", ErrDataDir, dir, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return newDataDir(dir, id, cluster, log)
	}
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDataDir, dir, err)
	}
	have, ok := parseIdentity(data)
	if !ok {
		return identity{}, fmt.Errorf("%w %s: %s is damaged; restore it from a backup, or take the node out with: registry cluster remove %s, and start with an empty directory under a new -id", ErrDataDir, dir, identityFile, id)
	}
	if have.Format != dataFormat {
		return identity{}, fmt.Errorf("%w %s: its format is %d and this version reads only %d: the limits of the state have changed, so the nodes would differ; "+
			"start a new cluster on empty directories", ErrDataDir, dir, max(have.Format, 1), dataFormat)
	}
	if have.ID != id {
		return identity{}, fmt.Errorf("%w %s: belongs to node %q, not to %q (-id)", ErrDataDir, dir, have.ID, id)
	}
	if have.Cluster != cluster {
		return identity{}, fmt.Errorf("%w %s: belongs to cluster %q, not to %q (-cluster)", ErrDataDir, dir, have.Cluster, cluster)
	}
	if log != "" && log != have.logKind() {
		return identity{}, fmt.Errorf("%w %s: its log is in %s, not in %s (-log-store); leave the flag out, or move the log with: registry migrate-log -data-dir %s -to %s",
			ErrDataDir, dir, have.logKind(), log, dir, log)
	}
	for _, name := range have.logNames() {
		if _, err := os.Stat(filepath.Join(dir, name)); have.ClusterID != "" && errors.Is(err, fs.ErrNotExist) {
			return identity{}, fmt.Errorf("%w %s: its log %s is gone, and with it what this node promised; "+
				"take the node out with: registry cluster remove %s, and start with an empty directory under a new -id", ErrDataDir, dir, name, id)
		}
	}
	return have, nil
}

// logNames are files without which there is no log.
func (i identity) logNames() []string {
	if i.logKind() == raftlog.WAL {
		return raftlog.Names(raftlog.WAL)
	}
	return raftlog.Names(raftlog.Bolt)
}

func parseIdentity(data []byte) (have identity, ok bool) {
	err := json.Unmarshal(data, &have)
	return have, err == nil && have.Incarnation != "" && (have.Sum == "" || have.Sum == have.checksum()) && raftlog.Valid(have.logKind())
}

// newDataDir claims an empty directory.
func newDataDir(dir, id, cluster, log string) (identity, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDataDir, dir, err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && !strings.HasPrefix(name, identityFile+".tmp") {
			return identity{}, fmt.Errorf("%w %s: holds %q and no %s, so it is not a node's; choose an empty one (-data-dir)", ErrDataDir, dir, name, identityFile)
		}
	}
	ident := identity{ID: id, Cluster: cluster, Incarnation: rand.Text(), Format: dataFormat}
	ident.setLogKind(cmp.Or(log, raftlog.Default))
	return ident, ident.save(dir)
}

// removeUnfinished deletes the snapshots that a crash left half written; raft
// skips them and never removes them.
func removeUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, raftlog.SnapshotDir, "*.tmp"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("%w %s: %w", ErrDataDir, dir, err)
		}
	}
	return nil
}
