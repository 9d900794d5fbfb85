package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry"
)

const (
	devNodes = 3
	devName  = "dev" // of the cluster

	flagAddrPort = "addr-port"
	flagBindPort = "bind-port"
	flagSecure   = "secure"
)

// devPatience is how long three nodes on one machine may take to start.
const devPatience = 30 * time.Second

func devCommand(e *env) *cli.Command {
	flags := []cli.Flag{
		&cli.IntFlag{Name: flagAddrPort, Usage: "client port of the first node; the others follow", Value: 9800},
		&cli.BoolFlag{Name: flagSecure, Usage: "lock both ports: by a secret between the nodes, and by TLS and a token for clients"},
		&cli.IntFlag{Name: flagBindPort, Usage: "bind port of the first node; the others follow", Value: 7370},
	}
	return &cli.Command{
		Name:        "dev",
		Usage:       "run a cluster of three nodes on this machine, to try things out",
		Category:    categoryNode,
		Description: "All three are in this process and only reached from this machine. Their data is\nin a temporary folder and gone when you press Ctrl-C. With -json what is printed\nonce they run is one JSON value.",
		Flags:       append(append(flags, jsonFlag()), logFlags("error")...),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return dev(e, c)
		},
	}
}

func dev(e *env, c *cli.Context) (err error) {
	ctx, stop := untilHangup(c.Context)
	defer stop()
	// Nodes that stop one after the other complain about each other.
	var stopping atomic.Bool
	logger, _, err := newLogger(c, e.stderr)
	if err != nil {
		return err
	}
	logger = slog.New(&quietHandler{logger.Handler(), &stopping})
	configs, err := devConfigs(c, logger)
	if err != nil {
		return err
	}
	traces, err := startTracing(ctx, logger)
	if err != nil {
		return err
	}
	defer traces.close()
	for i := range configs {
		configs[i].TracerProvider = traces.of()
	}
	killed, stopKilled := caught()
	defer stopKilled()
	dir, err := os.MkdirTemp("", "registry-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	cluster := &devCluster{dir: dir, started: make(chan struct{})}
	defer cluster.removeWhenKilled(killed)()
	defer func() {
		stopping.Store(true)
		err = errors.Join(err, cluster.close())
	}()
	if c.Bool(flagSecure) {
		if err := cluster.secure(configs); err != nil {
			return fmt.Errorf("make the files of -%s: %w", flagSecure, err)
		}
	}
	fmt.Fprintf(e.stderr, "starting %d nodes …\n", devNodes)
	if err := cluster.start(ctx, configs); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C before they were up
		}
		return startError(err, configs[0].Bind, "-"+flagBindPort, configs[0].Addr, "-"+flagAddrPort)
	}
	if err := cluster.initTokens(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("make the first token: %w", err)
	}
	if err := printDev(e, c, toDevJSON(cluster)); err != nil {
		return err
	}
	return cluster.wait(ctx, e)
}

func devConfigs(c *cli.Context, logger *slog.Logger) ([]registry.Config, error) {
	if err := checkDevPorts(c.Int(flagBindPort), c.Int(flagAddrPort)); err != nil {
		return nil, err
	}
	configs := make([]registry.Config, devNodes)
	for i := range configs {
		bind, addr := devAddr(c.Int(flagBindPort)+i), devAddr(c.Int(flagAddrPort)+i)
		cfg := registry.DefaultConfig()
		cfg.ID, cfg.Cluster = "dev-"+strconv.Itoa(i+1), devName
		cfg.Bind, cfg.BindAdvertise, cfg.Addr, cfg.Advertise = bind, bind, addr, addr
		if i > 0 {
			cfg.Registries = []string{configs[0].Bind}
		}
		cfg.Logger, cfg.Version = logger.With("node", cfg.ID), buildVersion()
		configs[i] = cfg
	}
	return configs, nil
}

func devAddr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// checkDevPorts tries all ports before anything is started, since the message then
// can name all that are not free, and the flags.
func checkDevPorts(bind, addr int) error {
	flags := []struct {
		name  string
		first int
	}{{flagBindPort, bind}, {flagAddrPort, addr}}
	for _, f := range flags {
		if f.first < 1 || f.first > 65536-devNodes {
			return usageErrorf("-%s is %d, want 1 to %d", f.name, f.first, 65536-devNodes)
		}
	}
	if max(bind, addr)-min(bind, addr) < devNodes {
		return usageErrorf("-%s is %d and -%s is %d, want %d ports in a row from each", flagBindPort, bind, flagAddrPort, addr, devNodes)
	}
	var ports, names []string
	var errs []error
	for _, f := range flags {
		for port := f.first; port < f.first+devNodes; port++ {
			l, err := net.Listen("tcp", devAddr(port))
			if err == nil {
				err = l.Close()
			}
			if err == nil {
				continue
			}
			ports, errs = append(ports, strconv.Itoa(port)), append(errs, err)
			if name := "-" + f.name; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(ports) == 0 {
		return nil
	}
	failed := &exitError{code: exitFailure, err: fmt.Errorf("%s %s not free: %s",
		plural(len(ports), "port", "ports"), andList(ports)+plural(len(ports), " is", " are"), dialReason(errs[0]))}
	return failed.withHint("is another registry running? Choose another first port with %s", andList(names))
}

// devCluster is the nodes that run and the folder of their data.
type devCluster struct {
	dir   string
	env   []devVariable // of clients
	nodes []*registry.Node

	started chan struct{} // closed when no node starts any more
}

// start starts one node after the other: the first forms a cluster that the others join.
func (d *devCluster) start(ctx context.Context, configs []registry.Config) error {
	defer close(d.started)
	ctx, cancel := context.WithTimeoutCause(ctx, devPatience, fmt.Errorf("not ready within %v", devPatience))
	defer cancel()
	for _, cfg := range configs {
		cfg.DataDir = filepath.Join(d.dir, cfg.ID)
		n, err := registry.Start(ctx, cfg)
		if err != nil {
			return fmt.Errorf("start node %s: %w", cfg.ID, err)
		}
		d.nodes = append(d.nodes, n)
	}
	for _, n := range d.nodes {
		select {
		case <-n.Ready():
		case <-n.Done():
			return fmt.Errorf("node %s ended: %w", n.ID(), n.Err())
		case <-ctx.Done():
			return fmt.Errorf("node %s: %w", n.ID(), context.Cause(ctx))
		}
	}
	return nil
}

// wait returns when ctx ends, or with an error when a node ends by itself.
func (d *devCluster) wait(ctx context.Context, e *env) error {
	select {
	case <-ctx.Done():
		fmt.Fprintln(e.stderr, "stopping …")
		return nil
	case <-d.nodes[0].Done():
		return fmt.Errorf("node %s ended: %w", d.nodes[0].ID(), d.nodes[0].Err())
	case <-d.nodes[1].Done():
		return fmt.Errorf("node %s ended: %w", d.nodes[1].ID(), d.nodes[1].Err())
	case <-d.nodes[2].Done():
		return fmt.Errorf("node %s ended: %w", d.nodes[2].ID(), d.nodes[2].Err())
	}
}

// close ends the nodes, the last started first, and removes their data.
func (d *devCluster) close() error {
	var errs []error
	for i := len(d.nodes) - 1; i >= 0; i-- {
		errs = append(errs, d.nodes[i].Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// caught catches the signals that end this process, before there is data.
func caught() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}

// maxStartEnd is longer than a start takes to end once its context has.
const maxStartEnd = 5 * time.Second

// removeWhenKilled ends the process at the second signal, as it would end without
// this, but removes the data first. timeout(1), for one, sends its signal to the
// process and then to its group.
func (d *devCluster) removeWhenKilled(signals <-chan os.Signal) (stop func()) {
	done := make(chan struct{})
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-done:
				return
			}
		}
		select {
		case <-d.started: // a node that starts makes its folder again
		case <-time.After(maxStartEnd):
		}
		for range 10 { // nodes that still run add files meanwhile
			if os.RemoveAll(d.dir) == nil {
				break
			}
		}
		os.Exit(exitInterrupted)
	}()
	return func() { close(done) }
}

// devJSON is what dev prints once the nodes run.
type devJSON struct {
	Cluster  string        `json:"cluster"`
	Page     string        `json:"page"`     // URL of the web page
	DataDir  string        `json:"data_dir"` // goes with the nodes
	Nodes    []devNodeJSON `json:"nodes"`
	Env      []devVariable `json:"env"`      // that clients need; empty without -secure
	Commands []string      `json:"commands"` // to try
}

type devNodeJSON struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
	Bind string `json:"bind"`
}

func toDevJSON(d *devCluster) devJSON {
	out := devJSON{Cluster: devName, Page: d.page(), DataDir: d.dir, Env: append([]devVariable{}, d.env...)}
	addrs := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		addrs[i] = n.Addr()
		out.Nodes = append(out.Nodes, devNodeJSON{ID: n.ID(), Addr: n.Addr(), Bind: n.BindAddr()})
	}
	at := ""
	if addrs[0] != defaultClientAddr {
		at = " -registries " + strings.Join(addrs, ",")
	}
	for _, command := range []string{
		"register" + at + " -group web -id web-1 -addr 127.0.0.1:8080",
		"register" + at + " -group web -id web-2 -addr 127.0.0.1:8081",
		"match" + at + " web user-1 user-2 user-3",
		"match -registries " + addrs[len(addrs)-1] + " web user-1",
		"members" + at + " web",
		"cluster status" + at,
		"ring stats" + at + " web",
	} {
		out.Commands = append(out.Commands, ownName()+" "+command)
	}
	return out
}

// page is the URL of the first node's web page.
func (d *devCluster) page() string {
	scheme := "http"
	if len(d.env) > 0 {
		scheme = "https"
	}
	return scheme + "://" + d.nodes[0].Addr() + "/"
}

func printDev(e *env, c *cli.Context, d devJSON) error {
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, d)
	}
	fmt.Fprintf(e.stdout, "A cluster of %d nodes runs here; press Ctrl-C to end it. Its data, %s, goes then.\n\n", len(d.Nodes), d.DataDir)
	t := newTable(e.stdout, "NODE", "CLIENTS", "NODES")
	for _, n := range d.Nodes {
		t.row(n.ID, n.Addr, n.Bind)
	}
	if err := t.flush(); err != nil {
		return err
	}
	var lines []string
	for _, v := range d.Env {
		lines = append(lines, fmt.Sprintf("export %s=%s", v.Name, shellWord(v.Value)))
	}
	_, err := fmt.Fprintf(e.stdout, "\nWeb page: %s\n\nIn another terminal:\n\n  %s\n", d.Page, strings.Join(append(lines, d.Commands...), "\n  "))
	return err
}

// ownName is what a shell in any directory runs this program by: its name, if
// that is found, or else its path, which go run keeps as long as we run.
func ownName() string {
	own, err := os.Executable()
	if err != nil {
		return appName
	}
	found, err := exec.LookPath(appName)
	if err == nil && sameFile(found, own) {
		return appName
	}
	return shellWord(own)
}

// shellWord quotes what a shell would not take as one word.
func shellWord(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\"'$&;()<>|*?`\\", r) }) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func sameFile(a, b string) bool {
	one, errA := os.Stat(a)
	other, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(one, other)
}
