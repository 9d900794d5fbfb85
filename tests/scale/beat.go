package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/systems"
)

const (
	ttl     = 10 * time.Second // of those that beat
	clients = 100              // that they belong to
	// concurrent registrations of a client: they go together in calls.
	together = 1000
	// patience is how long to wait for the heartbeats after the loss of the leader: a
	// lease that is not renewed expires sooner.
	patience = 6 * ttl
)

// services are clients whose leases beat.
type services struct {
	clients []*sdk.Client
	leases  int
	beats   beats
}

// startServices lets clients of the SDK take the first members over, with a TTL of 10 s.
// They begin one after the other, as services do, and keep the leases by heartbeats.
func startServices(ctx context.Context, nodes *systems.Registry, of size) (*services, error) {
	s := &services{leases: of.beat}
	target := nodes.Target()
	each := (of.beat + clients - 1) / clients
	for from := 0; from < of.beat; from += each {
		client, err := sdk.Dial(target, sdk.WithCloseTimeout(time.Millisecond), sdk.WithDialOptions(grpc.WithChainStreamInterceptor(s.beats.intercept)))
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, client)
		calls, ctx := errgroup.WithContext(ctx)
		calls.SetLimit(together)
		for i := from; i < min(from+each, of.beat); i++ {
			calls.Go(func() error {
				m := registration(i, i%of.groups)
				_, err := client.Register(ctx, sdk.Service{Group: m.Group, ID: m.Id, Addr: m.Addr, Meta: m.Meta, TTL: ttl})
				return err
			})
		}
		if err := calls.Wait(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// close ends the clients. The leases end with the nodes.
func (s *services) close() {
	var all sync.WaitGroup
	for _, c := range s.clients {
		all.Go(func() { _ = c.Close() }) // its leases need not be given back
	}
	all.Wait()
}

// processorShare is the share of a processor that the leader takes while the leases beat.
func (s *services) processorShare(ctx context.Context, nodes *systems.Registry, leader int) (float64, error) {
	before, err := nodes.ProcessorTime(leader)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(beating):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := nodes.ProcessorTime(leader)
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// loseLeader kills the leader and returns when every lease was renewed by a heartbeat
// that was sent after that.
func (s *services) loseLeader(ctx context.Context, nodes *systems.Registry, leader int) (time.Duration, error) {
	all := s.beats.count(s.leases)
	began := time.Now()
	nodes.Kill(leader)
	select {
	case <-all:
	case <-time.After(patience):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	took := time.Since(began)
	renewed, lost := s.beats.counted()
	switch {
	case lost > 0:
		return 0, fmt.Errorf("%d of %d leases were lost", lost, s.leases)
	case renewed < s.leases:
		return 0, fmt.Errorf("%d of %d leases were renewed within %v", renewed, s.leases, patience)
	}
	return took, nil
}

// beats looks at the heartbeats of all clients.
type beats struct {
	mu      sync.Mutex // guards the rest
	since   time.Time
	want    int
	renewed map[uint64]bool // by heartbeats sent since then
	lost    int             // at any time
	all     chan struct{}   // closed when as many as wanted are
}

// count begins to count. The channel is closed when so many leases were renewed, or one
// was lost.
func (b *beats) count(leases int) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since, b.want, b.renewed, b.all = time.Now(), leases, make(map[uint64]bool, leases), make(chan struct{})
	return b.all
}

func (b *beats) counted() (renewed, lost int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.renewed), b.lost
}

func (b *beats) answered(m message, lost int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost += lost
	if b.all == nil {
		return
	}
	if lost == 0 && m.sent.After(b.since) {
		for _, id := range m.leases {
			b.renewed[id] = true
		}
	}
	if b.lost > 0 || len(b.renewed) >= b.want {
		close(b.all)
		b.all = nil
	}
}

// intercept looks at the messages of heartbeat streams.
func (b *beats) intercept(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil || method != registrypb.Registry_HeartbeatStream_FullMethodName {
		return stream, err
	}
	return &beatStream{ClientStream: stream, beats: b}, nil
}

type beatStream struct {
	grpc.ClientStream
	beats *beats

	mu   sync.Mutex // guards sent
	sent []message  // not answered yet; answers come in their order
}

type message struct {
	sent   time.Time
	leases []uint64
}

func (s *beatStream) SendMsg(m any) error {
	if req, ok := m.(*registrypb.HeartbeatRequest); ok {
		s.mu.Lock()
		s.sent = append(s.sent, message{time.Now(), req.LeaseIds})
		s.mu.Unlock()
	}
	return s.ClientStream.SendMsg(m)
}

func (s *beatStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	resp, ok := m.(*registrypb.HeartbeatResponse)
	if !ok {
		return nil
	}
	s.mu.Lock()
	if len(s.sent) == 0 {
		s.mu.Unlock()
		return errors.New("an answer without a heartbeat")
	}
	answered := s.sent[0]
	s.sent = s.sent[1:]
	s.mu.Unlock()
	s.beats.answered(answered, len(resp.Lost))
	return nil
}
