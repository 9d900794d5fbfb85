package storetest

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/store"
)

// Patience is how long a helper waits before it fails the test.
const Patience = 30 * time.Second

// ElectionTimeout of the nodes, unless a test sets another.
const ElectionTimeout = 200 * time.Millisecond

// Name of the clusters.
const Name = "test"

// Cluster is a set of nodes on one network. The end of the test closes them.
type Cluster struct {
	tb   testing.TB
	dir  string
	edit []func(*store.Config)
	Net  *Network

	mu    sync.Mutex // guards nodes
	nodes map[string]*Node
}

// Node is a node, running or not. Its directory stays when it stops.
type Node struct {
	*store.Store // of the latest start
	ID, Bind     string
	Dir          string

	cluster *Cluster
	up      bool // guarded by the cluster's mutex
}

// New returns a cluster without nodes. The functions edit the configuration of every
// node before it starts.
func New(tb testing.TB, edit ...func(*store.Config)) *Cluster {
	c := &Cluster{tb: tb, dir: tb.TempDir(), edit: edit, Net: NewNetwork(), nodes: make(map[string]*Node)}
	tb.Cleanup(c.close)
	return c
}

// close stops all nodes at once.
func (c *Cluster) close() {
	c.Net.Heal() // unblocks what waits for a cut
	var all sync.WaitGroup
	for _, n := range c.Nodes() {
		all.Go(func() { n.stop() })
	}
	all.Wait()
}

// Node returns the named node; nil if it was never opened.
func (c *Cluster) Node(id string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// Nodes returns the nodes that are up, by id.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var up []*Node
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		if n := c.nodes[id]; n.up {
			up = append(up, n)
		}
	}
	return up
}

func (c *Cluster) at(bind string) *store.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.up && n.Bind == bind {
			return n.Store
		}
	}
	return nil
}

// BindOf is the default bind address of a node.
func BindOf(id string) string { return id + ":7370" }

// DirOf is the data directory of a node.
func (c *Cluster) DirOf(id string) string { return filepath.Join(c.dir, id) }

// Open opens a node's store without forming or joining a cluster. A second Open of the
// same id uses the same directory.
func (c *Cluster) Open(id string, edit ...func(*store.Config)) *Node {
	c.tb.Helper()
	n, err := c.TryOpen(id, edit...)
	if err != nil {
		c.tb.Fatalf("open %s: %v", id, err)
	}
	return n
}

// TryOpen is Open for a node that may not start.
func (c *Cluster) TryOpen(id string, edit ...func(*store.Config)) (*Node, error) {
	cfg := store.Config{
		ID: id, Cluster: Name, BindAdvertise: BindOf(id), Addr: id + ":9800", Version: "test",
		DataDir: c.DirOf(id), ElectionTimeout: ElectionTimeout,
		Logger: slog.New(slog.NewTextHandler(c.tb.Output(), nil)).With("node", id),
	}
	for _, f := range append(slices.Clone(c.edit), edit...) {
		f(&cfg)
	}
	ln, err := c.Net.Listen(cfg.BindAdvertise)
	if err != nil {
		return nil, err
	}
	bind := cfg.BindAdvertise
	cfg.Listener = ln
	if cfg.DialRaft == nil {
		cfg.DialRaft = dialer(c.Net, bind)
	}
	if cfg.Peers == nil {
		cfg.Peers = peers{cluster: c, from: bind}
	}
	s, err := store.Open(cfg)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	n := &Node{Store: s, ID: id, Bind: bind, Dir: cfg.DataDir, cluster: c, up: true}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = n
	return n, nil
}

// Peers returns the Peers of a node at that address, for a test to wrap.
func (c *Cluster) Peers(bind string) store.Peers { return peers{cluster: c, from: bind} }

// UncutPeers is Peers that ignores cuts.
func (c *Cluster) UncutPeers(bind string) store.Peers {
	return peers{cluster: c, from: bind, uncut: true}
}

// Form forms or joins a cluster.
func (n *Node) Form(f store.Formation) {
	n.cluster.tb.Helper()
	ctx, cancel := context.WithTimeout(n.cluster.tb.Context(), Patience)
	defer cancel()
	if err := n.Store.Form(ctx, f); err != nil {
		n.cluster.tb.Fatalf("form %s: %v", n.ID, err)
	}
}

// Start opens a node and forms or joins a cluster.
func (c *Cluster) Start(id string, f store.Formation, edit ...func(*store.Config)) *Node {
	c.tb.Helper()
	n := c.Open(id, edit...)
	n.Form(f)
	return n
}

// Three starts n1, n2 and n3 as one cluster of voters.
func (c *Cluster) Three(edit ...func(*store.Config)) []*Node {
	c.tb.Helper()
	return c.Together(3, edit...)
}

// Together starts n1 to nN as one cluster of voters.
func (c *Cluster) Together(size int, edit ...func(*store.Config)) []*Node {
	c.tb.Helper()
	var nodes []*Node
	var binds []string
	for i := range size {
		id := "n" + string(rune('1'+i))
		nodes = append(nodes, c.Open(id, edit...))
		binds = append(binds, BindOf(id))
	}
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() { n.Form(store.Formation{Peers: binds, Expect: size}) })
	}
	all.Wait()
	for _, n := range nodes {
		c.AwaitReady(n)
	}
	return nodes
}

// Stop hands leadership over and closes the node.
func (n *Node) Stop() {
	n.HandOver()
	n.stop()
}

// Kill stops a node as a power cut does: it sends nothing to the others before.
func (n *Node) Kill() {
	n.cluster.Net.Isolate(n.Bind)
	n.stop()
	n.cluster.Net.Join(n.Bind)
}

// Abandon makes the cluster forget a node that the test closes itself.
func (c *Cluster) Abandon(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.up = false
}

func (n *Node) stop() {
	n.cluster.mu.Lock()
	was := n.up
	n.up = false
	n.cluster.mu.Unlock()
	if !was {
		return
	}
	if err := n.Close(); err != nil {
		n.cluster.tb.Errorf("close %s: %v", n.ID, err)
	}
}
