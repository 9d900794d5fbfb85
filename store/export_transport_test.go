package store

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/rafttransport"
)

// HeartbeatHandlers are the handlers of heartbeats that the tests compare.
var HeartbeatHandlers = map[string]func(*Config){
	"own": func(*Config) {},
	// Every heartbeat waits for raft's main loop.
	"channel": func(c *Config) {
		c.heartbeats = func(t *rafttransport.Transport, _ func(raft.RPC)) func(raft.RPC) {
			return func(rpc raft.RPC) { t.Pass(rpc) }
		}
	},
	// Raft's handler for all.
	"unguarded": func(c *Config) {
		c.heartbeats = func(_ *rafttransport.Transport, rafts func(raft.RPC)) func(raft.RPC) { return rafts }
	},
	// Raft's handler for those of the current term, while the node follows.
	"guarded": func(c *Config) { c.heartbeats = guarded(func() {}) },
}

// GuardedHeartbeats runs between after the check and before raft's handler.
func GuardedHeartbeats(c *Config, between func()) { c.heartbeats = guarded(between) }

func guarded(between func()) func(*rafttransport.Transport, func(raft.RPC)) func(raft.RPC) {
	return func(t *rafttransport.Transport, rafts func(raft.RPC)) func(raft.RPC) {
		return func(rpc raft.RPC) {
			if t.Answer(rpc.Command) == nil {
				t.Pass(rpc)
				return
			}
			between()
			rafts(rpc)
		}
	}
}

// WrapStable injects a fault into the store of terms and votes.
func WrapStable(cfg *Config, wrap func(raft.StableStore) raft.StableStore) { cfg.wrapStable = wrap }

// Caller returns a raft transport that uses a cluster's id.
func Caller(cluster string, dial func(context.Context, string) (net.Conn, error)) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  rafttransport.NewStreams(rafttransport.StreamsConfig{Listener: noListener{}, Dial: dial, ClusterID: func() string { return cluster }}),
		Timeout: time.Minute, MaxPool: 1, MsgpackUseNewTimeFormat: true, Logger: hclog.NewNullLogger(),
	})
}

// MaxStreams bounds the raft connections of a node.
const MaxStreams = rafttransport.MaxStreams

// noListener accepts nothing.
type noListener struct{ net.Listener }

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }
