package rafttransport

import (
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Streams carries raft's connections: a raft.StreamLayer. Its address is the advertised name,
// and a name is resolved at every dial: a container may come back elsewhere.
//
// A connection starts with the id of the cluster that the caller belongs to,
// and only calls of the own cluster are answered. So a node that belongs to
// none, because it is new or because it was wiped and forgot its votes,
// neither votes nor follows before it was taken in; and clusters that meet by a
// mistake in their addresses do not mix.
type Streams struct {
	cfg StreamsConfig

	handshakes
}

// StreamsConfig says where raft's connections come from and go to.
type StreamsConfig struct {
	Listener  net.Listener
	Advertise string // the node's own address, which may be a name
	Dial      func(address string, timeout time.Duration) (net.Conn, error)
	// ClusterID is the own cluster's id, of ClusterIDSize bytes; empty: none yet.
	ClusterID func() string
	// Foreign is told of calls of another cluster.
	Foreign func(clusterID string)
	// Failed is closed when the node has failed; nil: it never does.
	Failed <-chan struct{}
	// Lost is told when a connection of the own cluster ends; may be nil.
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
	c, err := l.cfg.Dial(string(address), timeout)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.SetWriteDeadline(time.Now().Add(timeout)), writeAll(c, own), c.SetWriteDeadline(time.Time{})); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &callingConn{Conn: c, failed: l.cfg.Failed}, nil
}

// callingConn sends nothing any more when the node has failed. A leader that
// hangs in a write would otherwise go on with its heartbeats, and nobody would
// take over from it until its process is gone.
type callingConn struct {
	net.Conn
	failed <-chan struct{}
}

func (c *callingConn) Write(p []byte) (int, error) {
	select {
	case <-c.failed:
		return 0, errors.Join(errFailed, c.Close())
	default:
		return c.Conn.Write(p)
	}
}

var errFailed = errors.New("this node has failed and ends")

func writeAll(c net.Conn, s string) error {
	_, err := c.Write([]byte(s))
	return err
}

// ErrNoCluster is what a dial returns before the node belongs to a cluster.
var ErrNoCluster = errors.New("this node belongs to no cluster yet")

// nameAddr is a network address that stays a name.
type nameAddr string

func (nameAddr) Network() string  { return "tcp" }
func (a nameAddr) String() string { return string(a) }
