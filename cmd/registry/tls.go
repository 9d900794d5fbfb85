package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/certs"
)

const (
	flagDir    = "dir"
	flagServer = "server"
	flagClient = "client"
	flagNode   = "node"
	flagHost   = "host"
	flagOut    = "out"
	flagDays   = "days"
	flagKeep   = "keep"
)

// The authority's files in -dir.
const (
	caCert = "ca.crt"
	caKey  = "ca.key"
)

const (
	maxDays  = 36500
	maxCAKey = 1 << 20 // bytes
)

func tlsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "tls",
		Usage:       "make certificates for nodes and clients",
		Category:    categorySecurity,
		Description: "A certificate authority in a directory, and certificates that it signs. No cluster\nis asked. Existing certificates of your own work as well.",
		Subcommands: []*cli.Command{tlsInitCommand(e), tlsIssueCommand(e)},
	}
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: flagDir, Usage: "directory of the authority (required)"}
}

func keepFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagKeep, Usage: "succeed without a change if the files exist"}
}

func daysFlag(lifetime time.Duration) cli.Flag {
	return &cli.IntFlag{Name: flagDays, Usage: "how long the certificate is valid", Value: int(lifetime.Hours() / 24)}
}

func tlsInitCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "init",
		Usage:       "make a certificate authority: ca.crt, which clients get, and ca.key, which nobody gets",
		ArgsUsage:   "-dir DIR",
		Description: "The authority is valid for ten years. Files that exist are not replaced.",
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "name", Usage: "the authority's name in its certificates", Value: "registry CA"},
			daysFlag(certs.DefaultAuthorityLifetime),
			keepFlag(),
		},
		Action: func(c *cli.Context) error { return tlsInit(e, c) },
	}
}

func tlsIssueCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "issue",
		Usage:     "make a certificate for a node's client port, a client, or a node's bind port",
		ArgsUsage: "-dir DIR (-server -host HOST | -client NAME | -node ID)",
		Description: "A server's certificate must name every host by which clients reach the node: of\n" +
			"-advertise, above all. A certificate is valid for one year, and no longer than its\n" +
			"authority. Nodes and clients read new files without a restart.",
		Flags: []cli.Flag{
			dirFlag(),
			&cli.BoolFlag{Name: flagServer, Usage: "for -cert of nodes"},
			&cli.StringSliceFlag{Name: flagHost, Usage: "name or IP address of a node, comma separated (with -server)"},
			&cli.StringFlag{Name: flagClient, Usage: "for a client of that name, where nodes ask for one (-client-ca)"},
			&cli.StringFlag{Name: flagNode, Usage: "for -peer-cert of the node of that id"},
			&cli.StringFlag{Name: flagCluster, Usage: "name of the node's cluster (with -node)", Value: "registry"},
			&cli.StringFlag{Name: flagOut, Usage: "write NAME.crt and NAME.key (default: the first host, the client or the node)"},
			daysFlag(certs.DefaultLifetime),
			keepFlag(),
		},
		Action: func(c *cli.Context) error { return tlsIssue(e, c) },
	}
}

func tlsInit(e *env, c *cli.Context) error {
	lifetime, err := tlsArgs(c)
	if err != nil {
		return err
	}
	pair, err := certs.NewAuthority(c.String("name"), lifetime)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.String(flagDir), 0o700); err != nil {
		return err
	}
	return writePair(e, c, "ca", pair)
}

func tlsIssue(e *env, c *cli.Context) error {
	lifetime, err := tlsArgs(c)
	if err != nil {
		return err
	}
	req, name, err := issueRequest(c)
	if err != nil {
		return err
	}
	req.Lifetime = lifetime
	if out := c.String(flagOut); out != "" {
		name = out
	}
	if name != filepath.Base(name) || name == "." || name == ".." {
		return usageErrorf("%q is not the name of a file: set -%s", name, flagOut)
	}
	authority, err := readAuthority(c.String(flagDir))
	if err != nil {
		return err
	}
	pair, err := authority.Issue(req)
	if err != nil {
		return err
	}
	return writePair(e, c, name, pair)
}

// tlsArgs checks what both commands have, and returns the lifetime.
func tlsArgs(c *cli.Context) (time.Duration, error) {
	if _, err := positional(c); err != nil {
		return 0, err
	}
	if err := require(c, flagDir); err != nil {
		return 0, err
	}
	days := c.Int(flagDays)
	if days < 1 || days > maxDays {
		return 0, usageErrorf("-%s is %d, want 1 to %d", flagDays, days, maxDays)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

// issueRequest is what the flags ask for, and the name of its files.
func issueRequest(c *cli.Context) (r certs.Request, name string, err error) {
	server, client, node, hosts := c.Bool(flagServer), c.String(flagClient), c.String(flagNode), list(c, flagHost)
	for _, h := range hosts {
		if _, _, err := net.SplitHostPort(h); err == nil {
			return r, "", usageErrorf("-%s %q has a port, want a name or an IP address", flagHost, h)
		}
	}
	switch {
	case server && client == "" && node == "":
		if len(hosts) == 0 {
			return r, "", usageErrorf("-%s needs -%s: the hosts by which clients reach the node", flagServer, flagHost)
		}
		return certs.Request{Name: hosts[0], Hosts: hosts, Server: true}, hosts[0], nil
	case len(hosts) > 0:
		return r, "", usageErrorf("-%s is for -%s alone", flagHost, flagServer)
	case client != "" && !server && node == "":
		return certs.Request{Name: client, Client: true}, client, namesUsage(fsm.ValidateName("-"+flagClient, client))
	case node != "" && !server && client == "":
		err := errors.Join(fsm.ValidateName("-"+flagNode, node), fsm.ValidateName("-"+flagCluster, c.String(flagCluster)))
		return certs.Request{Name: node, URI: certs.NodeURI(c.String(flagCluster), node)}, node, namesUsage(err)
	}
	return r, "", usageErrorf("want one of -%s, -%s and -%s", flagServer, flagClient, flagNode).withHint("%s", usageLine(c.Command))
}

// namesUsage makes a usage error of names that are outside their limits.
func namesUsage(err error) error {
	if err == nil {
		return nil
	}
	return usageErrorf("%w", err)
}

func readAuthority(dir string) (*certs.Authority, error) {
	cert, err := os.ReadFile(filepath.Join(dir, caCert))
	if errors.Is(err, fs.ErrNotExist) {
		failed := &exitError{code: exitFailure, err: err}
		return nil, failed.withHint("make an authority first: %s tls init -dir %s", appName, dir)
	}
	if err != nil {
		return nil, err
	}
	key, err := certs.ReadPrivate(filepath.Join(dir, caKey), maxCAKey)
	if err != nil {
		return nil, err
	}
	authority, err := certs.ReadAuthority(certs.Pair{Cert: cert, Key: key})
	if err != nil {
		return nil, fmt.Errorf("%s and %s in %s: %w", caCert, caKey, dir, err)
	}
	return authority, nil
}

// writePair writes NAME.crt and NAME.key into -dir, and says so. With -keep both may be there.
func writePair(e *env, c *cli.Context, name string, pair certs.Pair) error {
	base := filepath.Join(c.String(flagDir), name)
	cert, key := base+".crt", base+".key"
	if c.Bool(flagKeep) {
		if _, err := certs.Open(certs.Files{Cert: cert, Key: key}, slog.New(slog.DiscardHandler)); err == nil {
			_, err = fmt.Fprintf(e.stdout, "%s and %s exist and were kept\n", cert, key)
			return err
		}
	}
	err := pair.Write(cert, key)
	if errors.Is(err, fs.ErrExist) {
		failed := &exitError{code: exitFailure, err: err}
		return failed.withHint("nothing was replaced: move the files away, or choose other names")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "wrote %s and %s\n", cert, key)
	return err
}
