package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/raftlog"
)

func snapshotCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "snapshot",
		Usage:    "back up the cluster's state, and restore it",
		Category: categoryCluster,
		Subcommands: []*cli.Command{
			snapshotSaveCommand(e), snapshotInspectCommand(e), snapshotRestoreCommand(e),
		},
	}
}

func snapshotSaveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write the state of the running cluster to a file",
		ArgsUsage: "FILE",
		Description: "Any node writes it, and nobody waits meanwhile. The file has every write that was\n" +
			"acknowledged before, is read back before it gets its name, and is as secret as the\n" +
			"cluster: it has the hashes of tokens. Gives up when nothing comes for -timeout.",
		Flags: clientFlags(&cli.BoolFlag{Name: "local", Usage: "save what the node has, also without a leader"}, jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "FILE")
			if err != nil {
				return err
			}
			if err := regular(args[0]); err != nil {
				return err
			}
			l, err := dialLink(c)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.askLong(c, func(ctx context.Context) error { return snapshotSave(ctx, e, c, l.Client, args[0]) })
		},
	}
}

// regular refuses names of what would be replaced and is no file.
func regular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return usageErrorf("%s is not a file", path)
	}
	return nil
}

func snapshotSave(ctx context.Context, e *env, c *cli.Context, client *sdk.Client, path string) error {
	var opts []sdk.ReadOption
	if c.Bool("local") {
		opts = append(opts, sdk.AtLeast(0))
	}
	var file *backup.File
	err := raftlog.ReplaceFile(path, func(f *os.File) error {
		p := newTransfer(e.stderr, "saved", 0)
		defer p.done()
		if _, err := client.SaveSnapshot(ctx, io.MultiWriter(f, p), opts...); err != nil {
			return err
		}
		_, err := f.Seek(0, io.SeekStart)
		if err == nil {
			file, err = backup.Read(f)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, snapshotOf(file, 0))
	}
	h := file.Header
	_, err = fmt.Fprintf(e.stderr, "saved the state of cluster %s at index %d: %s\n", h.Cluster, h.Index, contents(file))
	return err
}

// contents says what is in a file.
func contents(f *backup.File) string {
	h := f.Header
	return fmt.Sprintf("%s, %s, %s, %s", count(int(h.Groups), "group", "groups"), count(int(h.Members), "member", "members"),
		count(int(h.Tokens), "token", "tokens"), bytesText(f.Size))
}

func bytesText(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// openSnapshot reads and checks a file.
func openSnapshot(path string) (*os.File, *backup.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	file, err := backup.Read(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, file, nil
}

// transfer says on a terminal how far a transfer is.
type transfer struct {
	w        io.Writer // nil: nobody looks
	verb     string
	now, all int64 // 0: it is not known
	said     time.Time
}

func newTransfer(w io.Writer, verb string, all int64) *transfer {
	p := &transfer{verb: verb, all: all}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

func (p *transfer) Write(b []byte) (int, error) {
	p.now += int64(len(b))
	if p.w == nil || time.Since(p.said) < 100*time.Millisecond {
		return len(b), nil
	}
	p.said = time.Now()
	if p.all > 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s of %s", p.verb, bytesText(p.now), bytesText(p.all))
	} else {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s", p.verb, bytesText(p.now))
	}
	return len(b), nil
}

// done clears the line.
func (p *transfer) done() {
	if p.w != nil && !p.said.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
