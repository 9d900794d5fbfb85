package metrics

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Port is the port of a call: the label port.
type Port string

// The two ports. A write that is forwarded to the leader counts on both: on the client
// port of the follower and on the nodes' port of the leader.
const (
	ClientPort Port = "client"
	NodePort   Port = "node"
)

// Calls counts calls by port, method and code.
type Calls struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	streams *prometheus.GaugeVec
	http    *prometheus.CounterVec
	refused *prometheus.CounterVec
}

func newCalls() *Calls {
	c := &Calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_requests_total", Help: "Calls that ended, over gRPC and HTTP, by port, method and code. A stream is one call.",
		}, []string{"port", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "registry_request_seconds", Help: "Time that unary calls took, over gRPC and HTTP, by port and method.", Buckets: callBuckets,
		}, []string{"port", "method"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "registry_open_streams", Help: "Streams that are open, over gRPC and HTTP, by port and method.",
		}, []string{"port", "method"}),
		http: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_http_requests_total", Help: "HTTP/1.1 requests on the client port, by route and code.",
		}, []string{"route", "code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_calls_refused_total", Help: "gRPC calls that were ended at the node's limit of streams (streams) or of other calls (calls), or because their request did not arrive in time (late), by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"streams", "calls", "late"} {
		c.refused.WithLabelValues(reason)
	}
	return c
}

// Refused counts the calls that were ended before their handlers for a reason.
func (c *Calls) Refused(reason string) prometheus.Counter { return c.refused.WithLabelValues(reason) }

func (c *Calls) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.total, c.seconds, c.streams, c.http, c.refused}
}

// call is one method's metrics, looked up once.
type call struct {
	ok      prometheus.Counter
	total   *prometheus.CounterVec // by code
	seconds prometheus.Observer
	streams prometheus.Gauge
}

// Interceptors count the calls of a server's services. The methods are added before it
// serves, so a call finds its metrics without a lock.
type Interceptors struct {
	calls map[string]*call
}

// Interceptors returns interceptors without methods; see AddMethods.
func (c *Calls) Interceptors() *Interceptors { return &Interceptors{calls: make(map[string]*call)} }

// AddMethods makes the metrics of a server's methods. It is called before the server
// serves.
func (c *Calls) AddMethods(i *Interceptors, port Port, server *grpc.Server) {
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			by := prometheus.Labels{"port": string(port), "method": path.Ext(service)[1:] + "/" + m.Name}
			metrics := &call{total: c.total.MustCurryWith(by)}
			metrics.ok = metrics.total.WithLabelValues(codes.OK.String())
			if m.IsClientStream || m.IsServerStream {
				metrics.streams = c.streams.With(by)
			} else {
				metrics.seconds = c.seconds.With(by)
			}
			i.calls[full] = metrics
		}
	}
}

// Unary is a grpc.UnaryServerInterceptor.
func (i *Interceptors) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	metrics := i.calls[info.FullMethod]
	if metrics == nil {
		return handler(ctx, req)
	}
	start := time.Now()
	resp, err := handler(ctx, req)
	metrics.seconds.Observe(time.Since(start).Seconds())
	metrics.ended(err)
	return resp, err
}

// Stream is a grpc.StreamServerInterceptor.
func (i *Interceptors) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	metrics := i.calls[info.FullMethod]
	if metrics == nil {
		return handler(srv, stream)
	}
	metrics.streams.Inc()
	defer metrics.streams.Dec()
	err := handler(srv, stream)
	metrics.ended(err)
	return err
}

func (c *call) ended(err error) {
	if err == nil {
		c.ok.Inc()
		return
	}
	c.total.WithLabelValues(status.Code(err).String()).Inc()
}

// HTTP counts the requests of a mux, by the mux's patterns.
func (c *Calls) HTTP(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		mux.ServeHTTP(rec, r) // sets the pattern
		c.http.WithLabelValues(cmp.Or(r.Pattern, "none"), strconv.Itoa(rec.code)).Inc()
	})
}

// recorder records the code of a response.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the original.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
