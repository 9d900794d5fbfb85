package registrytest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// childEnv makes the test binary a node: see childNode.
const childEnv = "REGISTRY_TEST_CHILD_DIR"

// nodeStats is what a node in a process of its own says of itself.
type nodeStats struct {
	Addr       string
	Heap       uint64 // in use after a collection
	Stacks     uint64
	Mallocs    uint64
	Goroutines int
	RSS        uint64 // 0 where the system does not say
}

// runChild is a node that writes its figures for every line that it reads.
func runChild(dir string) error {
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir = "n1", "127.0.0.1:0", "127.0.0.1:0", dir
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n, err := registry.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	select {
	case <-n.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s := nodeStats{Addr: n.Addr(), Heap: m.HeapAlloc, Stacks: m.StackInuse, Mallocs: m.Mallocs, Goroutines: runtime.NumGoroutine(), RSS: rss()}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

// rss is this process's resident memory in bytes, as Linux tells it.
func rss() uint64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// childNode is a node of a one-node cluster in a process of its own.
type childNode struct {
	tb  testing.TB
	in  io.WriteCloser
	out *json.Decoder
}

func startChild(tb testing.TB) *childNode {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+tb.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("node: %v", err)
		}
	})
	return &childNode{tb: tb, in: in, out: json.NewDecoder(out)}
}

func (c *childNode) stats() (s nodeStats) {
	c.tb.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.tb.Fatal(err)
	}
	if err := c.out.Decode(&s); err != nil {
		c.tb.Fatal(err)
	}
	return s
}

// rawEvent is an event of which only the kind is looked at, so that thousands
// of watchers in one process cost little beside the node that is measured.
type rawEvent struct{ kind byte }

// Kinds by the number of the event's field.
const (
	rawSnapshot = 7
	rawDelta    = 8
)

type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if e, ok := v.(*rawEvent); ok {
		e.kind = data[0].ReadOnlyData()[0] >> 3
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// stopConn is a connection whose reader can be stopped: what arrives then
// stays in the kernel until its windows are full.
type stopConn struct {
	net.Conn
	stopped *atomic.Bool
	closed  chan struct{}
	once    sync.Once
}

func (c *stopConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.stopped.Load() {
		<-c.closed
	}
	return n, err
}

func (c *stopConn) Close() error {
	c.once.Do(func() {
		select {
		case <-c.closed:
		default:
			close(c.closed)
		}
	})
	return c.Conn.Close()
}

// watchers are many streams of one group.
type watchers struct {
	tb   testing.TB
	ctx  context.Context
	addr string
	wg   sync.WaitGroup

	stopped atomic.Bool    // no sockets of those that stall are read
	seen    atomic.Int64   // deltas taken by those that read
	wake    chan struct{}  // a token after each
	last    []atomic.Int64 // when, Unix nanoseconds, by watcher
}

const streamsOfAConnection = 250

// fixedWindow keeps a client from taking megabytes for a stream that it does
// not read, which it does by default when the connection is fast.
var fixedWindow = grpc.WithStaticStreamWindowSize(64 << 10)

func (w *watchers) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	w.tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+w.addr, append(opts, fixedWindow, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(protocodec.Name)})))...)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open opens a stream and takes its snapshot.
func (w *watchers) open(conn *grpc.ClientConn) grpc.ClientStream {
	w.tb.Helper()
	stream, err := conn.NewStream(w.ctx, &grpc.StreamDesc{ServerStreams: true}, registrypb.Registry_Watch_FullMethodName)
	if err != nil {
		w.tb.Fatal(err)
	}
	req := &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}, ProgressInterval: durationpb.New(time.Hour)}
	if err := stream.SendMsg(req); err != nil {
		w.tb.Fatal(err)
	}
	var e rawEvent
	if err := stream.RecvMsg(&e); err != nil || e.kind != rawSnapshot {
		w.tb.Fatalf("first event: kind %d, %v", e.kind, err)
	}
	return stream
}

// read adds watchers that read; it returns one connection of theirs.
func (w *watchers) read(n int) (conn *grpc.ClientConn) {
	w.last = make([]atomic.Int64, n)
	for i := range n {
		if i%streamsOfAConnection == 0 {
			conn = w.dial()
		}
		stream := w.open(conn)
		w.wg.Go(func() {
			var e rawEvent
			for stream.RecvMsg(&e) == nil {
				if e.kind != rawDelta {
					continue
				}
				w.last[i].Store(time.Now().UnixNano())
				if w.seen.Add(1)%int64(n) == 0 {
					w.wake <- struct{}{}
				}
			}
		})
	}
	return conn
}

// stall adds watchers that read nothing beyond their snapshot: half of them on
// the connection of others that read, half on connections whose sockets are not
// read any more once w.stopped is set.
func (w *watchers) stall(n int, shared *grpc.ClientConn) {
	dialer := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &stopConn{Conn: conn, stopped: &w.stopped, closed: make(chan struct{})}, nil
	})
	for i := range n {
		if i%2 == 0 {
			w.open(shared)
		} else {
			w.open(w.dial(dialer))
		}
	}
}

// change registers a member and returns how long until the watchers had it.
func (w *watchers) change(api registrypb.RegistryClient, id string, meta int) (all, half time.Duration) {
	w.tb.Helper()
	began := time.Now()
	_, err := api.Register(w.ctx, &registrypb.RegisterRequest{
		Group: "web", Id: id, Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour), Meta: map[string]string{"m": strings.Repeat("x", meta)},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	select {
	case <-w.wake:
	case <-time.After(time.Minute):
		w.tb.Fatalf("%d of %d watchers have not seen %s", int64(len(w.last))-w.seen.Load()%int64(len(w.last)), len(w.last), id)
	}
	took := make([]int64, len(w.last))
	for i := range w.last {
		took[i] = w.last[i].Load() - began.UnixNano()
	}
	slices.Sort(took)
	return time.Duration(took[len(took)-1]), time.Duration(took[len(took)/2])
}

func newWatchers(tb testing.TB, addr string) (*watchers, registrypb.RegistryClient) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchers{tb: tb, ctx: ctx, addr: addr, wake: make(chan struct{}, 1)}
	tb.Cleanup(w.wg.Wait)
	tb.Cleanup(cancel)
	api := registrypb.NewRegistryClient(w.dial())
	if _, err := api.Register(ctx, &registrypb.RegisterRequest{Group: "web", Id: "first", Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)}, grpc.WaitForReady(true)); err != nil {
		tb.Fatal(err)
	}
	return w, api
}

// fill makes so large changes that the windows of those that stall are full.
func (w *watchers) fill(api registrypb.RegistryClient) {
	w.stopped.Store(true)
	for i := range 40 {
		w.change(api, "large", 4<<10+i)
	}
	w.change(api, "large", 0)
}

// Watchers that stop reading, one on a connection that others use and one whose
// socket is full, delay neither writes nor other watchers. When they read again,
// they are started over, because what they missed is not remembered that long.
func TestStalledWatchersDelayNobody(t *testing.T) {
	n := startNode(t, "n1", nil)
	waitReady(t, n)
	sharedConn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()), fixedWindow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sharedConn.Close() })
	shared := registrypb.NewRegistryClient(sharedConn)
	var stopped atomic.Bool
	released := make(chan struct{})
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			return &stopConn{Conn: c, stopped: &stopped, closed: released}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// Members are written in batches: a node ends a connection that is silent for 30 s.
	write := func(n, meta int) (revision uint64) {
		ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
		defer cancel()
		req := &registrypb.RegisterManyRequest{}
		for i := range n {
			req.Registrations = append(req.Registrations, &registrypb.RegisterRequest{
				Group: "web", Id: fmt.Sprint(i), Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour), Instance: []byte("instance"),
				Meta: map[string]string{"m": strings.Repeat("x", meta)},
			})
		}
		resp, err := shared.RegisterMany(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.Results {
			if r.GetRegistered() == nil {
				t.Fatal(r)
			}
			revision = max(revision, r.GetRegistered().GetRevision())
		}
		return revision
	}
	write(1, 0)
	reading := follow(t, shared, "web", 0, 0)
	silent := map[string]*follower{
		"stream": follow(t, shared, "web", 0, 0),
		"socket": follow(t, registrypb.NewRegistryClient(conn), "web", 0, 0),
	}
	for _, f := range silent {
		f.next()
	}
	stopped.Store(true)
	const changes = 30 // of more bytes than are remembered
	var last uint64
	for i := range changes {
		last = write(50, 7<<10+i%2)
		reading.until(last)
	}
	if reading.resets != 1 {
		t.Errorf("the watcher that reads was started over %d times", reading.resets-1)
	}
	stopped.Store(false)
	close(released)
	for name, f := range silent {
		events := 0
		for ; f.revision < last; events++ {
			f.next()
		}
		t.Logf("%s: %d events for %d changes, started over %d times", name, events, changes, f.resets-1)
		if f.resets < 2 || events > changes/2 {
			t.Errorf("%s: %d events, started over %d times", name, events, f.resets-1)
		}
	}
}

// BenchmarkWatchFanout is one change of a group with many watchers on one
// node, which runs in a process of its own, through gRPC on loopback, until the
// last has it; then the same with watchers among them that read nothing, half
// of whom share connections with others.
func BenchmarkWatchFanout(b *testing.B) {
	size, stalled := 10_000, 500
	if testing.Short() {
		size, stalled = 200, 20
	}
	for _, stalled := range []int{0, stalled} {
		b.Run(fmt.Sprintf("watchers=%d/stalled=%d", size, stalled), func(b *testing.B) {
			node := startChild(b)
			w, api := newWatchers(b, node.stats().Addr)
			before := node.stats()
			shared := w.read(size)
			w.change(api, "changing", 1)
			with := node.stats()
			if stalled > 0 {
				w.stall(stalled, shared)
				w.fill(api)
			}
			full := node.stats()
			var all, half []time.Duration
			start := node.stats()
			for i := 0; b.Loop(); i++ {
				last, median := w.change(api, "changing", 2+i%2)
				all, half = append(all, last), append(half, median)
			}
			end := node.stats()
			slices.Sort(all)
			slices.Sort(half)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(all[len(all)/2]), "ms-to-all-p50")
			b.ReportMetric(ms(all[len(all)-1]), "ms-to-all-worst")
			b.ReportMetric(ms(half[len(half)/2]), "ms-to-half-p50")
			b.ReportMetric(float64(end.Mallocs-start.Mallocs)/float64(len(all)*(size+stalled)), "node-allocs/watcher")
			kib := func(a, b, n uint64) float64 { return (float64(a) - float64(b)) / 1024 / float64(n) }
			b.ReportMetric(kib(with.Heap+with.Stacks, before.Heap+before.Stacks, uint64(size)), "node-KiB/watcher")
			b.ReportMetric(kib(with.RSS, before.RSS, uint64(size)), "rss-KiB/watcher")
			if stalled > 0 {
				b.ReportMetric(kib(full.Heap+full.Stacks, with.Heap+with.Stacks, uint64(stalled)), "node-KiB/stalled")
			}
		})
	}
}
