package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry"
)

// serveFlags are those of "serve" and of the binary without a command. Flags
// remember their values, so each command gets its own.
func serveFlags() []cli.Flag {
	d := registry.DefaultConfig()
	flags := []cli.Flag{
		&cli.StringFlag{Name: flagID, Usage: "the node's id, unique in the cluster (required)", EnvVars: []string{"REGISTRY_ID"}},
		&cli.StringFlag{Name: "bind", Usage: "listen for other nodes here", EnvVars: []string{"REGISTRY_BIND"}, Value: d.Bind},
		&cli.StringFlag{Name: "bind-advertise", Usage: "host:port where other nodes reach -bind (default: its port on this machine's one private address)", EnvVars: []string{"REGISTRY_BIND_ADVERTISE"}},
		&cli.StringFlag{Name: flagAddr, Usage: "listen for clients here", EnvVars: []string{"REGISTRY_ADDR"}, Value: d.Addr},
		&cli.StringFlag{Name: "advertise", Usage: "host:port where clients reach -addr (default: as for -bind-advertise)", EnvVars: []string{"REGISTRY_ADVERTISE"}},
		&cli.StringSliceFlag{Name: flagRegistries, Usage: "bind addresses of other nodes, comma separated; none: form a new cluster", EnvVars: []string{"REGISTRY_REGISTRIES"}},
		&cli.StringFlag{Name: flagDataDir, Usage: "where the node keeps its state (default: registry-data/<id>)", EnvVars: []string{"REGISTRY_DATA_DIR"}},
		&cli.StringFlag{Name: flagLogStore, Usage: "where the log is, wal or boltdb (default: where -data-dir has it; wal in a new one)", EnvVars: []string{"REGISTRY_LOG_STORE"}},
		&cli.IntFlag{Name: "bootstrap-expect", Usage: "form one cluster with that many nodes, all in -registries, started in any order", EnvVars: []string{"REGISTRY_BOOTSTRAP_EXPECT"}},
		&cli.StringFlag{Name: flagCluster, Usage: "name of the cluster: nodes of another name are refused", EnvVars: []string{"REGISTRY_CLUSTER"}, Value: d.Cluster},
		&cli.BoolFlag{Name: "wait", Usage: "start empty and wait until a cluster takes this node in (cluster join)", EnvVars: []string{"REGISTRY_WAIT"}},
		&cli.DurationFlag{Name: "join-timeout", Usage: "give up joining after that", EnvVars: []string{"REGISTRY_JOIN_TIMEOUT"}, Value: d.JoinTimeout},
		&cli.DurationFlag{Name: "election-timeout", Usage: "call for an election after that long without a leader", EnvVars: []string{"REGISTRY_ELECTION_TIMEOUT"}, Value: d.ElectionTimeout},
		&cli.StringFlag{Name: "min-free-disk", Usage: "refuse new members and groups while less disk is free under -data-dir; 0: never", EnvVars: []string{"REGISTRY_MIN_FREE_DISK"}, Value: sizeText(d.MinFreeDisk)},
		&cli.StringFlag{Name: "ring-memory", Usage: "memory for the rings of the groups that this node is asked about", EnvVars: []string{"REGISTRY_RING_MEMORY"}, Value: sizeText(uint64(d.RingMemory))},
		&cli.Uint64Flag{Name: "snapshot-threshold", Usage: "take a snapshot after that many log entries; twice as many stay in the log", EnvVars: []string{"REGISTRY_SNAPSHOT_THRESHOLD"}, Value: d.SnapshotThreshold},
		&cli.DurationFlag{Name: "snapshot-interval", Usage: "look that often whether a snapshot is due", EnvVars: []string{"REGISTRY_SNAPSHOT_INTERVAL"}, Value: d.SnapshotInterval},
	}
	return append(flags, logFlags("info")...)
}

func serveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "run a node",
		ArgsUsage: "-id ID",
		Category:  categoryNode,
		Description: "The first start without -registries forms a new cluster of one node; with\n" +
			"-registries it joins theirs. A restart on the same -data-dir needs neither.\n" +
			"SIGINT, SIGTERM or SIGHUP hands leadership over and ends the node; a second SIGINT\n" +
			"or SIGTERM kills it.",
		Flags:  serveFlags(),
		Action: serveAction(e),
	}
}

func serveAction(e *env) cli.ActionFunc {
	return func(c *cli.Context) error {
		if _, err := positional(c); err != nil {
			return err
		}
		if c.String(flagID) == "" {
			return usageErrorf("-id is required to run a node").
				withHint("for instance: registry -id service-1; to try it out: registry dev; all flags: registry serve -help")
		}
		cfg, err := serveConfig(e, c)
		if err != nil {
			return err
		}
		return serve(c, cfg)
	}
}

func serveConfig(e *env, c *cli.Context) (registry.Config, error) {
	cfg := registry.DefaultConfig()
	logger, err := newLogger(c, e.stderr)
	if err != nil {
		return cfg, err
	}
	cfg.ID, cfg.Cluster = c.String(flagID), c.String(flagCluster)
	cfg.Bind, cfg.BindAdvertise = c.String("bind"), c.String("bind-advertise")
	cfg.Addr, cfg.Advertise = c.String(flagAddr), c.String("advertise")
	cfg.Registries = list(c, flagRegistries)
	cfg.BootstrapExpect, cfg.Wait = c.Int("bootstrap-expect"), c.Bool("wait")
	cfg.JoinTimeout, cfg.ElectionTimeout = c.Duration("join-timeout"), c.Duration("election-timeout")
	ringMemory, err := parseSize("ring-memory", c.String("ring-memory"))
	if err != nil {
		return cfg, err
	}
	cfg.RingMemory = int64(min(ringMemory, math.MaxInt64))
	if cfg.MinFreeDisk, err = parseSize("min-free-disk", c.String("min-free-disk")); err != nil {
		return cfg, err
	}
	cfg.SnapshotThreshold, cfg.SnapshotInterval = c.Uint64("snapshot-threshold"), c.Duration("snapshot-interval")
	cfg.DataDir, cfg.LogStore = c.String(flagDataDir), c.String(flagLogStore)
	if cfg.DataDir == "" {
		if cfg.DataDir, err = defaultDataDir(cfg.ID); err != nil {
			return cfg, err
		}
	}
	cfg.Logger, cfg.Version = logger, buildVersion()
	return cfg, cfg.Validate()
}

// defaultDataDir puts the node's id into a path, which not every id survives.
func defaultDataDir(id string) (string, error) {
	dir := filepath.Join("registry-data", id)
	if filepath.Dir(dir) != "registry-data" || filepath.Base(dir) != id {
		return "", usageErrorf("-id %q is not the name of a directory: set -data-dir", id)
	}
	return dir, nil
}

// serve runs a node until the context ends, or until the node ends by itself.
func serve(c *cli.Context, cfg registry.Config) error {
	ctx, stop := untilHangup(c.Context)
	defer stop()
	n, err := registry.Start(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		cfg.Logger.Info("stopped before it was a member of a cluster", "id", cfg.ID)
		return nil
	}
	if err != nil {
		return startError(err, cfg.Bind, "-bind", cfg.Addr, "-addr")
	}
	select {
	case <-ctx.Done():
		cfg.Logger.Info("stopping", "id", n.ID(), "cause", context.Cause(ctx))
		return n.Close()
	case <-n.Done():
		return errors.Join(fmt.Errorf("node %s ended: %w", n.ID(), n.Err()), n.Close())
	}
}

// startError adds what to do about a port that is taken.
func startError(err error, bind, bindFlag, addr, addrFlag string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	failed := &exitError{code: exitFailure, err: err}
	return failed.withHint("is another node running? Choose other ports with %s (now %s) and %s (now %s)", bindFlag, bind, addrFlag, addr)
}
