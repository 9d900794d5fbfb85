//go:build linux

package main

import "regexp"

// dataLost is what a violation says of a node that refuses its data, or clients
// of acknowledged writes.
var dataLost = regexp.MustCompile("ended with exit code|^ledger|^session|no order explains")

// syncs are the calls of fsync that something depends on, left out one at a time.
// Some are in raft, in raft-wal or in bbolt.
var syncs = []Mutant{
	{
		Name: "sync-segment", Off: "entries in segments are synced before they are acknowledged", Forgets: "wal/*.wal",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-segment-dir", Off: "the directory of the segments is synced", Forgets: "wal",
		Kinds: []string{"power-cut-all"}, Runs: 8, Says: dataLost,
	},
	{
		Name: "sync-found-segment", Off: "the directory of the segments is synced at the start",
		Edits: []Edit{{"store/raftlog/wal.go", "SyncDir(filepath.Dir(dir)), SyncDir(dir))", "SyncDir(filepath.Dir(dir)))"}},
		Kinds: []string{"power-cut-joined"}, Runs: 16, Says: dataLost,
	},
	{
		Name: "sync-segment-list", Off: "the list of segments is synced before it replaces the old one", Forgets: "wal/segments.json.tmp*",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-bolt", Off: "raft.db is synced", Forgets: "raft.db",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-identity", Off: "node.json is synced before it replaces the old one", Forgets: "node.json.tmp*",
		Kinds: []string{"power-cut-leader"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-data-dir", Off: "the data directory is synced", Forgets: ".",
		Kinds: []string{"power-cut-leader"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-snapshot-state", Off: "the state of a snapshot is synced", Forgets: "snapshots/*/state.bin",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-snapshot-meta", Off: "raft's notes of a snapshot are synced", Forgets: "snapshots/*/meta.json",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-snapshot-dir", Off: "the directory of a snapshot is synced", Forgets: "snapshots/*",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-snapshots-dir", Off: "the directory of the snapshots is synced", Forgets: "snapshots",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-snapshot-sum", Off: "the checksum of a snapshot's meta.json is synced", Forgets: "snapshots/*/meta.sum.tmp*",
		Kinds: []string{"power-cut-all"}, Runs: 4, Says: dataLost,
	},
	{
		Name: "sync-tail", Off: "raft.tail is synced before the log's end is removed",
		Edits: []Edit{{"store/raftlog/tail.go", "if synced {", "if false {"}},
		Tests: []Test{{"store/raftlog", "TestTailIsSyncedBeforeTheLogsEndIsRemoved"}},
		Note:  "Closed window: the power has to be cut between that and the next entry. Tried: power-cut-all, 4 runs.",
	},
}
