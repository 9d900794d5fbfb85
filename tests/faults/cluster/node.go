//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/disk"
)

// Ports of every node, on its own address.
const (
	bindPort = 7370
	addrPort = 9800
)

// Node is a registry process, its data, its address and its log. Its methods
// may be called by one goroutine at a time, except Dial, IP and Running.
type Node struct {
	ID  string
	Dir string // the data directory
	Log string // the file that all its processes write to

	cluster *Cluster
	conn    *grpc.ClientConn
	disk    *disk.Mount // nil: a folder

	mu       sync.Mutex // guards the rest
	endpoint *Endpoint
	process  *process
}

// process is one start of the binary.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	paused bool
}

func newNode(c *Cluster, id string) (*Node, error) {
	e, err := c.Network.Attach()
	if err != nil {
		return nil, err
	}
	n := &Node{ID: id, cluster: c, endpoint: e, Dir: filepath.Join(c.Dir, id), Log: filepath.Join(c.Dir, id+".log")}
	if c.Config.PowerCuts {
		if n.disk, err = disk.New(c.Config.Forgets).Mount(n.Dir); err != nil {
			return nil, err
		}
	}
	if n.conn, err = Connect(n); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// close lets go of a node that does not run.
func (n *Node) close() error {
	var errs []error
	if n.conn != nil {
		errs = append(errs, n.conn.Close())
	}
	if n.disk != nil {
		errs = append(errs, n.disk.Close())
	}
	return errors.Join(errs...)
}

// Connect makes a client connection of its own to the node, at whatever
// address it is.
func Connect(n *Node) (*grpc.ClientConn, error) {
	opts := append(n.cluster.credentials(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return n.Dial(ctx) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	return grpc.NewClient("passthrough:///"+n.ID, opts...)
}

// Endpoint is where the node is now.
func (n *Node) Endpoint() *Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.endpoint
}

// Bind is the node's address for other nodes.
func (n *Node) Bind() string { return fmt.Sprintf("%v:%d", n.Endpoint().IP, bindPort) }

// Addr is the node's address for clients.
func (n *Node) Addr() string { return fmt.Sprintf("%v:%d", n.Endpoint().IP, addrPort) }

// Dial opens a client's connection to the node.
func (n *Node) Dial(ctx context.Context) (net.Conn, error) {
	return n.cluster.Clients.Dial(ctx, n.Addr())
}

// Registry is a client of this node alone.
func (n *Node) Registry() registrypb.RegistryClient { return registrypb.NewRegistryClient(n.conn) }

// Cluster is a client of this node alone, for operators' calls.
func (n *Node) Cluster() registrypb.ClusterClient { return registrypb.NewClusterClient(n.conn) }

// Start starts the process; more flags come last.
func (n *Node) Start(more ...string) error {
	if n.Running() {
		return fmt.Errorf("%s runs already", n.ID)
	}
	cfg := n.cluster.Config
	argv := []string{cfg.Binary, "-id=" + n.ID, "-cluster=faults", "-bind=" + n.Bind(), "-bind-advertise=" + n.Bind(),
		"-addr=" + n.Addr(), "-advertise=" + n.Addr(), "-data-dir=" + n.Dir}
	argv = slices.Concat(argv, n.cluster.lockFlags(), cfg.Flags, more)
	if cfg.Wrap != nil {
		argv = cfg.Wrap(n, argv)
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, n.cluster.Dir
	p.cmd.Env = append(environment(), cfg.Env...)
	if cfg.EnvOf != nil {
		p.cmd.Env = append(p.cmd.Env, cfg.EnvOf(n)...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := n.Endpoint().run(p.cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", n.ID, err)
	}
	n.cluster.wg.Go(func() {
		_ = p.cmd.Wait() // the state says more
		close(p.exited)
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = p
	return nil
}

// environment is this process's without what the registry's flags read.
func environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REGISTRY_") {
			env = append(env, v)
		}
	}
	return env
}

func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Running says whether the process was started and has not ended.
func (n *Node) Running() bool {
	p := n.current()
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// PID of the process that was started last.
func (n *Node) PID() int { return n.current().cmd.Process.Pid }

// Exited is closed when the process that was started last has ended.
func (n *Node) Exited() <-chan struct{} { return n.current().exited }

// ExitCode of the process that ended last; -1: a signal ended it.
func (n *Node) ExitCode() int { return n.current().cmd.ProcessState.ExitCode() }

// Signal sends a signal to the process's group, which is its own.
func (n *Node) Signal(s syscall.Signal) error {
	if !n.Running() {
		return nil
	}
	if err := syscall.Kill(-n.PID(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%v for %s: %w", s, n.ID, err)
	}
	return nil
}

// Kill is SIGKILL; it waits until the process is gone.
func (n *Node) Kill() error {
	if !n.Running() {
		return nil
	}
	if err := n.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Exited() // the kernel sees to it
	return nil
}

// CutPower is Kill, and a disk that has forgotten what was not synced. It says
// what was kept. Config.PowerCuts is set.
func (n *Node) CutPower(r *rand.Rand) (kept string, err error) {
	if err := n.Kill(); err != nil {
		return "", err
	}
	kept, err = n.disk.CutPower(r)
	return n.ID + " " + kept, err
}

// Segments are the files of the log in segments. Config.PowerCuts is set.
func (n *Node) Segments() []string {
	return slices.DeleteFunc(n.disk.Names("wal"), func(name string) bool { return filepath.Ext(name) != ".wal" })
}

// Stop is SIGTERM; it waits for an orderly end.
func (n *Node) Stop(ctx context.Context) error {
	if err := n.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.Exited():
	case <-ctx.Done():
		return fmt.Errorf("%s still runs after SIGTERM: %w", n.ID, context.Cause(ctx))
	}
	if code := n.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with exit code %d after SIGTERM", n.ID, code)
	}
	return nil
}

// Pause is SIGSTOP, Resume is SIGCONT.
func (n *Node) Pause() error  { return n.pause(true, syscall.SIGSTOP) }
func (n *Node) Resume() error { return n.pause(false, syscall.SIGCONT) }

func (n *Node) pause(paused bool, s syscall.Signal) error {
	p := n.current()
	n.mu.Lock()
	p.paused = paused
	n.mu.Unlock()
	return n.Signal(s)
}

// Paused says whether the process was paused and not resumed.
func (n *Node) Paused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && n.process.paused
}

// Move gives a node that does not run a new address.
func (n *Node) Move() error {
	if n.Running() {
		return fmt.Errorf("%s runs", n.ID)
	}
	e, err := n.cluster.Network.Attach()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.endpoint = e
	return nil
}

// Wipe removes the data of a node that does not run.
func (n *Node) Wipe() error {
	if n.Running() {
		return fmt.Errorf("%s runs", n.ID)
	}
	if n.disk != nil {
		return n.disk.Wipe()
	}
	return os.RemoveAll(n.Dir)
}
