package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const checkMethod = "/grpc.health.v1.Health/Check"

// interceptors of a server with the health service.
func interceptors(tb testing.TB) (*Node, *Interceptors) {
	tb.Helper()
	n := New()
	i := n.Calls.Interceptors()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	n.Calls.AddMethods(i, ClientPort, server)
	return n, i
}

func TestCallsAreCountedByCode(t *testing.T) {
	n, i := interceptors(t)
	for _, err := range []error{nil, nil, status.Error(codes.NotFound, "no"), errors.New("plain")} {
		_, got := i.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: checkMethod}, func(context.Context, any) (any, error) { return nil, err })
		if !errors.Is(got, err) {
			t.Errorf("the error became %v", got)
		}
	}
	for code, want := range map[codes.Code]float64{codes.OK: 2, codes.NotFound: 1, codes.Unknown: 1} {
		if got := testutil.ToFloat64(n.Calls.total.WithLabelValues("client", "Health/Check", code.String())); got != want {
			t.Errorf("%v: %v calls, want %v", code, got, want)
		}
	}
	_, err := i.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/of/nobody"}, func(context.Context, any) (any, error) { return nil, nil })
	if err != nil || testutil.CollectAndCount(n.Calls.total) != 5 { // three codes, and OK of two streams
		t.Errorf("an unknown method: %v, %d series", err, testutil.CollectAndCount(n.Calls.total))
	}
}

func TestStreamsAreCountedWhileTheyAreOpen(t *testing.T) {
	n, i := interceptors(t)
	open := n.Calls.streams.WithLabelValues("client", "Health/Watch")
	err := i.Stream(nil, nil, &grpc.StreamServerInfo{FullMethod: "/grpc.health.v1.Health/Watch"}, func(any, grpc.ServerStream) error {
		if got := testutil.ToFloat64(open); got != 1 {
			t.Errorf("%v streams are open", got)
		}
		return status.Error(codes.Canceled, "")
	})
	if status.Code(err) != codes.Canceled || testutil.ToFloat64(open) != 0 ||
		testutil.ToFloat64(n.Calls.total.WithLabelValues("client", "Health/Watch", "Canceled")) != 1 {
		t.Errorf("after the stream: %v", err)
	}
}

// Unknown paths make no series: routes are the mux's patterns.
func TestRoutesAreBounded(t *testing.T) {
	n := New()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /things/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := n.Calls.HTTP(mux)
	for i := range 100 {
		for _, path := range []string{"/things/", "/elsewhere/"} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, fmt.Sprint(path, i), nil))
		}
	}
	if got := testutil.CollectAndCount(n.Calls.http); got != 2 {
		t.Errorf("%d series, want 2", got)
	}
	if got := testutil.ToFloat64(n.Calls.http.WithLabelValues("GET /things/{id}", "418")); got != 100 {
		t.Errorf("%v requests, want 100", got)
	}
}

func TestWriteOutcomes(t *testing.T) {
	for err, want := range map[error]string{
		store.ErrOutcomeUnknown: outcomeUnknown, store.ErrNotLeader: outcomeFailed, store.ErrBusy: outcomeFailed,
		fsm.ErrConflict: outcomeRefused, fsm.ErrFenced: outcomeRefused,
	} {
		if got := writeOutcome(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func TestSnapshotsAreMeasured(t *testing.T) {
	n := New()
	to := n.Instruments()
	to.Snapshot(1234, time.Second, nil)
	to.Snapshot(5, time.Second, errors.New("disk"))
	to.Restored(time.Second, nil)
	if got := testutil.ToFloat64(n.snapBytes); got != 1234 {
		t.Errorf("size is %v", got)
	}
	if got := testutil.CollectAndCount(n.snapshots); got != 2 {
		t.Errorf("%d outcomes", got)
	}
}

func TestWatchersAreCounted(t *testing.T) {
	w := newWatches()
	w.Step(0, true, true)
	w.Step(1, false, false)
	w.Step(3, false, false)
	w.Step(0, true, false)
	if b, r := testutil.ToFloat64(w.Behind), testutil.ToFloat64(w.Resets); b != 1 || r != 1 {
		t.Errorf("behind %v, resets %v", b, r)
	}
}

// BenchmarkCall compares a unary call with counting and without.
func BenchmarkCall(b *testing.B) {
	_, i := interceptors(b)
	info := &grpc.UnaryServerInfo{FullMethod: checkMethod}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	b.Run("bare", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = handler(b.Context(), nil)
			}
		})
	})
	b.Run("counted", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = i.Unary(b.Context(), nil, info, handler)
			}
		})
	})
}

// BenchmarkInstruments measures the instruments of a batch and of a write.
func BenchmarkInstruments(b *testing.B) {
	to := New().Instruments()
	b.ReportAllocs()
	for b.Loop() {
		to.Applied(10, time.Millisecond)
		to.Written(time.Millisecond, nil)
	}
}
