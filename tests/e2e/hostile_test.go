package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

var (
	hostileFrames = flag.Int("hostile-frames", 10_000, "malformed connections that TestHostileInput makes; a tenth with -short")
	hostileIdle   = flag.Int("hostile-idle", 5_000, "idle connections that TestHostileInput holds on a port; a fifth with -short")
	hostileSeed   = flag.Uint64("hostile-seed", 0, "seed of TestHostileInput; 0 draws one")
)

// TestHostileInput writes noise to both ports of every node and holds more idle
// connections than the ports take. Nobody else notices: clients are served, the
// memory comes back, and when the leader dies another is elected meanwhile.
func TestHostileInput(t *testing.T) {
	needSignal(t, sigTerm)
	frames, idle := *hostileFrames, *hostileIdle
	if testing.Short() {
		frames, idle = frames/10, idle/5
	}
	seed := *hostileSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -hostile-seed=%d", seed)
	c := startNodes(t, 3, "-secret-file=") // frames are to reach raft, gRPC and HTTP
	leader, others := c.leader()
	term := statusTerm(t, leader)
	client := startHonest(t, dial(t, c.addrs()))
	before := footprints(c)

	began := time.Now()
	c.hostileFrames(rand.New(rand.NewPCG(seed, 1)), frames)
	c.hostileCalls()
	t.Logf("%d malformed connections in %v; an honest client meanwhile: %s", frames, ms(time.Since(began)), client.figures())
	eventually(t, patience, "nodes as they were", func() error { return recovered(before, footprints(c)) })
	if now := statusTerm(t, leader); now != term { // a machine that is busy elsewhere does that, too
		t.Logf("the term went from %d to %d", term, now)
	}

	began = time.Now()
	held := c.holdIdle(others, idle)
	full := footprints(c)
	t.Logf("%d idle connections after %v; nodes before and now: %v, %v", len(held), ms(time.Since(began)), before, full)
	for i, f := range full {
		if f.goroutines > 3*2*idle { // three for a connection of gRPC
			t.Errorf("node %d has %d goroutines, with %d idle connections on each port", i, f.goroutines, idle)
		}
	}
	enough := c.pressIdle(others)
	leader.kill()
	_, took := newLeader(t, others[0], leader.id)
	if took > 5*time.Second { // 7.7 s where a full port takes nobody in
		t.Errorf("an election took %v", ms(took))
	}
	pressed := enough()
	held = append(held, pressed...)
	t.Logf("%d more idle connections meanwhile", len(pressed))
	t.Logf("a new leader %v after the old one's death; an honest client meanwhile: %s", ms(took), client.figures())
	client.serves(t)
	for _, conn := range held {
		_ = conn.Close()
	}
	leader.start("-secret-file=")
	eventually(t, patience, "memory, files and goroutines that come back", func() error { return recovered(before, footprints(c)) })
	t.Logf("nodes after: %v", footprints(c))
	client.end()
	c.settled(3)
}

func statusTerm(t *testing.T, n *node) uint64 {
	t.Helper()
	st, err := statusOf(t, n.addr)
	if err != nil {
		t.Fatal(err)
	}
	return st.Term
}

// clusterID asks a node as another node would.
func clusterID(t *testing.T, n *node) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h, err := peerpb.NewPeerClient(connect(t, n.bind)).Hello(ctx, &peerpb.HelloRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return h.ClusterId
}

// hostileFrames writes frames to all ports, some connections at a time.
func (c *cluster) hostileFrames(r *rand.Rand, n int) {
	id := clusterID(c.t, c.nodes[0])
	bind, clients := onBind(), onClients()
	var all sync.WaitGroup
	places := make(chan struct{}, 16)
	for i := range n {
		of, addr := bind, c.nodes[i%3].bind
		if i%2 == 1 {
			of, addr = clients, c.nodes[i%3].addr
		}
		data := of[r.IntN(len(of))].make(r, id)
		listens := r.IntN(4) == 0
		places <- struct{}{}
		all.Go(func() {
			writeHostile(addr, data, listens)
			<-places
		})
	}
	all.Wait()
}

// writeHostile writes and hangs up, at once or after it read something.
func writeHostile(addr string, data []byte, listens bool) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return // turned away
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := conn.Write(data); err == nil && listens {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// raw sends bytes as messages.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }
func (c *cluster) rawCall(addr, method string, msg []byte) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	var codec encoding.Codec = raw{}
	return connect(c.t, addr).Invoke(ctx, method, msg, new([]byte), grpc.ForceCodec(codec))
}

// hostileCalls are gRPC calls that are well-formed and make no sense.
func (c *cluster) hostileCalls() {
	big := make([]byte, 64<<20)
	for _, n := range c.nodes {
		for _, addr := range []string{n.bind, n.addr} {
			for method, want := range map[string]codes.Code{
				"/registry.v1.Registry/Nothing":             codes.Unimplemented,
				"/nothing/Nothing":                          codes.Unimplemented,
				registrypb.Registry_Register_FullMethodName: codes.Internal, // not a message
			} {
				if err := c.rawCall(addr, method, []byte{0xff, 0xff, 0xff}); status.Code(err) != want {
					c.t.Errorf("%s %s: %v, want %v", addr, method, err, want)
				}
			}
			if err := c.rawCall(addr, registrypb.Registry_Register_FullMethodName, big); status.Code(err) != codes.ResourceExhausted {
				c.t.Errorf("%s: a message of 64 MiB: %v", addr, err)
			}
		}
	}
}

// holdIdle opens connections that say as little as they can: on the bind ports
// raft's first byte, the handshake, or nothing, on the client ports nothing or half
// a request.
func (c *cluster) holdIdle(nodes []*node, each int) (held []net.Conn) {
	id := clusterID(c.t, nodes[0])
	says := map[bool][]string{true: {"R", "R", "R" + id[:8], "", http2Preface}, false: {"", "GET / HTTP/1.1\r\nX: ", http2Preface}}
	for i, n := range nodes {
		for _, bind := range []bool{true, false} {
			addr := n.addr
			if bind {
				addr = n.bind
			} else if i > 0 {
				continue // descriptors of this process are not endless
			}
			for j := range each {
				conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
				if err != nil {
					c.t.Fatalf("after %d: %v", len(held), err)
				}
				held = append(held, conn)
				c.t.Cleanup(func() { _ = conn.Close() })
				_, _ = conn.Write([]byte(says[bind][j%len(says[bind])])) // turned away
			}
		}
	}
	return held
}

// pressIdle goes on to open idle connections, so that places that become free
// do not stay free. The returned function ends it.
func (c *cluster) pressIdle(nodes []*node) (enough func() []net.Conn) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var held []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil && len(held) < 3000; i++ {
			if conn, err := net.DialTimeout("tcp", nodes[i%len(nodes)].bind, time.Second); err == nil {
				_, _ = conn.Write([]byte(http2Preface[:i%2*len(http2Preface)])) // turned away
				held = append(held, conn)
			}
			<-tick.C
		}
	}()
	return func() []net.Conn {
		cancel()
		<-done
		return held
	}
}

// footprint is what a process holds, where the system tells.
type footprint struct {
	mib, files, goroutines int
}

func (f footprint) String() string {
	return fmt.Sprintf("%d MiB, %d files, %d goroutines", f.mib, f.files, f.goroutines)
}

func footprints(c *cluster) []footprint { return footprintsOf(c.t, goroutines, c.nodes...) }

func footprintsOf(t *testing.T, goroutines func(*node) (int, error), nodes ...*node) (all []footprint) {
	for _, n := range nodes {
		dir := fmt.Sprintf("/proc/%d/", n.cmd.Process.Pid)
		var f footprint
		if files, err := os.ReadDir(dir + "fd"); err == nil {
			f.files = len(files)
		}
		text, _ := os.ReadFile(dir + "status") // only on Linux
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				kib, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")))
				f.mib = kib >> 10
			}
		}
		eventually(t, patience, "a count of goroutines", func() (err error) {
			f.goroutines, err = goroutines(n)
			return err
		})
		all = append(all, f)
	}
	return all
}

// goroutines is the node's own count.
func goroutines(n *node) (int, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	return goroutinesOf(client, "http://"+n.addr, "")
}

// goroutinesOf asks a node at a URL, with a token if there is one.
func goroutinesOf(client *http.Client, url, token string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("%s says %s and no goroutines", url, resp.Status)
}

// recovered compares. The runtime gives memory back to the system slowly, so
// that what it may keep is generous; files and goroutines are exact but for
// those of peers' connections, of which a leader has more.
func recovered(before, now []footprint) error {
	most := 0
	for _, f := range before {
		most = max(most, f.goroutines)
	}
	for i := range now {
		if now[i].files > before[i].files+20 || now[i].mib > before[i].mib+400 || now[i].goroutines > most+40 {
			return fmt.Errorf("node %d: %v, before %v", i, now[i], before[i])
		}
	}
	return nil
}

// honest is a client that registers and asks, again and again.
type honest struct {
	cancel context.CancelFunc
	done   chan struct{}
	ok     atomic.Int64

	mu     sync.Mutex // guards the rest
	took   []time.Duration
	failed []error
}

func startHonest(t *testing.T, client *sdk.Client) *honest {
	ctx, cancel := context.WithCancel(t.Context())
	h := &honest{cancel: cancel, done: make(chan struct{})}
	reg, err := client.Register(ctx, sdk.Service{Group: "web", ID: "web-1", Addr: "127.0.0.1:8080", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.done)
		defer func() { _ = reg.Close() }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			began := time.Now()
			_, err := client.Match(ctx, "web", "user-1", sdk.Linearizable())
			h.note(time.Since(began), err)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(h.end)
	return h
}

func (h *honest) note(took time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.failed = append(h.failed, err)
		return
	}
	h.ok.Add(1)
	h.took = append(h.took, took)
}

// figures are those since the last time.
func (h *honest) figures() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.took)
	var p50, p99, worst time.Duration
	if n := len(h.took); n > 0 {
		p50, p99, worst = h.took[n/2], h.took[n*99/100], h.took[n-1]
	}
	s := fmt.Sprintf("%d linearizable matches, median %v, p99 %v, worst %v, %d failed %v", len(h.took), p50, p99, worst, len(h.failed), h.failed)
	h.took, h.failed = nil, nil
	return s
}

// serves waits until the client is served again.
func (h *honest) serves(t *testing.T) {
	t.Helper()
	now := h.ok.Load()
	eventually(t, patience, "an honest client that is served", func() error {
		if h.ok.Load() < now+10 {
			return fmt.Errorf("%d answers", h.ok.Load()-now)
		}
		return nil
	})
}

func (h *honest) end() {
	h.cancel()
	<-h.done
}
