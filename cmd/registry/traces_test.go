package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// spans collects what is sent to it as OTLP over HTTP.
type spans struct {
	t  *testing.T
	mu sync.Mutex                 // guards all
	of map[string][]*tracepb.Span // by trace
}

// collectSpans starts a receiver and sets the environment for it.
func collectSpans(t *testing.T) *spans {
	t.Helper()
	s := &spans{t: t, of: map[string][]*tracepb.Span{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Setenv(varEndpoint, server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	return s
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := new(collector.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(body, req)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		s.t.Errorf("%s: %v", r.URL, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range req.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				id := string(span.TraceId)
				s.of[id] = append(s.of[id], span)
			}
		}
	}
}

// chain are the spans from the root down to the one of a name, in one trace, where the root
// has a name; nil: there is no such trace yet.
func (s *spans) chain(root, leaf string) []*tracepb.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, trace := range s.of {
		at := slices.IndexFunc(trace, func(span *tracepb.Span) bool { return span.Name == leaf })
		if at < 0 {
			continue
		}
		chain := []*tracepb.Span{trace[at]}
		for len(chain[0].ParentSpanId) > 0 {
			parent := slices.IndexFunc(trace, func(span *tracepb.Span) bool { return string(span.SpanId) == string(chain[0].ParentSpanId) })
			if parent < 0 {
				break // it has not come yet, or is the caller's
			}
			chain = slices.Insert(chain, 0, trace[parent])
		}
		if chain[0].Name == root {
			return chain
		}
	}
	return nil
}

func (s *spans) await(root, leaf string) []*tracepb.Span {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if chain := s.chain(root, leaf); chain != nil {
			return chain
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no trace from %q to %q", root, leaf)
		}
	}
}

// said is a span as the tests compare it, and values are its attributes.
func said(span *tracepb.Span) (text string, values map[string]string) {
	values = map[string]string{}
	for _, a := range span.Attributes {
		values[a.Key] = strings.Trim(a.Value.String(), `"`)
		_, values[a.Key], _ = strings.Cut(values[a.Key], ":")
		values[a.Key] = strings.Trim(values[a.Key], `"`)
	}
	kind := strings.ToLower(strings.TrimPrefix(span.Kind.String(), "SPAN_KIND_"))
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", kind, span.Name, values["registry.node.id"])), values
}

// A write that goes to a follower is one trace, from the command to the commit at the leader.
func TestTraceOfAWrite(t *testing.T) {
	got := collectSpans(t)
	dir, port := t.TempDir(), freePorts(t, 6)
	first := serveNode(t, dir, "n1", port, port+1)
	untilServing(t, port+1)
	nodes := []*running{first}
	for i, id := range []string{"n2", "n3"} {
		nodes = append(nodes, serveNode(t, dir, id, port+2+2*i, port+3+2*i, "-registries="+local(port)))
		untilServing(t, port+3+2*i)
	}
	if st := led(t, local(port+1)); st.Leader != "n1" {
		t.Fatalf("%s leads", st.Leader)
	}
	ok(t, "group", "set", "web", "-registries", local(port+3))
	want := []string{
		"internal registry group set", "client registry.v1.Registry/SetGroup", "server registry.v1.Registry/SetGroup n2",
		"client registry.v1.Registry/SetGroup", "server registry.v1.Registry/SetGroup n1", "internal raft.commit n1",
	}
	check := func(chain []*tracepb.Span, want []string) {
		t.Helper()
		var spans []string
		var values map[string]string
		for _, span := range chain {
			var text string
			text, values = said(span)
			spans = append(spans, text)
		}
		if !slices.Equal(spans, want) {
			t.Errorf("got %q\nwant %q", spans, want)
		}
		if values["registry.raft.term"] == "" || values["registry.raft.index"] == "" || values["registry.raft.entries"] != "1" {
			t.Errorf("commit: %v", values)
		}
	}
	check(got.await("registry group set", "raft.commit"), want)

	// Over HTTP the caller's trace comes by its header.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+local(port+5)+"/v1/groups/http", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	chain := got.await("PUT /v1/groups/{group}", "raft.commit")
	check(chain, []string{
		"server PUT /v1/groups/{group} n3", "client registry.v1.Registry/SetGroup", "server registry.v1.Registry/SetGroup n1", "internal raft.commit n1",
	})
	if trace, parent := fmt.Sprintf("%x", chain[0].TraceId), fmt.Sprintf("%x", chain[0].ParentSpanId); trace != "0af7651916cd43dd8448eb211c80319c" || parent != "b7ad6b7169203331" {
		t.Errorf("trace %s, parent %s", trace, parent)
	}
	if _, values := said(chain[0]); values["http.request.method"] != "PUT" || values["http.route"] != "/v1/groups/{group}" || values["http.response.status_code"] != "200" {
		t.Error(values)
	}
	for i := range nodes {
		nodes[len(nodes)-1-i].cancel(nil)
		nodes[len(nodes)-1-i].wait(exitOK)
	}
}

// A collector that takes connections and answers nothing delays neither spans nor the end.
func TestHangingCollector(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Setenv(varEndpoint, "http://"+ln.Addr().String())
		t.Setenv(varProtocol, protocol)
		traces, err := startTracing(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		tracer := traces.of().Tracer("")
		began := time.Now()
		for range 10_000 { // the queue has 2,048
			_, span := tracer.Start(t.Context(), "span")
			span.End()
		}
		traces.close()
		if took := time.Since(began); took > 5*tracesEnd { // the exporter's own limit is 10 s
			t.Errorf("%s: it took %v", protocol, took)
		}
	}
}

// What OpenTelemetry says of a variable that it cannot parse is in the node's log, in its format
// and without the value.
func TestSecretsOfTracesAreNotShown(t *testing.T) {
	t.Setenv(varEndpoint, "http://user:hunter1@127.0.0.1:4318")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "hunter2,authorization=%zhunter3,hunter 4=x")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "hunter5")
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv(varProtocol, protocol)
			var log logbuffer.Buffer // also what is left of another test reports
			traces, err := startTracing(t.Context(), slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			if err != nil {
				t.Fatal(err)
			}
			traces.close()
			if got := log.String(); strings.Contains(got, "hunter") || strings.Contains(got, "TracerProvider") || !strings.Contains(got, `"level":"WARN","msg":"OpenTelemetry failed","to":"parse headers"`) {
				t.Error(got)
			}
		})
	}
}

// A collector that is down fills no log.
func TestLostTracesAreToldNowAndThen(t *testing.T) {
	var log strings.Builder
	traces := &tracesErrors{log: slog.New(slog.NewTextHandler(&log, nil))}
	for want := 1; want <= 2; want++ {
		for range 3 {
			traces.Handle(io.ErrUnexpectedEOF)
		}
		if got := strings.Count(log.String(), "traces are lost"); got != want {
			t.Errorf("%d lines, want %d", got, want)
		}
		traces.last.Add(-int64(tracesPause))
	}
}

func TestTracesAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{varEndpoint, "127.0.0.1:4318", varEndpoint + ": must be a URL"},
		{varEndpoint, "http://user:hunter2@", varEndpoint + ": must be a URL"},
		{varProtocol, "http/json", varProtocol + ": must be http/protobuf or grpc"},
		{varTracesExporter, "zipkin", varTracesExporter + ": must be otlp or none"},
	} {
		t.Run(tc.value, func(t *testing.T) {
			t.Setenv(varEndpoint, "http://127.0.0.1:4318")
			t.Setenv(tc.name, tc.value)
			traces, err := startTracing(t.Context(), slog.New(slog.DiscardHandler))
			if traces != nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
	for name, value := range map[string]string{varEndpoint: "", varOTelDisabled: "true", varTracesExporter: "none"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(varEndpoint, "http://127.0.0.1:4318")
			t.Setenv(name, value)
			if traces, err := startTracing(t.Context(), slog.New(slog.DiscardHandler)); traces.of() != nil || err != nil {
				t.Errorf("%v, %v", traces, err)
			}
		})
	}
}
