package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// limited is a server of a node with small limits, whose ports are bufconns.
type limited struct {
	*Server
	cluster      *storetest.Cluster
	client, node *grpc.ClientConn
}

func newLimited(t *testing.T, l Limits) *limited {
	t.Helper()
	c := storetest.New(t)
	n := c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	s, err := New(Config{Store: n.Store, Peers: NewPeers(nil), Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.peers.Close()); err != nil {
			t.Error(err)
		}
	})
	clients, http, nodes := bufconn.Listen(pipeSize), bufconn.Listen(pipeSize), bufconn.Listen(pipeSize)
	s.ServeClients(clients, http)
	s.ServeNodes(nodes)
	return &limited{s, c, dialPipe(t, clients), dialPipe(t, nodes)}
}

func dialPipe(t *testing.T, ln *bufconn.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return ln.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *limited) refused(reason string) float64 {
	return testutil.ToFloat64(s.metrics.Calls.Refused(reason))
}

// Every method of both ports that takes one request ends a call whose request does not
// come. One that takes a stream of them has no such end: its callers have shown a token.
func TestRequestsThatDoNotCome(t *testing.T) {
	t.Parallel()
	s := newLimited(t, Limits{RequestTime: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := 0
	for name, port := range map[string]struct {
		server *grpc.Server
		conn   *grpc.ClientConn
	}{"client": {s.clients, s.client}, "bind": {s.nodes, s.node}} {
		for service, info := range port.server.GetServiceInfo() {
			for _, m := range info.Methods {
				if m.IsClientStream {
					continue
				}
				full := "/" + service + "/" + m.Name
				stream, err := port.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
				if err == nil {
					err = stream.RecvMsg(new(emptypb.Empty))
				}
				if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), errLate.Error()) {
					t.Errorf("%s, %s: %v", name, full, err)
				}
				ended++
			}
		}
	}
	if got := s.refused("late"); got != float64(ended) || ended < 50 {
		t.Errorf("%d calls ended, %v were counted", ended, got)
	}
}

// waiting is a service with a method of each kind. Its handlers return what they receive.
func waiting(a *admission) *grpc.Server {
	receive := func(_ any, stream grpc.ServerStream) error { return stream.RecvMsg(new(emptypb.Empty)) }
	server := newGRPCServer(MaxClientStreams, chain{}, a)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "x", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "one", Handler: func(_ any, _ context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(emptypb.Empty)
			return m, receive(m)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "answers", ServerStreams: true, Handler: receive},
			{StreamName: "requests", ClientStreams: true, Handler: receive},
			{StreamName: "both", ClientStreams: true, ServerStreams: true, Handler: receive},
		},
	}, struct{}{})
	return server.Server
}

// A request has its time from the headers on, whether it does not come at all or comes a
// byte at a time (CVE-2020-7219, CVE-2025-11374, of gRPC). A later one is answered.
func TestSlowRequests(t *testing.T) {
	for name, want := range map[string]time.Duration{"one": RequestTime, "answers": RequestTime, "requests": 0, "both": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := bufconn.Listen(pipeSize)
				server := waiting(newAdmission(Limits{}.withDefaults(), metrics.New().Calls))
				served := make(chan error, 1)
				go func() { served <- server.Serve(ln) }()
				conn := dialPipe(t, ln)
				ctx, cancel := context.WithTimeout(t.Context(), 10*RequestTime)
				defer cancel()
				start := time.Now()
				stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x/"+name)
				if err == nil {
					err = stream.RecvMsg(new(emptypb.Empty))
				}
				took, late := time.Since(start), err != nil && strings.Contains(err.Error(), errLate.Error())
				if want == 0 {
					want = 10 * RequestTime
				}
				if took != want || late != (want == RequestTime) {
					t.Errorf("%v after %v, want an end after %v", err, took, want)
				}
				if name == "one" {
					trickle(t, ln)
					if err := conn.Invoke(ctx, "/x/one", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
						t.Errorf("a call in time: %v", err)
					}
				}
				_ = conn.Close()
				server.Stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// trickle sends a request a byte a second, and expects its end.
func trickle(t *testing.T, ln *bufconn.Listener) {
	t.Helper()
	conn := hostile(t, ln)
	start, ended := time.Now(), make(chan time.Duration, 1)
	go func() {
		for {
			var head [9]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
			if head[3] == frameHeaders && head[4]&endStream != 0 && binary.BigEndian.Uint32(head[5:]) == 1 {
				ended <- time.Since(start)
			}
		}
	}()
	path := append([]byte("\x83\x86\x04\x06/x/one\x01\x01x\x0f\x10\x10"), "application/grpc"...)
	data := []byte{0, 0, 1, 0, 0}
	_, err := conn.Write(h2Frame(h2Frame(nil, frameHeaders, endHeaders, 1, path), 0, 0, 1, data))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for err == nil {
		select {
		case took := <-ended:
			if took != RequestTime {
				t.Errorf("ended after %v, want %v", took, RequestTime)
			}
			_ = conn.Close()
			return
		case <-tick.C:
			_, err = conn.Write(h2Frame(nil, 0, 0, 1, []byte{0}))
		}
		if time.Since(start) > 2*RequestTime {
			t.Fatal("a request that trickles is not ended")
		}
	}
	t.Error(err)
}

// wantFull expects the refusal at a limit.
func wantFull(t *testing.T, err error, field string) {
	t.Helper()
	if d := detailOf(err); status.Code(err) != codes.Unavailable || d.GetReason() != registrypb.ErrorDetail_BUSY || d.GetField() != field || d.GetLimit() != "at most 2 at a node" {
		t.Errorf("%v, %v", err, d)
	}
}

// The streams of all connections are bounded; what ends makes room. Other calls go on.
func TestStreamsOfAllConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newLimited(t, Limits{Streams: 2})
	open := func() (context.CancelFunc, error) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := grpc_health_v1.NewHealthClient(s.client).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return cancel, err
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	second, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer second()
	third, err := open()
	third()
	wantFull(t, err, "streams")
	if _, err := registrypb.NewRegistryClient(s.client).Index(t.Context(), &registrypb.IndexRequest{}); err != nil {
		t.Errorf("a call beside them: %v", err)
	}
	if got := s.refused("streams"); got != 1 {
		t.Errorf("%v streams were counted as refused", got)
	}
	first()
	s.cluster.Await("room for a stream", func() bool { cancel, err := open(); cancel(); return err == nil })
}

// Calls that wait are bounded as well, and keep no stream out.
func TestCallsOfAllConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newLimited(t, Limits{Calls: 2})
	api := registrypb.NewRegistryClient(s.client)
	index := func() error { _, err := api.Index(t.Context(), &registrypb.IndexRequest{}); return err }
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() {
			for err := error(nil); status.Code(err) != codes.Canceled; { // again, if a call below had the place
				_, err = api.Index(ctx, &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: 1 << 60}})
			}
		})
	}
	var err error
	s.cluster.Await("the limit", func() bool { err = index(); return err != nil })
	wantFull(t, err, "calls") // of that call: an attempt above that is refused may count for a moment
	stream, err := grpc_health_v1.NewHealthClient(s.client).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Errorf("a stream beside them: %v", err)
	}
	cancel()
	waiting.Wait()
	s.cluster.Await("room for a call", func() bool { return index() == nil })
}
