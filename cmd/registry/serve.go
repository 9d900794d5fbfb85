package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/werbenhu/registry"
)

// serveFlags are those of "serve" and of the binary without a command. Flags
// remember their values, so each command gets its own.
func serveFlags() []cli.Flag {
	d := registry.DefaultConfig()
	flags := append([]cli.Flag{
		&cli.StringFlag{Name: flagConfig, Usage: "YAML FILE with values for these flags, under their names; a flag and its variable come first"},
		&cli.BoolFlag{Name: flagCheckConfig, Usage: "print the values in force and where they come from, or all that is wrong with them, and start nothing"},
		&cli.StringFlag{Name: flagID, Usage: "the node's id, unique in the cluster (required)"},
		&cli.StringFlag{Name: "bind", Usage: "listen for other nodes here", Value: d.Bind},
		&cli.StringFlag{Name: "bind-advertise", Usage: "host:port where other nodes reach -bind (default: its port on this machine's one private address)"},
		&cli.StringFlag{Name: flagAddr, Usage: "listen for clients here", Value: d.Addr},
		&cli.StringFlag{Name: "advertise", Usage: "host:port where clients reach -addr (default: as for -bind-advertise)"},
		&cli.StringFlag{Name: "secret-file", Usage: "lock -bind: only nodes with the same secret may use it (made by: registry secret new)"},
		&cli.StringFlag{Name: "peer-cert", Usage: "lock -bind by certificates of your own: this node's, for the URI registry://CLUSTER/node/ID"},
		&cli.StringFlag{Name: "peer-key", Usage: "the key of -peer-cert"},
		&cli.StringFlag{Name: "peer-ca", Usage: "certificates of the authorities that sign for nodes"},
		&cli.StringFlag{Name: flagCert, Usage: "file of the certificate of -addr, which must name the host of -advertise: clients then need TLS"},
		&cli.StringFlag{Name: flagKey, Usage: "file of the key of -cert"},
		&cli.StringFlag{Name: "client-ca", Usage: "file of the authorities whose certificates clients must show (default: clients need none)"},
		&cli.StringFlag{Name: "client-auth", Usage: "require a client's certificate, or verify-if-given (default: require, with -client-ca)"},
		&cli.BoolFlag{Name: "tls12", Usage: "accept TLS 1.2 too on -addr, not TLS 1.3 alone"},
		&cli.StringFlag{Name: "audit-log", Usage: "FILE for who changed what and who was refused, one JSON object a line; -: standard error (default: lines of the log)"},
		&cli.StringSliceFlag{Name: flagRegistries, Usage: "bind addresses of other nodes, comma separated; none: form a new cluster"},
		&cli.StringFlag{Name: flagDataDir, Usage: "where the node keeps its state (default: registry-data/<id>)"},
		&cli.StringFlag{Name: flagLogStore, Usage: "where the log is, wal or boltdb (default: where -data-dir has it; wal in a new one)"},
		&cli.IntFlag{Name: "bootstrap-expect", Usage: "form one cluster with that many nodes, all in -registries, started in any order"},
		&cli.StringFlag{Name: flagCluster, Usage: "name of the cluster: nodes of another name are refused", Value: d.Cluster},
		&cli.StringFlag{Name: "zone", Usage: "NAME of the failure zone that the node is in: cluster status warns if the loss of one zone loses the quorum"},
		&cli.StringFlag{Name: "restore", Usage: "form a new cluster with the state of this snapshot file; other nodes join it by -registries"},
		&cli.BoolFlag{Name: "wait", Usage: "start empty and wait until a cluster takes this node in (cluster join)"},
		&cli.BoolFlag{Name: "read-replica", Usage: "join without a vote, for good: answer reads and watches, and count for no majority"},
		&cli.BoolFlag{Name: "serve-stale-on-start", Usage: "after a restart without a majority, answer reads from what is known to be committed, of unknown age"},
		&cli.DurationFlag{Name: "join-timeout", Usage: "give up joining after that", Value: d.JoinTimeout},
		&cli.DurationFlag{Name: "election-timeout", Usage: "call for an election after that long without a leader", Value: d.ElectionTimeout},
		&cli.DurationFlag{Name: "remove-dead-after", Usage: "while this node leads, remove a voter that it has not reached for that long, if enough healthy ones are left; 0: never", Value: d.RemoveDeadAfter},
		&cli.IntFlag{Name: "min-voters", Usage: "-remove-dead-after leaves at least that many voters", Value: d.MinVoters},
		&cli.DurationFlag{Name: "delete-empty-after", Usage: "while this node leads, delete a group that has had no members for that long, unless it has settings of its own; 0: never", Value: d.DeleteEmptyAfter},
		sizeFlag{&cli.StringFlag{Name: "min-free-disk", Usage: "refuse new members and groups while less disk is free under -data-dir; 0: never", Value: sizeText(d.MinFreeDisk)}},
		sizeFlag{&cli.StringFlag{Name: "ring-memory", Usage: "memory for the rings of the groups that this node is asked about", Value: sizeText(uint64(d.RingMemory))}},
		&cli.Uint64Flag{Name: "snapshot-threshold", Usage: "take a snapshot after that many log entries; twice as many stay in the log", Value: d.SnapshotThreshold},
		&cli.DurationFlag{Name: "snapshot-interval", Usage: "look that often whether a snapshot is due", Value: d.SnapshotInterval},
		&cli.StringFlag{Name: flagDebugAddr, Usage: "serve profiles (net/http/pprof) and the log level here, on an address of loopback (default: nowhere)"},
	}, logFlags("info")...)
	for _, f := range flags {
		setVariables(f, variable(f.Names()[0]))
	}
	return flags
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
			"or SIGTERM kills it. With a secret or certificates SIGHUP reads them again, as\n" +
			"the node does by itself when they change; with -audit-log FILE it opens FILE again.\n" +
			"With -config FILE it reads FILE again, and the log names what needs a restart.",
		Flags:  serveFlags(),
		Action: serveAction(e),
	}
}

func serveAction(e *env) cli.ActionFunc {
	return func(c *cli.Context) error {
		if _, err := positional(c); err != nil {
			return err
		}
		s, cfg, err := configure(e, c)
		if err != nil {
			return err
		}
		if !c.Bool(flagCheckConfig) {
			return serve(e, c, s, cfg)
		}
		if err := cfg.CheckFiles(); err != nil {
			return err
		}
		return s.print(e.stdout, cfg)
	}
}

// configure reads the settings and checks them. The error has all that is wrong.
func configure(e *env, c *cli.Context) (*settings, registry.Config, error) {
	s, fileErr := readSettings(c)
	if s == nil {
		return nil, registry.Config{}, fileErr
	}
	cfg, err := serveConfig(e, s)
	return s, cfg, errors.Join(fileErr, s.locate(err))
}

// serveConfig is the configuration of the node. The error has all that is wrong.
func serveConfig(e *env, s *settings) (registry.Config, error) {
	cfg := registry.DefaultConfig()
	var logErr, ringErr, diskErr, dirErr, debugErr error
	cfg.Logger, s.level, logErr = newLogger(s.Context, e.stderr)
	cfg.ID, cfg.Cluster = s.String(flagID), s.String(flagCluster)
	cfg.Bind, cfg.BindAdvertise = s.String("bind"), s.String("bind-advertise")
	cfg.Addr, cfg.Advertise = s.String(flagAddr), s.String("advertise")
	cfg.SecretFile = s.String("secret-file")
	cfg.PeerCert, cfg.PeerKey, cfg.PeerCA = s.String("peer-cert"), s.String("peer-key"), s.String("peer-ca")
	cfg.Cert, cfg.Key, cfg.TLS12 = s.String(flagCert), s.String(flagKey), s.Bool("tls12")
	cfg.ClientCA, cfg.ClientAuth = s.String("client-ca"), s.String("client-auth")
	cfg.AuditLog = s.String("audit-log")
	cfg.Registries = list(s.Context, flagRegistries)
	cfg.BootstrapExpect, cfg.Wait = s.Int("bootstrap-expect"), s.Bool("wait")
	cfg.ReadReplica = s.Bool("read-replica")
	cfg.ServeStaleOnStart = s.Bool("serve-stale-on-start")
	cfg.RemoveDeadAfter, cfg.MinVoters = s.Duration("remove-dead-after"), s.Int("min-voters")
	cfg.DeleteEmptyAfter = s.Duration("delete-empty-after")
	cfg.Restore, cfg.Zone = s.String("restore"), s.String("zone")
	cfg.JoinTimeout, cfg.ElectionTimeout = s.Duration("join-timeout"), s.Duration("election-timeout")
	var ringMemory uint64
	ringMemory, ringErr = parseSize("ring-memory", s.String("ring-memory"))
	cfg.RingMemory = int64(min(ringMemory, math.MaxInt64))
	cfg.MinFreeDisk, diskErr = parseSize("min-free-disk", s.String("min-free-disk"))
	cfg.SnapshotThreshold, cfg.SnapshotInterval = s.Uint64("snapshot-threshold"), s.Duration("snapshot-interval")
	cfg.DataDir, cfg.LogStore = s.String(flagDataDir), s.String(flagLogStore)
	cfg.Version = buildVersion()
	if addr := s.String(flagDebugAddr); addr != "" {
		s.debugAddr, debugErr = parseDebugAddr(addr)
	}
	if cfg.ID == "" {
		idErr := usageErrorf("-id is required to run a node").
			withHint("for instance: registry -id service-1; to try it out: registry dev; all flags: registry serve -help")
		named := cfg
		named.ID = "id" // so that its absence is told once
		return cfg, errors.Join(idErr, logErr, ringErr, diskErr, debugErr, named.Validate())
	}
	if cfg.DataDir == "" {
		cfg.DataDir, dirErr = defaultDataDir(cfg.ID)
	}
	return cfg, errors.Join(logErr, ringErr, diskErr, dirErr, debugErr, cfg.Validate())
}

// defaultDataDir puts the node's id into a path, which not every id survives.
func defaultDataDir(id string) (string, error) {
	dir := filepath.Join("registry-data", id)
	if filepath.Dir(dir) != "registry-data" || filepath.Base(dir) != id {
		return "", usageErrorf("-id %q is not the name of a directory: set -data-dir", id)
	}
	return dir, nil
}

// reloads reports whether SIGHUP lets a node read files again; otherwise it ends the
// node.
func reloads(s *settings, cfg registry.Config) bool {
	auditFile := cfg.AuditLog != "" && cfg.AuditLog != registry.AuditStderr
	return s.String(flagConfig) != "" || cfg.SecretFile != "" || cfg.PeerCert != "" || cfg.Cert != "" || auditFile
}

// onHangup returns the SIGHUPs that let a node read its files again; if it has none, a
// context that SIGHUP ends.
func onHangup(ctx context.Context, s *settings, cfg registry.Config) (_ context.Context, again <-chan os.Signal, stop func()) {
	if reloads(s, cfg) {
		again, stop = hangups()
		return ctx, again, stop
	}
	ctx, stop = untilHangup(ctx)
	return ctx, nil, stop
}

// serve runs a node until the context ends, or until the node ends by itself.
func serve(e *env, c *cli.Context, s *settings, cfg registry.Config) error {
	ctx, again, stop := onHangup(c.Context, s, cfg)
	defer stop()
	debug, err := startDebug(s.debugAddr, s.level, cfg.Logger)
	if err != nil {
		return err
	}
	defer debug.close()
	traces, err := startTracing(ctx, cfg.Logger, semconv.ServiceInstanceID(cfg.ID))
	if err != nil {
		return err
	}
	defer traces.close()
	cfg.TracerProvider = traces.of()
	sv, err := newSupervisor(cfg.Logger)
	if err != nil {
		return err
	}
	defer sv.close()
	var values strings.Builder
	if err := s.print(&values, cfg); err != nil {
		return err
	}
	cfg.Settings = values.String()
	n, err := registry.Start(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		cfg.Logger.Info("stopped before it was a member of a cluster", "id", cfg.ID)
		return nil
	}
	if err != nil {
		return startError(err, cfg.Bind, "-bind", cfg.Addr, "-addr")
	}
	sv.watch(ctx, n, again, func() {
		n.Reload()
		s.reread(e, c, cfg.Logger)
	})
	if ctx.Err() != nil {
		cfg.Logger.Info("stopping", "id", n.ID(), "cause", context.Cause(ctx))
		return n.Close()
	}
	if errors.Is(n.Err(), registry.ErrLeft) {
		return n.Close()
	}
	return errors.Join(fmt.Errorf("node %s ended: %w", n.ID(), n.Err()), n.Close())
}

// startError adds what to do about a port that is taken.
func startError(err error, bind, bindFlag, addr, addrFlag string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	failed := &exitError{code: exitFailure, err: err}
	return failed.withHint("is another node running? Choose other ports with %s (now %s) and %s (now %s)", bindFlag, bind, addrFlag, addr)
}
