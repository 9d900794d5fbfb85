package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/portmux"
)

// Node is a running node. All methods are safe for concurrent use.
type Node struct {
	cfg    Config
	store  *store.Store
	server *rpc.Server
	peers  *rpc.Peers

	metrics *metrics.Node
	tail    *logTail

	audit     *audit.Log
	auditFile *audit.Writer // nil: the audit log goes to the node's

	identity *peertls.Identity // nil: the bind port has no TLS

	bindMux, clientMux *portmux.Mux
	certs              *certs.Source         // of the client port; nil: no TLS
	alarms             []string              // of the configuration
	lost               atomic.Pointer[error] // of a port that no longer accepts connections

	wg        sync.WaitGroup
	stop      context.CancelFunc // ends watch
	done      chan struct{}      // closed when the node ended, by itself or by Close
	closeOnce sync.Once
	closeErr  error
	failure   error // set before done is closed
}

// Connections each port holds at a time, and the share of them that one source may
// have: enough for all clients behind one translated address.
const (
	maxNodeConns   = 4096
	maxClientConns = 65536
	sourceShare    = 4 // a quarter
)

// Start starts a node and brings it into a cluster: it restarts with the state
// in its data directory, or forms a new cluster, or joins one. It returns when
// that is done; Ready tells when the node answers. When ctx ends before, or on
// an error, everything that was started is stopped again.
func Start(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(context.Background())
	tail := new(logTail)
	cfg.Logger = tail.with(cfg.Logger)
	n := &Node{cfg: cfg, stop: stop, done: make(chan struct{}), metrics: metrics.New(), tail: tail}
	defer func() {
		if err != nil {
			_ = n.Close() // the error to report is err
		}
	}()
	if err := n.open(watch); err != nil {
		return nil, err
	}
	if err := n.form(ctx); err != nil {
		return nil, err
	}
	n.wg.Go(func() { n.watch(watch) })
	return n, nil
}

// open listens, opens the store and serves. Until watch ends it follows the files of
// secrets and certificates.
func (n *Node) open(watch context.Context) error {
	if err := n.openAudit(); err != nil {
		return err
	}
	if err := n.openIdentity(watch); err != nil {
		return err
	}
	n.peers = rpc.NewPeers(n.identity, n.cfg.peerOptions()...)
	bindLn, err := listen("-bind", n.cfg.Bind)
	if err != nil {
		return err
	}
	n.bindMux = n.newBindMux(bindLn)
	clientLn, err := listen("-addr", n.cfg.Addr)
	if err != nil {
		return err
	}
	n.clientMux = portmux.New(clientLn, maxClientConns)
	if err := n.clientTLS(watch); err != nil {
		return err
	}
	n.notePlainPort("-bind", bindLn, n.identity != nil, "anyone who reaches it can take the cluster over; set -secret-file")
	n.notePlainPort("-addr", clientLn, n.cfg.Cert != "", "anyone on the way can read and change what clients say; set -cert and -key")
	bind, err := advertised("-bind-advertise", n.cfg.BindAdvertise, bindLn, n.cfg.Bind, thisMachine)
	if err != nil {
		return err
	}
	addr, err := advertised("-advertise", n.cfg.Advertise, clientLn, n.cfg.Addr, thisMachine)
	if err != nil {
		return err
	}
	n.noteName(addr)
	n.countConns()
	raftLn := n.bindMux.Route(rpc.RaftProtocol)
	nodesLn := n.bindMux.Route(rpc.GRPCProtocol)
	n.store, err = store.Open(store.Config{
		ID: n.cfg.ID, Cluster: n.cfg.Cluster, BindAdvertise: bind, Addr: addr, Version: n.cfg.Version, Zone: n.cfg.Zone,
		DataDir: n.cfg.DataDir, LogStore: n.cfg.LogStore, Listener: raftLn, DialRaft: n.peers.DialRaft, Peers: n.peers,
		ElectionTimeout: n.cfg.ElectionTimeout, SnapshotThreshold: n.cfg.SnapshotThreshold, SnapshotInterval: n.cfg.SnapshotInterval,
		MinFreeDisk: n.cfg.MinFreeDisk, RingMemory: n.cfg.RingMemory, Logger: n.cfg.Logger,
		Instruments: n.metrics.Instruments(), Alarms: n.conditions, Restore: n.cfg.Restore, Nonvoter: n.cfg.ReadReplica, StaleOnStart: n.cfg.ServeStaleOnStart,
		RemoveDeadAfter: n.cfg.RemoveDeadAfter, MinVoters: n.cfg.MinVoters, DeleteEmptyAfter: n.cfg.DeleteEmptyAfter,
		Removed: func(id string, err error) { rpc.AuditRemoval(n.audit, id, err) },
	})
	if err != nil {
		return err
	}
	gatherer, err := n.registerMetrics()
	if err != nil {
		return err
	}
	n.server, err = rpc.New(rpc.Config{Store: n.store, Peers: n.peers, Logger: n.cfg.Logger, Metrics: n.metrics, Gatherer: gatherer, Limits: n.cfg.limits, Audit: n.audit, TracerProvider: n.cfg.TracerProvider,
		Diagnosis: rpc.Diagnosis{Settings: n.cfg.Settings, Log: n.tail.text}})
	if err != nil {
		return err
	}
	n.server.ServeNodes(nodesLn)
	n.server.ServeClients(n.clientMux.Route(rpc.GRPCProtocol), n.clientMux.Fallback())
	n.wg.Go(func() { n.serveMux("-bind", n.bindMux) })
	n.wg.Go(func() { n.serveMux("-addr", n.clientMux) })
	n.cfg.Logger.Info("listening", "id", n.cfg.ID, "bind", bind, "addr", addr, "data", n.cfg.DataDir)
	return nil
}

// openIdentity reads the files for the bind port, and follows them.
func (n *Node) openIdentity(watch context.Context) error {
	if !n.cfg.locked() {
		return nil
	}
	var err error
	if n.identity, err = n.cfg.peerIdentity(n.metrics.Peers.Refused, n.metrics.Peers.Unusable.Inc); err != nil {
		return err
	}
	if files := n.identity.Files(); files != nil {
		n.metrics.Ports.Certificates(files, "peer-cert", "peer-ca")
	}
	n.wg.Go(func() { n.identity.Follow(watch) })
	return nil
}

func (n *Node) newBindMux(ln net.Listener) *portmux.Mux {
	if n.identity == nil {
		m := portmux.New(ln, maxNodeConns)
		m.WithTLS(peertls.Unlocked(n.cfg.Logger, n.metrics.Peers.Refused))
		return m
	}
	m := portmux.New(n.identity.Listen(ln), maxNodeConns)
	lock := n.identity.Server()
	if n.auditFile != nil { // otherwise the log has a line already
		lock = n.audited("bind", lock)
	}
	m.TLS(lock)
	return m
}

// countConns bounds the connections of each source, and counts all.
func (n *Node) countConns() {
	n.bindMux.PerSource(maxNodeConns / sourceShare)
	n.clientMux.PerSource(maxClientConns / sourceShare)
	n.metrics.Conns.Add(metrics.NodePort, n.bindMux.Stats)
	n.metrics.Conns.Add(metrics.ClientPort, n.clientMux.Stats)
}

// Reload reads the secret and certificate files again, as the node does by itself
// within a second after they have changed, and opens the file of the audit log again.
func (n *Node) Reload() {
	if n.auditFile != nil {
		n.auditFile.Reopen()
	}
	if n.identity != nil {
		n.identity.Reload()
	}
	if n.certs != nil {
		n.certs.Reload()
	}
}

// registerMetrics registers the node's metrics and returns what /metrics serves.
func (n *Node) registerMetrics() (prometheus.Gatherer, error) {
	to := n.cfg.Registerer
	if to == nil {
		private := prometheus.NewRegistry()
		private.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		to = private
	}
	gatherer, _ := to.(prometheus.Gatherer)
	return gatherer, n.metrics.Register(to, n.store)
}

func listen(flag, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
	}
	return ln, nil
}

func (n *Node) serveMux(flag string, m *portmux.Mux) {
	if err := m.Serve(); err != nil {
		n.cfg.Logger.Error("port lost", "flag", flag, "error", err)
		err = fmt.Errorf("%s: %w", flag, err)
		n.lost.Store(&err)
	}
}

// form brings the node into a cluster, unless it fails meanwhile.
func (n *Node) form(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finished := make(chan struct{})
	defer close(finished)
	n.wg.Go(func() {
		select {
		case <-n.store.Failed():
			cancel(n.store.Failure())
		case <-finished:
		}
	})
	return n.store.Form(ctx, store.Formation{
		Peers: n.cfg.Registries, Expect: n.cfg.BootstrapExpect, Wait: n.cfg.Wait, JoinTimeout: n.cfg.JoinTimeout,
	})
}

// watch ends the node when its storage fails.
func (n *Node) watch(ctx context.Context) {
	select {
	case <-n.store.Failed():
		n.failure = n.store.Failure()
		close(n.done)
	case <-ctx.Done():
	}
}

// ID is the node's name.
func (n *Node) ID() string { return n.cfg.ID }

// Addr is where clients reach the node.
func (n *Node) Addr() string { return n.store.ClientAddr() }

// BindAddr is where other nodes reach the node.
func (n *Node) BindAddr() string { return n.store.Self().Bind }

// Ready is closed when the node has caught up with the cluster and answers.
func (n *Node) Ready() <-chan struct{} { return n.store.Ready() }

// Alive returns nil while the node works, ready or not, and while both ports accept
// connections; a port at its limit is alive. GET /livez says the same on a connection. It
// does not return if a lock of the node is never released.
func (n *Node) Alive() error {
	if lost := n.lost.Load(); lost != nil {
		return *lost
	}
	return n.store.Alive()
}

// ErrLeft is the end of a node that was asked to leave its cluster, and has left it:
// [Node.Err]. Its data directory cannot rejoin.
var ErrLeft = store.ErrLeft

// Done is closed when the node cannot go on or was closed.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err says why a node that was not closed is done; nil otherwise.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.failure
	default:
		return nil
	}
}

// drainTime is how long Close lets calls under way finish.
const drainTime = 2 * time.Second

// Close stops the node: (1) leadership goes to another node, so that the
// cluster loses no time; (2) clients' calls that are under way are answered,
// new ones go elsewhere; (3) the client port closes; (4) the servers stop;
// (5) the store stops, while its peers can still be reached; (6) the bind port
// and the connections to peers close; (7) the audit log closes. It goes on past errors
// and joins them.
// It is safe to call more than once.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		var errs []error
		n.stop()
		n.metrics.Close()
		if n.store != nil {
			n.store.HandOver() // 1
		}
		if n.server != nil {
			n.server.Drain(drainTime) // 2
		}
		if n.clientMux != nil {
			errs = append(errs, n.clientMux.Close()) // 3
		}
		if n.server != nil {
			errs = append(errs, n.server.Close()) // 4
		}
		if n.store != nil {
			errs = append(errs, n.store.Close()) // 5
		}
		if n.bindMux != nil {
			errs = append(errs, n.bindMux.Close()) // 6
		}
		if n.peers != nil {
			errs = append(errs, n.peers.Close())
		}
		n.wg.Wait()
		errs = append(errs, n.closeAudit()) // 7
		select {
		case <-n.done:
		default:
			close(n.done)
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}
