package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/peertls"
)

func secretCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "secret",
		Usage:    "make the secret that locks a cluster",
		Category: categorySecurity,
		Description: "Nodes with the same -secret-file and -cluster accept each other on their bind ports,\n" +
			"and nobody else.",
		Subcommands: []*cli.Command{secretNewCommand(e)},
	}
}

func secretNewCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "new",
		Usage: "print a new secret, or write it to a file",
		Description: "To replace the secret of a running cluster, let the file of every node have both, one\n" +
			"per line, in three steps: old and new; new and old; new. Begin a step when all nodes\n" +
			"have taken the one before. Nodes read the file when it changes.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagOut, Usage: "write it to this new file, with mode 0600"},
			&cli.BoolFlag{Name: "keep", Usage: "with -out: succeed without a change if the file exists"},
		},
		Action: func(c *cli.Context) error { return secretNew(e, c) },
	}
}

func secretNew(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	line, path := peertls.NewSecret()+"\n", c.String(flagOut)
	if path == "" {
		if c.Bool("keep") {
			return usageErrorf("-keep needs -%s", flagOut)
		}
		_, err := fmt.Fprint(e.stdout, line)
		return err
	}
	err := certs.WriteNew(path, []byte(line), 0o600)
	switch {
	case errors.Is(err, fs.ErrExist) && c.Bool("keep"):
		_, err = fmt.Fprintf(e.stdout, "%s exists and was kept\n", path)
	case errors.Is(err, fs.ErrExist):
		failed := &exitError{code: exitFailure, err: err}
		return failed.withHint("nothing was replaced: choose another name, or -keep the file")
	case err == nil:
		_, err = fmt.Fprintf(e.stdout, "wrote %s\n", path)
	}
	return err
}
