package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/store"
)

func compactCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "compact",
		Usage:     "shrink raft.db of a stopped node",
		ArgsUsage: "-data-dir DIR",
		Category:  categoryNode,
		Description: "raft.db keeps the size that it once had. A copy without the free space is read back\n" +
			"and replaces it; an interrupted compaction leaves the old file or the new one. It\n" +
			"needs room for the copy. A log in segments needs none. Run it as the node's user.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagDataDir, Usage: "the node's -data-dir (required)", EnvVars: []string{"REGISTRY_DATA_DIR"}},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error { return compact(e, c) },
	}
}

func compact(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	if err := require(c, flagDataDir); err != nil {
		return err
	}
	dir := c.String(flagDataDir)
	before, after, err := store.CompactLog(dir)
	if errors.Is(err, store.ErrInUse) {
		return (&exitError{code: exitFailure, err: err}).withHint("stop the node first; the rest of its cluster goes on without it")
	}
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, compactionJSON{dir, before, after})
	}
	if before == after {
		_, err = fmt.Fprintf(e.stdout, "raft.db in %s stays as it is, %s: there is too little to gain\n", dir, bytesText(before))
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "compacted raft.db in %s from %s to %s\n", dir, bytesText(before), bytesText(after))
	return err
}

// compactionJSON has sizes of raft.db.
type compactionJSON struct {
	DataDir     string `json:"data_dir"`
	BytesBefore int64  `json:"bytes_before"`
	BytesAfter  int64  `json:"bytes_after"`
}
