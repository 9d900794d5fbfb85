package registrytest

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// Patience is how long a helper waits for what it is to bring about.
const Patience = 30 * time.Second

// Option changes what Start starts.
type Option func(*options)

type options struct {
	nodes  int
	logger *slog.Logger
	secret string
	tokens bool
	change []func(*registry.Config)
}

// WithNodes sets the number of nodes: 1, the default, or 3. With three, one may
// stop and the others go on.
func WithNodes(n int) Option { return func(o *options) { o.nodes = n } }

// WithLogger takes the logs of nodes and clients. The default logs nothing.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) {
		if l != nil {
			o.logger = l
		}
	}
}

// WithSecret locks the nodes' bind ports by the secrets of a file, which the nodes
// follow. Without it anybody on this machine can be a node.
func WithSecret(file string) Option { return func(o *options) { o.secret = file } }

// WithTokens creates the first token, with all rights, so that every call needs one. The
// clients of the cluster have it.
func WithTokens() Option { return func(o *options) { o.tokens = true } }

// WithConfig changes the configuration of every node, after all defaults.
func WithConfig(change func(*registry.Config)) Option {
	return func(o *options) { o.change = append(o.change, change) }
}

// Cluster is what Start started.
type Cluster struct {
	t       testing.TB
	logger  *slog.Logger
	configs []registry.Config // with the addresses that the nodes got at first
	nodes   []*registry.Node  // one that was stopped stays until it is restarted
	stopped []bool
	beats   *beats
	client  *sdk.Client
	token   string // the first one; empty: tokens are off
	tokens  int    // created
}

// Start starts a cluster and a client, and returns when every node is a voter
// and ready. All ends with the test. Elections take 2 s or more, so that a busy machine
// changes no leader; a node that is stopped hands leadership over at once.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	o := options{nodes: 1, logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	if o.nodes != 1 && o.nodes != 3 {
		t.Fatalf("registrytest: WithNodes: %d nodes, want 1 or 3", o.nodes)
	}
	c := &Cluster{
		t: t, logger: o.logger, beats: newBeats(),
		configs: make([]registry.Config, o.nodes), nodes: make([]*registry.Node, o.nodes), stopped: make([]bool, o.nodes),
	}
	data := t.TempDir()
	t.Cleanup(c.stopAll) // before the folder is removed: cleanups run last to first
	for i := range c.configs {
		cfg := registry.DefaultConfig()
		cfg.ID, cfg.Bind, cfg.Addr = fmt.Sprintf("node-%d", i+1), "127.0.0.1:0", "127.0.0.1:0"
		cfg.DataDir, cfg.SecretFile = filepath.Join(data, cfg.ID), o.secret
		cfg.ElectionTimeout = 2 * time.Second // a machine that stalls changes no leader
		cfg.Logger, cfg.MinFreeDisk = o.logger.With("node", cfg.ID), 0
		for _, change := range o.change {
			change(&cfg)
		}
		c.configs[i] = cfg
	}
	c.start(0)
	var others []int
	for i := 1; i < o.nodes; i++ {
		c.configs[i].Registries = []string{c.nodes[0].BindAddr()}
		others = append(others, i)
	}
	c.start(others...)
	c.client = c.Dial()
	c.awaitVoters()
	if o.tokens {
		c.initTokens()
	}
	return c
}

// start starts nodes at once.
func (c *Cluster) start(nodes ...int) {
	c.t.Helper()
	errs := make([]error, len(c.nodes))
	var all sync.WaitGroup
	for _, i := range nodes {
		all.Go(func() { errs[i] = c.tryStart(i) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			c.t.Fatalf("registrytest: start %s: %v", c.configs[i].ID, err)
		}
	}
}

func (c *Cluster) tryStart(i int) error {
	ctx, cancel := c.context()
	defer cancel()
	n, err := registry.Start(ctx, c.configs[i])
	if err != nil {
		return err
	}
	c.nodes[i], c.stopped[i] = n, false
	c.configs[i].Bind, c.configs[i].Addr = n.BindAddr(), n.Addr()
	select {
	case <-n.Ready():
		return nil
	case <-n.Done():
		return fmt.Errorf("it ended: %w", n.Err())
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", ctx.Err())
	}
}

func (c *Cluster) stopAll() {
	for i := len(c.nodes) - 1; i >= 0; i-- {
		if n := c.nodes[i]; n != nil && !c.stopped[i] {
			if err := n.Close(); err != nil {
				c.t.Errorf("registrytest: stop %s: %v", n.ID(), err)
			}
		}
	}
}

// Client is a client of the cluster.
func (c *Cluster) Client() *sdk.Client { return c.client }

// Dial makes another client, as another process has one. With WithTokens it has the
// first token, unless an option gives it another one. It is closed when the
// test ends, if it was not before.
func (c *Cluster) Dial(opts ...sdk.Option) *sdk.Client {
	c.t.Helper()
	opts = append([]sdk.Option{sdk.WithLogger(c.logger), sdk.WithCallTimeout(Patience), sdk.WithToken(c.token)}, opts...)
	client, err := sdk.Dial(c.Addrs(), append(opts, sdk.WithDialOptions(c.beats.dialOptions()...))...)
	c.check("Dial", err)
	c.t.Cleanup(func() { _ = client.Close() }) // nodes that the test stopped miss its deregistrations
	return client
}

// Addrs are the client addresses of all nodes, as [sdk.Dial] and the variable
// REGISTRY_ADDRS of the command line take them.
func (c *Cluster) Addrs() string {
	all := make([]string, len(c.nodes))
	for i := range c.nodes {
		all[i] = c.nodes[i].Addr()
	}
	return strings.Join(all, ",")
}

// Nodes are the nodes, in the order of their ids: node-1, node-2, node-3. One
// that was stopped is there until it is restarted.
func (c *Cluster) Nodes() []*registry.Node { return slices.Clone(c.nodes) }

// Leader returns the index in Nodes of the node that leads.
func (c *Cluster) Leader() (leader int) {
	c.t.Helper()
	c.await("leader", func(ctx context.Context) error {
		st, err := c.client.Status(ctx, "")
		if err != nil {
			return err
		}
		for i, n := range c.nodes {
			if n.ID() == st.Leader && !c.stopped[i] {
				leader = i
				return nil
			}
		}
		return fmt.Errorf("the leader is %q", st.Leader)
	})
	return leader
}

// StopLeader stops the node that leads, waits until another one leads, and
// returns the index of the stopped node. It needs three nodes, all running.
func (c *Cluster) StopLeader() int {
	c.t.Helper()
	if len(c.nodes) < 3 || slices.Contains(c.stopped, true) {
		c.t.Fatalf("registrytest: StopLeader: %d nodes, stopped: %v; want 3 that run", len(c.nodes), c.stopped)
	}
	leader := c.Leader()
	c.Stop(leader)
	c.Leader()
	return leader
}

// Stop stops the node at that index in order, as SIGTERM does: it hands
// leadership over, and answers the calls that it has.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	if c.stopped[i] {
		c.t.Fatalf("registrytest: Stop: %s does not run", c.nodes[i].ID())
	}
	c.stopped[i] = true
	c.check("Stop", c.nodes[i].Close())
}

// Restart starts nodes that were stopped, at once, with their data and at their
// addresses, and waits until they are ready: after that, most nodes must run. It
// fails if another program has taken a port meanwhile.
func (c *Cluster) Restart(nodes ...int) {
	c.t.Helper()
	for n, i := range nodes {
		if !c.stopped[i] || slices.Contains(nodes[:n], i) {
			c.t.Fatalf("registrytest: Restart: %s runs, or is named twice", c.nodes[i].ID())
		}
	}
	c.start(nodes...)
}

// WaitIndex waits until every node that runs has applied the log up to that
// index, of a receipt for instance: then any of them answers with it.
func (c *Cluster) WaitIndex(index uint64) {
	c.t.Helper()
	for i, n := range c.nodes {
		if c.stopped[i] {
			continue
		}
		if err := c.waitIndex(n.Addr(), index); err != nil {
			c.t.Fatalf("registrytest: WaitIndex: %s at index %d: %v", n.ID(), index, err)
		}
	}
}

func (c *Cluster) waitIndex(addr string, index uint64) error {
	ctx, cancel := c.context()
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, registrypb.AuthorizationHeader, "Bearer "+c.token)
	}
	_, err = registrypb.NewRegistryClient(conn).Index(ctx, &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: index}})
	return err
}

// awaitVoters waits until all nodes are voters and know each other, so that from then
// on the log moves on the test's account.
func (c *Cluster) awaitVoters() {
	c.t.Helper()
	c.await("voters", func(ctx context.Context) error {
		st, err := c.client.Status(ctx, "")
		if err != nil {
			return err
		}
		voters := 0
		for _, n := range st.Nodes {
			if n.Voter && n.Ready && n.Addr != "" && n.AppliedIndex == st.Nodes[0].CommitIndex {
				voters++
			}
		}
		if voters < len(c.nodes) || st.Leader == "" {
			return fmt.Errorf("%d of %d nodes, leader %q", voters, len(c.nodes), st.Leader)
		}
		return nil
	})
}

// context bounds a helper by Patience. It is not the test's, which has ended when
// its cleanups run: they may use helpers too.
func (c *Cluster) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

func (c *Cluster) check(helper string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("registrytest: %s: %v", helper, err)
	}
}

// await tries until f returns nil.
func (c *Cluster) await(what string, f func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("registrytest: no %s within %v: %v", what, Patience, err)
		}
	}
}
