package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/store"
)

func recoverCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "recover",
		Usage:     "make one survivor of a lost quorum a cluster of its own",
		ArgsUsage: "-data-dir DIR",
		Category:  categoryNode,
		Description: "For the time after most of the voters were lost for good. It says what the stopped\n" +
			"node has and what is lost, " + confirmRule + " The new\n" +
			"cluster has an id of its own: nodes with data of before are refused, the others join\n" +
			"it with empty directories, and clients have to be restarted. An interrupted recovery\n" +
			"leaves the directory as it was, or is ended by the next start or the next recovery.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagDataDir, Usage: "the node's -data-dir (required)", EnvVars: []string{"REGISTRY_DATA_DIR"}},
			yesFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error { return recoverNode(e, c) },
	}
}

func recoverNode(e *env, c *cli.Context) (err error) {
	if _, err := positional(c); err != nil {
		return err
	}
	if err := require(c, flagDataDir); err != nil {
		return err
	}
	dir := c.String(flagDataDir)
	r, err := store.OpenRecovery(dir, slog.New(newTextHandler(e.stderr, slog.LevelWarn)))
	switch {
	case errors.Is(err, store.ErrInUse):
		return (&exitError{code: exitFailure, err: err}).withHint("stop the node first")
	case errors.Is(err, store.ErrOnlyVoter):
		return &exitError{code: exitConflict, err: err}
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	done := "recovered"
	switch {
	case r.Begun:
		done = "ended the interrupted recovery of"
	case r.Done:
		done = "was recovered before:"
	default:
		if err := confirmRecovery(e, c, r.Survivor, dir); err != nil {
			return err
		}
	}
	id, err := r.Run()
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, recoveryOf(r.Survivor, dir, id))
	}
	_, err = fmt.Fprintf(e.stdout, "%s %s: node %s is the only voter of cluster id %s; start it, and the others with empty directories\n", done, dir, r.ID, id)
	return err
}

// confirmRecovery says what would be kept and lost, and asks.
func confirmRecovery(e *env, c *cli.Context, s store.Survivor, dir string) error {
	if c.Bool(flagJSON) {
		if c.Bool("yes") {
			return nil
		}
		if err := writeJSON(e.stdout, recoveryOf(s, dir, "")); err != nil {
			return err
		}
	} else if err := printSurvivor(e.stdout, s); err != nil {
		return err
	}
	return confirm(e, c, recoverEffect(s))
}

func recoverEffect(s store.Survivor) string {
	var lost []string
	for _, n := range s.Nodes {
		if n.ID != s.ID {
			lost = append(lost, printable(n.ID))
		}
	}
	effect := "node " + printable(s.ID) + " would be a new cluster of one voter"
	if len(lost) > 0 {
		effect += fmt.Sprintf(", and %s given up for good, with what only %s acknowledged", strings.Join(lost, ", "), plural(len(lost), "it has", "they have"))
	}
	return effect
}

func printSurvivor(w io.Writer, s store.Survivor) error {
	fmt.Fprintf(w, "cluster %s  id %s  node %s  term %d\n", printable(s.Cluster), s.ClusterID, printable(s.ID), s.Term)
	written := ""
	if !s.LastWritten.IsZero() {
		written = ", written at " + s.LastWritten.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "last log entry: index %d of term %d%s\n", s.LastIndex, s.LastTerm, written)
	fmt.Fprintf(w, "kept: %s\n", keptText(s))
	fmt.Fprintf(w, "      %s, %s, %s\n", count(s.Groups, "group", "groups"), count(s.Members, "member", "members"), count(s.Tokens, "token", "tokens"))
	fmt.Fprintf(w, "lost: acknowledged entries that only the lost nodes have; this node has none of them, and does not know how many\n")
	t := newTable(w)
	t.blank()
	t.row("NODE", "BIND", "VOTER", "AFTER THE RECOVERY")
	for _, n := range s.Nodes {
		after := "given up"
		if n.ID == s.ID {
			after = "the only voter"
		}
		t.row(n.ID, n.Bind, n.Voter, after)
	}
	t.blank()
	return t.flush()
}

// keptText says which entries are kept, and what is known of them.
func keptText(s store.Survivor) string {
	switch {
	case s.Committed == s.LastIndex:
		return fmt.Sprintf("entries up to %d, known to be committed", s.Committed)
	case s.Committed == 0:
		return fmt.Sprintf("entries up to %d; of none it is known whether it was committed: some may not have been acknowledged", s.LastIndex)
	}
	return fmt.Sprintf("entries up to %d, known to be committed, and %d to %d, of which that is not known: some may not have been acknowledged",
		s.Committed, s.Committed+1, s.LastIndex)
}

// recoveryJSON has a NewClusterID when the recovery was done. When it ended an
// interrupted one, it has that and the identifiers alone.
type recoveryJSON struct {
	DataDir      string             `json:"data_dir"`
	Recovered    bool               `json:"recovered"`
	NewClusterID string             `json:"new_cluster_id,omitempty"`
	Cluster      string             `json:"cluster"`
	ClusterID    string             `json:"cluster_id"`
	Node         string             `json:"node"`
	Term         uint64             `json:"term"`
	LastIndex    uint64             `json:"last_index"`
	LastTerm     uint64             `json:"last_term"`
	LastWritten  *time.Time         `json:"last_written,omitempty"`
	Committed    uint64             `json:"committed_index"`
	Groups       int                `json:"groups"`
	Members      int                `json:"members"`
	Tokens       int                `json:"tokens"`
	Nodes        []recoveryNodeJSON `json:"nodes"`
}

type recoveryNodeJSON struct {
	ID      string `json:"id"`
	Bind    string `json:"bind"`
	Voter   bool   `json:"voter"`
	GivenUp bool   `json:"given_up"`
}

func recoveryOf(s store.Survivor, dir, newID string) recoveryJSON {
	out := recoveryJSON{
		DataDir: dir, Recovered: newID != "", NewClusterID: newID, Cluster: s.Cluster, ClusterID: s.ClusterID, Node: s.ID,
		Term: s.Term, LastIndex: s.LastIndex, LastTerm: s.LastTerm, Committed: s.Committed,
		Groups: s.Groups, Members: s.Members, Tokens: s.Tokens, Nodes: []recoveryNodeJSON{},
	}
	if !s.LastWritten.IsZero() {
		at := s.LastWritten.UTC()
		out.LastWritten = &at
	}
	for _, n := range s.Nodes {
		out.Nodes = append(out.Nodes, recoveryNodeJSON{n.ID, n.Bind, n.Voter, n.ID != s.ID})
	}
	return out
}
