package store

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/raftlog"
)

// identity is the content of node.json, which names the owner of the data directory.
type identity struct {
	ID          string `json:"id"`
	Cluster     string `json:"cluster"`
	Incarnation string `json:"incarnation"`
	// ClusterID distinguishes clusters of one name; empty until the node belongs to one.
	ClusterID string `json:"cluster_id,omitempty"`
	// Log is the kind of log. Empty: in raft.db, as in directories from before there
	// was a choice.
	Log string `json:"log,omitempty"`
	// Founders are the nodes that this one formed the cluster with.
	Founders []Founder `json:"founders,omitempty"`
	// RestoredFrom names the snapshot file that the directory began with; see
	// restorefile.go.
	RestoredFrom string `json:"restored_from,omitempty"`
	// RecoveredFrom are the ids that the cluster had before it was recovered, and Recovering
	// is the snapshot of a recovery that is still to be put in place; see recover.go.
	RecoveredFrom []string `json:"recovered_from,omitempty"`
	Recovering    string   `json:"recovering,omitempty"`
	// Format of the log and the snapshots, see level; version 1 wrote none.
	Format int `json:"format,omitempty"`
	// Sum is the checksum of the rest; older versions wrote none.
	Sum string `json:"sum,omitempty"`
}

// Founder is a node that formed the cluster, as it was then.
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

// checksum covers everything but Sum.
func (i identity) checksum() string {
	i.Sum = ""
	data, err := json.Marshal(i)
	if err != nil {
		return "" // cannot happen: a struct of strings
	}
	return strconv.FormatUint(xxhash.Sum64(data), 16)
}

func (i identity) logKind() string {
	if i.Log == "" {
		return raftlog.Bolt
	}
	return i.Log
}

func (i *identity) setLogKind(kind string) {
	i.Log = kind
	if kind == raftlog.Bolt {
		i.Log = "" // so that older versions can read it
	}
}

const identityFile = "node.json"

// openDataDir creates the directory, or checks that it belongs to this node and, if
// log is set, that it has that kind of log. The result is final only once the caller
// holds the lock of the directory.
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
		return identity{}, fmt.Errorf("%w %s: %s is damaged; restore it from a backup, or remove the node with: registry cluster remove %s, and start it with an empty directory", ErrDataDir, dir, identityFile, id)
	}
	if err := checkFormat(dir, have, fsm.NewestLevel); err != nil {
		return identity{}, err
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
			return identity{}, fmt.Errorf("%w %s: its log %s is missing, and with it the node's votes and acknowledged entries; "+
				"remove the node with: registry cluster remove %s, and start it with an empty directory", ErrDataDir, dir, name, id)
		}
	}
	return have, nil
}

// logNames are the files that a log must have.
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

// storedIdentity reads the node.json of a node that is not running, and checks that there
// is a log.
func storedIdentity(dir string) (identity, error) {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: not a node's: %w", ErrDataDir, dir, err)
	}
	ident, ok := parseIdentity(data)
	if !ok {
		return identity{}, fmt.Errorf("%w %s: %s is damaged", ErrDataDir, dir, identityFile)
	}
	for _, name := range ident.logNames() {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return identity{}, fmt.Errorf("%w %s: no log: %w", ErrDataDir, dir, err)
		}
	}
	return ident, nil
}

// newDataDir claims an empty directory.
func newDataDir(dir, id, cluster, log string) (identity, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDataDir, dir, err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && !strings.HasPrefix(name, identityFile+".tmp") {
			return identity{}, fmt.Errorf("%w %s: has %q and no %s, so it is not a node's; choose an empty one (-data-dir)", ErrDataDir, dir, name, identityFile)
		}
	}
	_, _ = raftlog.MakePrivate(dir) // nothing of the node was open to others; see makeDirPrivate
	ident := identity{ID: id, Cluster: cluster, Incarnation: rand.Text(), Format: formatOf(1)}
	ident.setLogKind(cmp.Or(log, raftlog.Default))
	return ident, ident.save(dir)
}

// makeDirPrivate keeps other users out of what an earlier version, or a copy of the
// directory, left open to them. New files are private.
func makeDirPrivate(dir string, log *slog.Logger) {
	changed, err := raftlog.MakePrivate(dir)
	if len(changed) > 0 {
		log.Warn("other users had permissions in the data directory; they were removed", "dir", dir, "paths", len(changed), "first", changed[0])
	}
	if err != nil {
		log.Warn("other users may have permissions in the data directory; they could not be removed", "dir", dir, "error", err)
	}
}

// removeUnfinished deletes unfinished snapshots of a crash; raft skips them and never
// removes them.
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
	if err := raftlog.RemoveUnfinishedDB(dir); err != nil {
		return fmt.Errorf("%w %s: %w", ErrDataDir, dir, err)
	}
	return nil
}
