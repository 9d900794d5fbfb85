package rafttransport

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/portmux"
)

// Streams is the raft.StreamLayer of a node. Its address is the advertised name, which
// is resolved at every dial: a container may come back with another IP address.
//
// A connection starts with the caller's cluster id, and only calls of the own cluster
// are accepted. So a node without a cluster, because it is new or was wiped and lost
// its votes, neither votes nor follows before it has joined; and clusters with
// mistaken addresses do not mix.
type Streams struct {
	cfg StreamsConfig

	handshakes
	open context.Context // ends with Close
	end  context.CancelFunc
}

// StreamsConfig configures the connections of raft.
type StreamsConfig struct {
	Listener  net.Listener
	Advertise string // the node's own address, which may be a name
	Dial      func(ctx context.Context, address string) (net.Conn, error)
	// ClusterID returns the own cluster's id, of ClusterIDSize bytes; empty: none yet.
	ClusterID func() string
	// Foreign is called for connections from another cluster.
	Foreign func(clusterID string)
	// Failed is closed when the node has failed; may be nil.
	Failed <-chan struct{}
	// Lost is called when a connection from the own cluster ends; may be nil.
	Lost func()
	// Idle is how long a connection may be silent; 0: five minutes.
	Idle time.Duration
}

// ClusterIDSize is the size of a cluster's id, in bytes.
const ClusterIDSize = 32

func (l *Streams) Addr() net.Addr { return nameAddr(l.cfg.Advertise) }

func (l *Streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	own := l.cfg.ClusterID()
	if len(own) != ClusterIDSize {
		return nil, ErrNoCluster
	}
	ctx, cancel := context.WithTimeout(l.open, timeout)
	defer cancel()
	c, err := l.cfg.Dial(ctx, string(address))
	if err != nil && l.open.Err() != nil {
		return nil, errors.Join(net.ErrClosed, err) // Close ended the dial
	}
	if err != nil {
		return nil, err
	}
	// Raft's Shutdown waits for the answers to its messages, and a node that is cut off
	// gives none before the timeout.
	stop := context.AfterFunc(l.open, func() { _ = portmux.Abort(c) })
	if err := errors.Join(c.SetWriteDeadline(time.Now().Add(timeout)), writeAll(c, own), c.SetWriteDeadline(time.Time{})); err != nil {
		stop()
		return nil, errors.Join(err, c.Close())
	}
	return &outboundConn{Conn: c, failed: l.cfg.Failed, stop: stop}, nil
}

// outboundConn sends nothing after the node has failed. Otherwise a leader that hangs in
// a write would continue its heartbeats, and no other node could be elected until
// its process has ended.
type outboundConn struct {
	net.Conn
	failed <-chan struct{}
	stop   func() bool // so that Streams.Close does not end this connection any more
}

// Close is called by raft.
func (c *outboundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (c *outboundConn) Write(p []byte) (int, error) {
	select {
	case <-c.failed:
		return 0, errors.Join(errFailed, c.Close())
	default:
		return c.Conn.Write(p)
	}
}

var errFailed = errors.New("this node has failed")

func writeAll(c net.Conn, s string) error {
	_, err := c.Write([]byte(s))
	return err
}

// ErrNoCluster is the error of a dial before the node belongs to a cluster.
var ErrNoCluster = errors.New("this node belongs to no cluster yet")

// nameAddr is a network address that is not resolved.
type nameAddr string

func (nameAddr) Network() string  { return "tcp" }
func (a nameAddr) String() string { return string(a) }
