package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"
)

func debugCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "debug",
		Usage:    "look into nodes",
		Category: categoryNode,
		Description: "Profiles are for Go's own tool, for instance\n" +
			"go tool pprof http://127.0.0.1:6060/debug/pprof/heap",
		Subcommands: []*cli.Command{debugLogLevelCommand(e), debugBundleCommand(e)},
	}
}

func debugLogLevelCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      flagLogLevel,
		Usage:     "print a node's log level; with LEVEL set it first",
		ArgsUsage: "[LEVEL]",
		Description: "LEVEL is debug, info, warn or error. It holds until the node ends, or reads its\n" +
			"-config file again.",
		Flags:  []cli.Flag{&cli.StringFlag{Name: flagDebugAddr, Usage: "the node's -debug-addr (required)", EnvVars: []string{variable(flagDebugAddr)}}},
		Action: func(c *cli.Context) error { return debugLogLevel(e, c) },
	}
}

func debugLogLevel(e *env, c *cli.Context) error {
	if c.NArg() > 1 {
		return unexpected(c, c.Args().Get(1))
	}
	if err := require(c, flagDebugAddr); err != nil {
		return err
	}
	addr, err := parseDebugAddr(c.String(flagDebugAddr))
	if err != nil {
		return usageErrorf("%w", err)
	}
	level := c.Args().First()
	if c.NArg() > 0 {
		if _, err := parseLevel(level); err != nil {
			return usageErrorf("%w", err)
		}
	}
	level, err = askLevel(c.Context, addr, level)
	if stopped := c.Context.Err(); stopped != nil {
		return stopped
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, level)
	return err
}

// askLevel reads the log level of the node whose debug listener is at addr; with a level it
// sets it first.
func askLevel(ctx context.Context, addr, level string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, debugTimeout)
	defer cancel()
	method := http.MethodGet
	if level != "" {
		method = http.MethodPut
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+debugLevelPath, strings.NewReader(level))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	resp, err := client.Do(req)
	if err != nil {
		failed := &exitError{code: exitUnavailable, err: err}
		return "", failed.withHint("does a node on this machine run with -%s %s?", flagDebugAddr, addr)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s: %s", addr, resp.Status, oneLine(text))
	}
	return text, nil
}
