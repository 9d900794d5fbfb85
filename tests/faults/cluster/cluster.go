//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Config says how a cluster runs.
type Config struct {
	// Binary is the registry.
	Binary string
	// Nodes; 0 means 3.
	Nodes int
	// Flags of every node, beyond those that say who and where it is.
	Flags []string
	// Env of every node, beyond this process's.
	Env []string
	// EnvOf is more for one node; may be nil.
	EnvOf func(*Node) []string
	// Wrap changes the command of a node, to run it under another program that
	// passes signals on; may be nil.
	Wrap func(n *Node, argv []string) []string
	// PowerCuts: every node's data is on a disk that Node.CutPower can be used with.
	PowerCuts bool
	// Forgets are paths in these disks whose sync does nothing, as of disk.New.
	Forgets string
	// Isolated: every node in a network namespace of its own.
	Isolated bool
	// Plain: no secret, no TLS and no tokens, for a binary that knows none.
	Plain bool
	// Seed of the network's losses.
	Seed uint64
}

// Cluster is nodes, the network between them, and a folder.
type Cluster struct {
	Config  Config
	Dir     string
	Network *Network
	Clients *Endpoint // where clients are
	Nodes   []*Node

	locks
	wg sync.WaitGroup // the processes
}

// Start starts a new cluster and waits until it is healthy.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	c := &Cluster{Config: cfg, Network: NewNetwork(cfg.Isolated, cfg.Seed)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a cluster: %w", err), c.Close(true))
		}
	}()
	if c.Dir, err = os.MkdirTemp("", "registry-faults-"); err != nil {
		return c, err
	}
	if err := c.makeKeys(ctx); err != nil {
		return c, err
	}
	if c.Clients, err = c.Network.Attach(); err != nil {
		return c, err
	}
	var binds []string
	for i := range cfg.Nodes {
		n, err := newNode(c, "n"+strconv.Itoa(i+1))
		if err != nil {
			return c, err
		}
		c.Nodes, binds = append(c.Nodes, n), append(binds, n.Bind())
	}
	for _, n := range c.Nodes {
		if err := n.Start("-bootstrap-expect="+strconv.Itoa(cfg.Nodes), "-registries="+strings.Join(binds, ",")); err != nil {
			return c, err
		}
	}
	if err := c.AwaitHealth(ctx); err != nil || cfg.Plain {
		return c, err
	}
	return c, c.initTokens(ctx)
}

// Close kills the processes and takes down the network. The folder stays if
// keep is set, without the data.
func (c *Cluster) Close(keep bool) error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Kill(), n.close())
	}
	errs = append(errs, c.Network.Close())
	c.wg.Wait()
	if c.Dir != "" && !keep {
		errs = append(errs, os.RemoveAll(c.Dir))
	}
	return errors.Join(errs...)
}

// AddNode makes a further node, which does not run yet.
func (c *Cluster) AddNode(id string) (*Node, error) {
	n, err := newNode(c, id)
	if err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

// Forget takes a node that does not run out of Nodes.
func (c *Cluster) Forget(n *Node) error {
	c.Nodes = slices.DeleteFunc(c.Nodes, func(other *Node) bool { return other == n })
	return n.close()
}

// Node returns the node with that id, or nil.
func (c *Cluster) Node(id string) *Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Others returns all nodes but those.
func (c *Cluster) Others(but ...*Node) (others []*Node) {
	for _, n := range c.Nodes {
		if !slices.Contains(but, n) {
			others = append(others, n)
		}
	}
	return others
}

// askTimeout bounds one question about the cluster's state.
const askTimeout = 2500 * time.Millisecond

// Status is what one node says of the cluster.
func (n *Node) Status(ctx context.Context, group string) (*registrypb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return n.Cluster().Status(ctx, &registrypb.StatusRequest{Group: group})
}

// Leader waits until a majority names one leader that leads by its own word.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	err := Await(ctx, func() error {
		votes, terms := make(map[string]int), make(map[string]uint64)
		for _, n := range c.Nodes {
			if !n.Running() || n.Paused() {
				continue
			}
			st, err := n.Status(ctx, "")
			if err != nil || st.Leader == "" {
				continue
			}
			votes[st.Leader]++
			terms[st.Leader] = max(terms[st.Leader], st.Term)
		}
		for id, v := range votes {
			if leader = c.Node(id); leader != nil && v > len(c.Nodes)/2 {
				return nil
			}
		}
		return fmt.Errorf("no leader: %v", votes)
	})
	return leader, err
}

// AwaitHealth waits until the nodes are healthy.
func (c *Cluster) AwaitHealth(ctx context.Context) error {
	return Await(ctx, func() error { return c.Healthy(ctx) })
}

// Healthy is nil if every node runs, is ready, follows one leader and has applied
// what the others have.
func (c *Cluster) Healthy(ctx context.Context) error {
	leader, term := "", uint64(0)
	for _, n := range c.Nodes {
		if !n.Running() {
			return fmt.Errorf("%s does not run", n.ID)
		}
		st, err := n.Status(ctx, "")
		if err != nil {
			return fmt.Errorf("%s: %w", n.ID, err)
		}
		if leader == "" {
			leader, term = st.Leader, st.Term
		}
		if st.Leader == "" || st.Leader != leader || st.Term != term {
			return fmt.Errorf("%s names %q in term %d the leader, and another %q in term %d", n.ID, st.Leader, st.Term, leader, term)
		}
		if err := c.agree(st); err != nil {
			return err
		}
	}
	return nil
}

// maxBehind is how far apart the applied indexes of healthy nodes under load may be.
const maxBehind = 500

func (c *Cluster) agree(st *registrypb.StatusResponse) error {
	if len(st.Nodes) != len(c.Nodes) {
		return fmt.Errorf("%d nodes, want %d", len(st.Nodes), len(c.Nodes))
	}
	var low, high uint64
	for i, n := range st.Nodes {
		if n.Error != "" || !n.Voter || !n.Ready {
			return fmt.Errorf("%s: voter %v, ready %v, %s", n.Id, n.Voter, n.Ready, n.Error)
		}
		if i == 0 {
			low = n.AppliedIndex
		}
		low, high = min(low, n.AppliedIndex), max(high, n.AppliedIndex)
	}
	if high-low > maxBehind {
		return fmt.Errorf("applied indexes from %d to %d", low, high)
	}
	return nil
}

// awaitEvery is the pause between two looks.
const awaitEvery = 50 * time.Millisecond

// Await calls f until it returns nil or the context ends.
func Await(ctx context.Context, f func() error) error {
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// Mend takes back what can be: links, pauses, and processes that do not run.
func (c *Cluster) Mend() error {
	c.Network.Heal()
	var errs []error
	for _, n := range c.Nodes {
		if n.Paused() {
			errs = append(errs, n.Resume())
		}
		if !n.Running() {
			errs = append(errs, n.Start())
		}
	}
	return errors.Join(errs...)
}

// Logs are the files that the nodes write to, also those of nodes that left.
func (c *Cluster) Logs() ([]string, error) { return filepath.Glob(filepath.Join(c.Dir, "*.log")) }
