package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/portmux"
)

// RaftProtocol is that of raft's connections on the bind port. Without TLS they start
// with a byte of their own.
var RaftProtocol = portmux.Protocol{Prefix: "R", Strip: true, ALPN: "registry-raft"}

// GRPCProtocol is that of gRPC connections: no HTTP/1.1 method starts like HTTP/2's
// preface.
var GRPCProtocol = portmux.Protocol{Prefix: "PRI ", ALPN: "h2"}

// Peers calls other nodes on their bind ports, over one connection to each. It
// implements store.Peers.
type Peers struct {
	identity *peertls.Identity // nil: connections without TLS
	options  []grpc.DialOption

	mu     sync.Mutex // guards the rest
	conns  map[string]*grpc.ClientConn
	closed bool
}

var _ store.Peers = (*Peers)(nil)

// NewPeers returns Peers without connections; it connects when needed, with TLS if
// there is an identity. The options are added to those of its connections.
func NewPeers(identity *peertls.Identity, options ...grpc.DialOption) *Peers {
	return &Peers{identity: identity, options: options, conns: make(map[string]*grpc.ClientConn)}
}

// DialRaft opens a raft connection. It resolves the name at each call.
func (p *Peers) DialRaft(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if p.identity != nil {
		out, err := p.identity.Client(ctx, c, RaftProtocol.ALPN)
		if err != nil { // not out: it would be no nil
			return nil, fmt.Errorf("node %s: %w", address, err)
		}
		return out, nil
	}
	if _, err := c.Write([]byte(RaftProtocol.Prefix)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the connections.
func (p *Peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.conns {
		errs = append(errs, c.Close())
	}
	clear(p.conns)
	return errors.Join(errs...)
}

func (p *Peers) conn(bind string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, store.ErrClosed
	}
	if c := p.conns[bind]; c != nil {
		return c, nil
	}
	c, err := p.dialNode(bind)
	if err != nil {
		return nil, err
	}
	p.conns[bind] = c
	return c, nil
}

// dialNode returns a new connection, which resolves the name at each dial. It uses no
// proxy.
func (p *Peers) dialNode(bind string) (*grpc.ClientConn, error) {
	creds := certs.NewCredentials(nil, nil)
	if p.identity != nil {
		creds = p.identity.Credentials()
	}
	c, err := grpc.NewClient("passthrough:///"+bind, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy()}, p.options...)...)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", bind, err)
	}
	return c, nil
}

func (p *Peers) client(bind string) (peerpb.PeerClient, error) {
	c, err := p.conn(bind)
	if err != nil {
		return nil, err
	}
	return peerpb.NewPeerClient(c), nil
}

// Hello implements store.Peers.
func (p *Peers) Hello(ctx context.Context, bind string) (store.Hello, error) {
	c, err := p.client(bind)
	if err != nil {
		return store.Hello{}, err
	}
	return p.hello(ctx, c, bind)
}

func (p *Peers) hello(ctx context.Context, c peerpb.PeerClient, bind string) (store.Hello, error) {
	var to peer.Peer
	h, err := c.Hello(ctx, &peerpb.HelloRequest{}, grpc.Peer(&to))
	if err == nil {
		err = p.isNode(&to, h.Id)
	}
	if err != nil {
		return store.Hello{}, fmt.Errorf("hello to %s: %w", bind, notANode(bind, err))
	}
	out := store.Hello{
		Cluster: h.Cluster, ID: h.Id, Bind: h.Bind, Addr: h.Addr, Version: h.Version,
		Incarnation: h.Incarnation, HasState: h.HasState, Leader: h.Leader, ClusterID: h.ClusterId,
		RecoveredFrom: h.RecoveredFrom, FeatureLevel: h.FeatureLevel, DataLevel: h.DataLevel,
	}
	for _, f := range h.Founders {
		out.Founders = append(out.Founders, store.Founder{ID: f.Id, Bind: f.Bind, Addr: f.Addr, Version: f.Version, Incarnation: f.Incarnation})
	}
	return out, nil
}

// isNode checks that the other end of a connection is the node of that id, by its
// certificate. Without TLS there is nothing to check.
func (p *Peers) isNode(end *peer.Peer, id string) error {
	if p.identity == nil {
		return nil
	}
	if err := p.identity.Check(end, id); err != nil {
		return fmt.Errorf("%w: %w", store.ErrMembership, err)
	}
	return nil
}

// Term implements store.Peers.
func (p *Peers) Term(ctx context.Context, node store.Target) (uint64, error) {
	c, err := p.client(node.Bind)
	if err != nil {
		return 0, err
	}
	r, err := c.Term(ctx, &peerpb.TermRequest{Id: node.ID, ClusterId: node.ClusterID})
	return r.GetTerm(), err
}

// ReadIndex implements store.Peers.
func (p *Peers) ReadIndex(ctx context.Context, leader store.Target) (uint64, error) {
	c, err := p.client(leader.Bind)
	if err != nil {
		return 0, err
	}
	r, err := c.ReadIndex(ctx, &peerpb.ReadIndexRequest{Id: leader.ID, ClusterId: leader.ClusterID})
	return r.GetIndex(), fromPeer(err)
}

// Applied implements store.Peers.
func (p *Peers) Applied(ctx context.Context, node store.Target) (uint64, error) {
	c, err := p.client(node.Bind)
	if err != nil {
		return 0, err
	}
	r, err := c.Status(ctx, &peerpb.StatusRequest{})
	if err == nil && r.GetNode().GetId() != node.ID {
		err = &peerError{is: store.ErrMembership, msg: fmt.Sprintf("node %q answers at %s, not %q", r.GetNode().GetId(), node.Bind, node.ID)}
	}
	return r.GetNode().GetAppliedIndex(), err
}

// LowDisk implements store.Peers.
func (p *Peers) LowDisk(ctx context.Context, node store.Target) (bool, error) {
	c, err := p.client(node.Bind)
	if err != nil {
		return false, err
	}
	r, err := c.Status(ctx, &peerpb.StatusRequest{})
	return r.GetLowDisk() && r.GetNode().GetId() == node.ID, err
}

// Check implements store.Peers.
func (p *Peers) Check(ctx context.Context, node store.Target, req store.CheckRequest) (store.CheckResponse, error) {
	c, err := p.client(node.Bind)
	if err != nil {
		return store.CheckResponse{}, err
	}
	r, err := c.Check(ctx, &peerpb.CheckRequest{Id: node.ID, ClusterId: node.ClusterID, Index: req.Index, Rings: ringsToWire(req.Rings)})
	if err != nil {
		return store.CheckResponse{}, fromPeer(err)
	}
	return store.CheckResponse{Version: r.DigestVersion, Known: r.Known, Digest: r.Digest, Rings: ringsFromWire(r.Rings)}, nil
}

func ringsToWire(rings []store.RingDigest) []*peerpb.GroupRing {
	out := make([]*peerpb.GroupRing, len(rings))
	for i, r := range rings {
		out[i] = &peerpb.GroupRing{Group: r.Group, Fingerprint: r.Fingerprint, Digest: r.Digest}
	}
	return out
}

func ringsFromWire(rings []*peerpb.GroupRing) []store.RingDigest {
	out := make([]store.RingDigest, len(rings))
	for i, r := range rings {
		out[i] = store.RingDigest{Group: r.GetGroup(), Fingerprint: r.GetFingerprint(), Digest: r.GetDigest()}
	}
	return out
}

// State implements store.Peers.
func (p *Peers) State(ctx context.Context, node store.Target, atLeast uint64) (io.ReadCloser, error) {
	c, err := p.client(node.Bind)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.State(ctx, &peerpb.StateRequest{Id: node.ID, ClusterId: node.ClusterID, MinIndex: atLeast})
	if err != nil {
		cancel()
		return nil, fromPeer(err)
	}
	return &stateReader{stream: stream, cancel: cancel}, nil
}

// stateReader reads the chunks of a stream.
type stateReader struct {
	stream grpc.ServerStreamingClient[peerpb.StateResponse]
	cancel context.CancelFunc
	left   []byte
}

func (r *stateReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at its end
		}
		r.left = m.GetData()
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *stateReader) Close() error {
	r.cancel()
	return nil
}

// Join implements store.Peers.
func (p *Peers) Join(ctx context.Context, bind string, n store.Hello) (string, error) {
	c, err := p.client(bind)
	if err != nil {
		return "", err
	}
	r, err := c.Join(ctx, &peerpb.JoinRequest{
		Cluster: n.Cluster, Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version,
		Incarnation: n.Incarnation, Nonvoter: n.Nonvoter, Zone: n.Zone, HasState: n.HasState,
		ClusterId: n.ClusterID, FeatureLevel: n.FeatureLevel,
	})
	return r.GetClusterId(), fromPeer(notANode(bind, err))
}

// notANode explains the error of a port that is not for nodes.
func notANode(bind string, err error) error {
	if status.Code(err) != codes.Unimplemented {
		return err
	}
	return &peerError{is: store.ErrMembership, msg: fmt.Sprintf(
		"%v: %s is an address for clients (-addr); -registries of a node names bind addresses (-bind) of other nodes", store.ErrMembership, bind)}
}
