package registrytest_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// BenchmarkHTTPMatch compares Match as JSON with Match over gRPC: 64 callers of one node,
// which runs in a process of its own, by the usual Go client of each. Rounds of both
// alternate, and the ratio is that of the medians: calls a second over HTTP over those
// over gRPC.
//
//	go test -run '^$' -bench HTTPMatch -benchtime 1x ./registrytest
func BenchmarkHTTPMatch(b *testing.B) {
	rounds, each := 9, 2*time.Second
	if testing.Short() {
		rounds, each = 1, 50*time.Millisecond
	}
	const callers = 64
	node := startChild(b)
	addr := node.stats().Addr
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	api := registrypb.NewRegistryClient(conn)
	for n := range int64(100) {
		req := benchRequest(n)
		req.Group = "group"
		if _, err := api.Register(b.Context(), req, grpc.WaitForReady(true)); err != nil {
			b.Fatal(err)
		}
	}
	overGRPC := func() error {
		_, err := api.Match(b.Context(), &registrypb.MatchRequest{Group: "group", Key: []byte("user-id-1")})
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	b.Cleanup(client.CloseIdleConnections)
	overHTTP := func() error {
		resp, err := client.Get("http://" + addr + "/v1/groups/group/match?key=user-id-1")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	for b.Loop() {
		var grpcs, https []float64
		for range rounds {
			grpcs = append(grpcs, callsPerSecond(b, callers, each, overGRPC))
			https = append(https, callsPerSecond(b, callers, each, overHTTP))
		}
		g, h := middle(grpcs), middle(https)
		b.ReportMetric(g, "grpc-calls/s")
		b.ReportMetric(h, "http-calls/s")
		b.ReportMetric(h/g, "ratio")
	}
}

// callsPerSecond makes calls, each caller one after the other.
func callsPerSecond(b *testing.B, callers int, each time.Duration, call func() error) float64 {
	b.Helper()
	var all sync.WaitGroup
	var calls atomic.Int64
	begin := time.Now()
	for range callers {
		all.Go(func() {
			for time.Since(begin) < each {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	all.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds()
}

// readHTTP adds watchers over HTTP that read, each on a connection of its own.
func (w *watchers) readHTTP(n int) {
	w.tb.Helper()
	w.last = make([]atomic.Int64, n)
	for i := range n {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			w.tb.Fatal(err)
		}
		context.AfterFunc(w.ctx, func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "GET /v1/watch?group=web&progress_interval=1h HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			w.tb.Fatal(err)
		}
		in := bufio.NewReader(conn)
		until := func(event string) bool {
			for {
				line, err := in.ReadSlice('\n')
				if err != nil && err != bufio.ErrBufferFull {
					return false
				}
				if bytes.HasPrefix(line, []byte(event)) {
					return true
				}
			}
		}
		if !until("event: snapshot") {
			w.tb.Fatal("no snapshot")
		}
		w.wg.Go(func() {
			for until("event: delta") {
				w.last[i].Store(time.Now().UnixNano())
				if w.seen.Add(1)%int64(n) == 0 {
					w.wake <- struct{}{}
				}
			}
		})
	}
}

// BenchmarkHTTPWatchFanout is one change of a group that 1,000 watchers of one node
// follow over HTTP, until the last has it, beside the same over gRPC; the nodes run in
// processes of their own. The ratio is that of the medians: the time to tell all over
// gRPC over that over HTTP.
//
//	go test -run '^$' -bench HTTPWatchFanout -benchtime 1x ./registrytest
func BenchmarkHTTPWatchFanout(b *testing.B) {
	size, changes := 1000, 51
	if testing.Short() {
		size, changes = 50, 3
	}
	type side struct {
		*watchers
		api  registrypb.RegistryClient
		all  []time.Duration
		node *childNode
	}
	open := func(unit string, read func(*watchers)) *side {
		s := &side{node: startChild(b)}
		s.watchers, s.api = newWatchers(b, s.node.stats().Addr)
		before := s.node.stats()
		read(s.watchers)
		s.change(s.api, "changing", 1)
		with := s.node.stats()
		kib := func(a, b uint64) float64 { return (float64(a) - float64(b)) / 1024 / float64(size) }
		b.ReportMetric(kib(with.Heap+with.Stacks, before.Heap+before.Stacks), unit+"-KiB/watcher")
		b.ReportMetric(kib(with.RSS, before.RSS), unit+"-rss-KiB/watcher")
		return s
	}
	for b.Loop() {
		http := open("http", func(w *watchers) { w.readHTTP(size) })
		grpc := open("grpc", func(w *watchers) { w.read(size) })
		for i := range changes {
			for _, s := range []*side{http, grpc} {
				took, _ := s.change(s.api, "changing", 2+i%2)
				s.all = append(s.all, took)
			}
		}
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		slices.Sort(http.all)
		slices.Sort(grpc.all)
		h, g := http.all[changes/2], grpc.all[changes/2]
		b.ReportMetric(ms(h), "http-ms-to-all-p50")
		b.ReportMetric(ms(http.all[changes-1]), "http-ms-to-all-worst")
		b.ReportMetric(ms(g), "grpc-ms-to-all-p50")
		b.ReportMetric(float64(g)/float64(h), "ratio")
	}
}
