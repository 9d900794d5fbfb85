package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// herd is many members with real leases. Each of its streams is what one
// client process has: it carries the heartbeats of a thousand members, and when
// it stops, all of them are dead at once.
type herd struct {
	t       *testing.T
	ttl     time.Duration
	members []herdMember
	streams []*herdStream
	lost    atomic.Int64 // leases that a heartbeat was told are lost
}

type herdMember struct {
	group, id string
	lease     uint64
}

type herdStream struct {
	from, to int // indexes of members
	stop     context.CancelFunc
	done     chan struct{}
	last     atomic.Int64 // Unix nanoseconds at which the last answered heartbeat was sent
	err      error        // set before done is closed
}

// perStream is a batch: as many leases as one request may carry.
const perStream = 1000

// newHerd registers members, spread over groups and over the nodes, and begins
// to beat for every thousand as soon as they are registered.
func newHerd(t *testing.T, c *cluster, groups, members int, ttl time.Duration) *herd {
	t.Helper()
	h := &herd{t: t, ttl: ttl, members: make([]herdMember, members)}
	conns := make([]*grpc.ClientConn, len(c.nodes))
	for i, n := range c.nodes {
		conns[i] = connect(t, n.addr)
	}
	for i := range h.members {
		h.members[i] = herdMember{group: fmt.Sprintf("herd-%d", i%groups), id: fmt.Sprintf("member-%06d", i)}
	}
	for from := 0; from < members; from += perStream {
		to := min(from+perStream, members)
		h.register(conns, from, to)
		h.streams = append(h.streams, h.beat(conns[from/perStream%len(conns)], from, to))
	}
	t.Cleanup(func() { h.kill(0, len(h.streams)) })
	return h
}

// register registers members from to to, 256 at a time. What a busy machine
// leaves undone or unknown is done again: a registration is idempotent.
func (h *herd) register(conns []*grpc.ClientConn, from, to int) {
	h.t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	const callers = 256
	for caller := range callers {
		wg.Go(func() {
			for i := from + caller; i < to; i += callers {
				if err := h.registerOne(conns, i); err != nil {
					select {
					case errs <- err:
					default:
					}
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		h.t.Fatalf("register: %v", err)
	default:
	}
}

func (h *herd) registerOne(conns []*grpc.ClientConn, i int) error {
	m := &h.members[i]
	req := &registrypb.RegisterRequest{
		Group: m.group, Id: m.id, Addr: fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255),
		Ttl: durationpb.New(h.ttl), Instance: []byte(m.id),
	}
	for attempt := 0; ; attempt++ {
		resp, err := registrypb.NewRegistryClient(conns[(i+attempt)%len(conns)]).Register(h.t.Context(), req)
		if err == nil {
			m.lease = resp.LeaseId
			return nil
		}
		if code := status.Code(err); attempt == 5 || code != codes.Unavailable && code != codes.Unknown {
			return err
		}
	}
}

// beat opens a stream that renews the members' leases three times a TTL.
func (h *herd) beat(conn *grpc.ClientConn, from, to int) *herdStream {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	s := &herdStream{from: from, to: to, stop: cancel, done: make(chan struct{})}
	stream, err := registrypb.NewRegistryClient(conn).HeartbeatStream(ctx)
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	ids := make([]uint64, 0, to-from)
	for _, m := range h.members[from:to] {
		ids = append(ids, m.lease)
	}
	go func() {
		defer close(s.done)
		defer cancel()
		tick := time.NewTicker(h.ttl / 3)
		defer tick.Stop()
		for ctx.Err() == nil {
			sent := time.Now()
			if s.err = h.once(stream, ids); s.err != nil {
				return
			}
			s.last.Store(sent.UnixNano())
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return s
}

func (h *herd) once(stream grpc.BidiStreamingClient[registrypb.HeartbeatRequest, registrypb.HeartbeatResponse], ids []uint64) error {
	if err := stream.Send(&registrypb.HeartbeatRequest{LeaseIds: ids}); err != nil {
		return err
	}
	resp, err := stream.Recv()
	h.lost.Add(int64(len(resp.GetLost())))
	return err
}

// kill ends streams from to to at once, and returns when that was.
func (h *herd) kill(from, to int) time.Time {
	for _, s := range h.streams[from:to] {
		s.stop()
	}
	at := time.Now()
	for _, s := range h.streams[from:to] {
		<-s.done
	}
	return at
}

// beating fails the test when a stream that was not killed has ended.
func (h *herd) beating(from int) {
	h.t.Helper()
	for i, s := range h.streams[from:] {
		select {
		case <-s.done:
			h.t.Errorf("stream %d ended: %v", from+i, s.err)
		default:
		}
	}
	if n := h.lost.Load(); n > 0 {
		h.t.Errorf("%d leases that were renewed in time are lost", n)
	}
}

// departed follows a group by a watch and notes who leaves it and when.
type departed struct {
	mu   sync.Mutex // guards gone and size
	gone map[string]time.Time
	size int
	news chan struct{} // holds one
}

func watchDepartures(t *testing.T, n *node, group string) *departed {
	t.Helper()
	d := &departed{gone: make(map[string]time.Time), news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := registrypb.NewRegistryClient(connect(t, n.addr)).Watch(ctx, &registrypb.WatchRequest{
		Target: &registrypb.WatchRequest_Group{Group: group},
	}, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		here := map[string]bool{}
		for {
			e, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch of %s: %v", group, err)
				}
				return
			}
			d.follow(here, e)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

func (d *departed) follow(here map[string]bool, e *registrypb.WatchEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if snap := e.GetSnapshot(); snap != nil {
		next := make(map[string]bool, len(snap.Members))
		for _, m := range snap.Members {
			next[m.Id] = true
		}
		for id := range here {
			if !next[id] {
				d.gone[id] = now
			}
		}
		clear(here)
		for id := range next {
			here[id] = true
		}
	}
	for _, m := range e.GetDelta().GetPut() {
		here[m.Id] = true
	}
	for _, id := range e.GetDelta().GetRemoved() {
		delete(here, id)
		d.gone[id] = now
	}
	d.size = len(here)
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// await waits until that many members are left, and returns when it was.
func (d *departed) await(t *testing.T, left int, within time.Duration) time.Time {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		d.mu.Lock()
		size := d.size
		d.mu.Unlock()
		if size == left {
			return time.Now()
		}
		select {
		case <-d.news:
		case <-deadline.C:
			t.Fatalf("%d members are left after %v, want %d", size, within, left)
		}
	}
}

// check fails the test unless exactly the members from to to went, none of them
// before its TTL after the last heartbeat that was sent for it.
func (d *departed) check(h *herd, from, to int) (first, last time.Time) {
	h.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gone) != (to-from)*perStream {
		h.t.Errorf("%d members went, want %d", len(d.gone), (to-from)*perStream)
	}
	for _, s := range h.streams[from:to] {
		least := time.Unix(0, s.last.Load()).Add(h.ttl)
		for _, m := range h.members[s.from:s.to] {
			at, ok := d.gone[m.id]
			switch {
			case !ok:
				h.t.Errorf("%s, which is dead, is still there", m.id)
				return
			case at.Before(least):
				h.t.Errorf("%s went %v before its TTL had passed", m.id, least.Sub(at))
				return
			}
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
	}
	return first, last
}

// forget begins to note departures anew.
func (d *departed) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.gone)
}

// guardIs waits until a node tells that the guard of a group is in a phase.
func guardIs(t *testing.T, n *node, group string, phase registrypb.GuardResponse_Phase, within time.Duration) *registrypb.GuardResponse {
	t.Helper()
	api := registrypb.NewRegistryClient(connect(t, n.addr))
	var resp *registrypb.GuardResponse
	eventually(t, within, fmt.Sprintf("guard of %s is %s", group, phase), func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if resp, err = api.Guard(ctx, &registrypb.GuardRequest{Group: group}); err == nil && resp.Phase != phase {
			err = errors.New(resp.String())
		}
		return err
	})
	return resp
}

// silentAre waits until the guard counts that many members past their leases.
func silentAre(t *testing.T, n *node, group string, least uint32, within time.Duration) {
	t.Helper()
	api := registrypb.NewRegistryClient(connect(t, n.addr))
	eventually(t, within, fmt.Sprintf("%d silent members", least), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		resp, err := api.Guard(ctx, &registrypb.GuardRequest{Group: group})
		if err == nil && resp.Silent < least {
			err = errors.New(resp.String())
		}
		return err
	})
}

// between counts those that went in that time.
func (d *departed) between(from, to time.Time) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.gone {
		if at.After(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// sizeIs says nil when a group has that many members.
func sizeIs(t *testing.T, n *node, group string, want uint32) error {
	t.Helper()
	sizes, err := sizesOf(t, n)
	if err == nil && sizes[group] != want {
		err = fmt.Errorf("sizes are %v", sizes)
	}
	return err
}

// totalIs says nil when all groups together have that many members.
func totalIs(t *testing.T, n *node, want uint32) error {
	t.Helper()
	sizes, err := sizesOf(t, n)
	total := uint32(0)
	for _, size := range sizes {
		total += size
	}
	if err == nil && total != want {
		err = fmt.Errorf("%d members in all, want %d", total, want)
	}
	return err
}

func sizesOf(t *testing.T, n *node) (map[string]uint32, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	resp, err := registrypb.NewRegistryClient(connect(t, n.addr)).Groups(ctx, &registrypb.GroupsRequest{Read: &registrypb.ReadOptions{Linearizable: true}})
	sizes := make(map[string]uint32)
	for _, g := range resp.GetGroups() {
		sizes[g.Name] = g.Members
	}
	return sizes, err
}

// count is how many went.
func (d *departed) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.gone)
}
