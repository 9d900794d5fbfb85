package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/sdk"
)

func snapshotRestoreCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "replace the state of the running cluster by that of a file",
		ArgsUsage: "FILE",
		Description: "Replaces groups, members and tokens; nodes stay. What was written since is lost, but\n" +
			"services that run register again. A damaged file changes nothing. For a new cluster\n" +
			"start its first node with: registry serve -restore FILE. Says what would change, " + confirmRule,
		Flags: clientFlags(yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "FILE")
			if err != nil {
				return err
			}
			f, file, err := openSnapshot(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // only read from
			l, err := dialLink(c)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := confirmRestore(e, c, l, file); err != nil {
				return err
			}
			return l.askLong(c, func(ctx context.Context) error { return snapshotRestore(ctx, e, c, l.Client, f, file) })
		},
	}
}

func snapshotRestore(ctx context.Context, e *env, c *cli.Context, client *sdk.Client, f io.ReadSeeker, file *backup.File) error {
	p := newTransfer(e.stderr, "sent", file.Size)
	defer p.done()
	restored, err := client.RestoreSnapshot(ctx, &watchedFile{ReadSeeker: f, progress: p})
	if err != nil {
		return err
	}
	p.done()
	leases := "every process has to register again"
	if restored.LeasesKept {
		leases = "processes that run keep their registrations"
	}
	return printDone(e, c, restoredJSON{restored.Index, restored.Groups, restored.Members, restored.Tokens, restored.LeasesKept},
		"restored %s as index %d; %s", contents(file), restored.Index, leases)
}

type restoredJSON struct {
	Index      uint64 `json:"index"`
	Groups     int    `json:"groups"`
	Members    int    `json:"members"`
	Tokens     int    `json:"tokens"`
	LeasesKept bool   `json:"leases_kept"`
}

// watchedFile tells the progress what is read.
type watchedFile struct {
	io.ReadSeeker
	progress *transfer
}

func (w *watchedFile) Read(b []byte) (int, error) {
	n, err := w.ReadSeeker.Read(b)
	_, _ = w.progress.Write(b[:n]) // it has no errors
	return n, err
}

func (w *watchedFile) Seek(offset int64, whence int) (int64, error) {
	w.progress.now = 0
	return w.ReadSeeker.Seek(offset, whence)
}

// confirmRestore says what would be replaced by what.
func confirmRestore(e *env, c *cli.Context, l *link, file *backup.File) error {
	if c.Bool("yes") {
		return nil
	}
	effect := ""
	err := l.ask(c, func(ctx context.Context) error {
		status, err := l.Status(ctx, "")
		if err != nil {
			return err
		}
		var at sdk.Receipt
		groups, err := l.Groups(ctx, sdk.Linearizable(), sdk.WithReceipt(&at))
		if err != nil {
			return err
		}
		tokens, err := l.Tokens(ctx)
		effect = restoreEffect(status, at.Index, groups, tokens, file)
		return err
	})
	if err != nil {
		return err
	}
	return confirm(e, c, effect)
}

func restoreEffect(status sdk.Status, index uint64, groups []sdk.Group, tokens []sdk.Token, file *backup.File) string {
	members := 0
	for _, g := range groups {
		members += g.Members
	}
	h := file.Header
	text := fmt.Sprintf("the state of cluster %s at index %d (%s, %s, %s) would be replaced by that of index %d, saved at %s (%s)",
		status.Cluster, index, count(len(groups), "group", "groups"), count(members, "member", "members"), count(len(tokens), "token", "tokens"),
		h.Index, time.UnixMilli(h.TimeMs).UTC().Format(time.RFC3339), contents(file))
	if h.ClusterId != status.ClusterID {
		text += "; the file is of another cluster, so every process has to register again"
	}
	back, gone := tokenChanges(tokens, file)
	if len(back) > 0 {
		text += "; tokens that would be valid again: " + strings.Join(back, ", ")
	}
	if len(gone) > 0 {
		text += "; tokens that would end: " + strings.Join(gone, ", ")
	}
	return text
}

// tokenChanges are the names of tokens that a restoration brings back, and ends.
func tokenChanges(now []sdk.Token, file *backup.File) (back, gone []string) {
	saved := snapshotOf(file, 0).Tokens
	for _, t := range saved {
		if !slices.ContainsFunc(now, func(have sdk.Token) bool { return have.ID == t.ID }) {
			back = append(back, t.Name)
		}
	}
	for _, have := range now {
		if !slices.ContainsFunc(saved, func(t snapshotTokenJSON) bool { return t.ID == have.ID }) {
			gone = append(gone, have.Name)
		}
	}
	return back, gone
}
