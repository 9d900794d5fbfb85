package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
)

func migrateLogCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "migrate-log",
		Usage:     "move the log of a stopped node: into segments, or into raft.db",
		ArgsUsage: "-data-dir DIR -to LOG",
		Category:  categoryNode,
		Description: "Term and vote stay in raft.db. The copy is read back before it counts, and an\n" +
			"interrupted move leaves the old log or the new one, whole: start the node, or run\n" +
			"the command again. It needs room for a second log. Run it as the node's user.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagDataDir, Usage: "the node's -data-dir (required)", EnvVars: []string{"REGISTRY_DATA_DIR"}},
			&cli.StringFlag{Name: "to", Usage: "wal or boltdb (required)"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error { return migrateLog(e, c) },
	}
}

func migrateLog(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	if err := require(c, flagDataDir, "to"); err != nil {
		return err
	}
	dir, to := c.String(flagDataDir), c.String("to")
	if !raftlog.Valid(to) {
		return usageErrorf("-to is %q, want %s or %s", to, raftlog.WAL, raftlog.Bolt)
	}
	move, err := store.MigrateLog(dir, to, slog.New(newTextHandler(e.stderr, slog.LevelWarn)))
	if errors.Is(err, store.ErrInUse) {
		failed := &exitError{code: exitFailure, err: err}
		return failed.withHint("stop the node first; the rest of its cluster goes on without it")
	}
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, migrateJSON{dir, move.From, move.To, move.From != move.To, move.First, move.Last})
	}
	switch {
	case move.From == move.To:
		_, err = fmt.Fprintf(e.stdout, "the log in %s is in %s already\n", dir, to)
	case move.Last == 0:
		_, err = fmt.Fprintf(e.stdout, "moved the empty log in %s from %s to %s\n", dir, move.From, move.To)
	default:
		_, err = fmt.Fprintf(e.stdout, "moved entries %d to %d of the log in %s from %s to %s\n", move.First, move.Last, dir, move.From, move.To)
	}
	return err
}

// migrateJSON says what became of a log, whose first and last entry are 0 if it
// is empty.
type migrateJSON struct {
	DataDir string `json:"data_dir"`
	From    string `json:"from"`
	To      string `json:"to"`
	Moved   bool   `json:"moved"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
}
