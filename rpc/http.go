package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/rpc/ui"
	"github.com/werbenhu/registry/store"
)

// Limits of scrapes.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// Limits of HTTP requests. A body is at most MaxRequest.
const (
	MaxHTTPHeaders    = 64 << 10
	HTTPHeaderTimeout = 10 * time.Second // until the headers are there
	HTTPTimeout       = 30 * time.Second // from then on, until the answer is taken
	HTTPIdleTime      = 2 * time.Minute  // without a request
)

// metricsLog logs the errors of scrapes.
type metricsLog struct{ log *slog.Logger }

func (l metricsLog) Println(v ...any) { l.log.Error("metrics", "error", fmt.Sprint(v...)) }

// httpServer answers HTTP/1.1 on the client port.
type httpServer struct {
	server   *Server
	http     *http.Server
	routes   []string // patterns, all from handle and serveAPI
	loopback bool     // see refuseRebound; set before the first request
	tokensOn func() bool
}

func newHTTPServer(s *Server, gatherer prometheus.Gatherer) *httpServer {
	h := &httpServer{server: s, tokensOn: func() bool { return s.store.State().TokensOn() }}
	mux := http.NewServeMux()
	h.handle(mux, "GET /livez", permission{access: open}, http.HandlerFunc(h.livez))
	h.handle(mux, "GET /readyz", permission{access: open}, http.HandlerFunc(h.readyz))
	page := ui.Handler()
	for _, pattern := range ui.Patterns { // files that are the same on every node; what they show is asked for at /v1
		h.handle(mux, pattern, permission{access: open}, page)
	}
	h.handle(mux, "GET /v1/openapi.json", permission{access: open}, http.HandlerFunc(serveOpenAPI))
	if gatherer != nil {
		h.handle(mux, "GET /metrics", permission{access: byToken, early: true, needs: onAllGroups}, promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
			ErrorLog: metricsLog{s.log}, ErrorHandling: promhttp.ContinueOnError,
			MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
		}))
	}
	h.serveAPI(mux)
	h.serveDiscovery(mux)
	h.http = &http.Server{
		Handler:           h.refuseRebound(cleanPaths(s.metrics.Calls.HTTP(mux))),
		ConnContext:       withPeer,
		ReadHeaderTimeout: HTTPHeaderTimeout,
		ReadTimeout:       HTTPTimeout,
		WriteTimeout:      HTTPTimeout,
		IdleTimeout:       HTTPIdleTime,
		MaxHeaderBytes:    MaxHTTPHeaders,
	}
	return h
}

// handle adds a route with its permission, which is decided before the handler. The
// mux's routes come from here and from serveAPI alone.
func (h *httpServer) handle(mux *http.ServeMux, pattern string, p permission, handler http.Handler) {
	callers := h.server.authorizer(clientPort)
	h.routes = append(h.routes, pattern)
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c := &call{authorizer: callers, method: pattern, permission: p, headers: r.Header.Values(registrypb.AuthorizationHeader), from: addrOf(r.Context())}
		ctx := context.WithValue(r.Context(), callKey{}, c)
		if err := c.authorize(nil); err != nil {
			_ = c.ended(ctx, nil, false, toStatus(err)) // the answer has more than the status
			writeRefusal(w, err)
			return
		}
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// writeRefusal answers a request that is not allowed.
func writeRefusal(w http.ResponseWriter, err error) {
	p := problemOf(err)
	p.setHeaders(w.Header())
	if limited, ok := errors.AsType[*auth.LimitedError](err); ok { // which knows the time
		w.Header().Set("Retry-After", strconv.Itoa(int(limited.Wait/time.Second)+1))
	}
	writeText(w, p.code, p.detail)
}

func (h *httpServer) serve(ln net.Listener) error {
	h.loopback = onLoopback(ln.Addr())
	if err := h.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (h *httpServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := h.http.Shutdown(ctx); err != nil {
		return h.http.Close()
	}
	return nil
}

// livez reports that the node works, ready or not.
func (h *httpServer) livez(w http.ResponseWriter, _ *http.Request) {
	if err := h.server.store.Alive(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeText(w, http.StatusOK, "ok")
}

// readyz reports whether the node answers reads, and why not. A node without a leader
// is ready, because it still answers reads, also one that found none since its start,
// with ServeStaleOnStart. A load balancer that should not use it then sets max_lag.
func (h *httpServer) readyz(w http.ResponseWriter, r *http.Request) {
	if err := h.server.store.Serving(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	limit, limited, err := maxLag(r.URL.RawQuery)
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	switch lag := h.server.store.Lag(); {
	case limited && (lag > limit || lag == store.UnknownLag):
		writeText(w, http.StatusServiceUnavailable, lastContact(lag))
	case lag == store.UnknownLag:
		writeText(w, http.StatusOK, "stale: "+lastContact(lag))
	default:
		writeText(w, http.StatusOK, "ok")
	}
}

// maxLag parses the query of a readiness probe. Unknown parameters are errors:
// otherwise a misspelt probe would find every node ready.
func maxLag(query string) (limit time.Duration, limited bool, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, false, &fsm.FieldError{Field: "query", Limit: "max_lag=DURATION", Got: fmt.Sprintf("%.64q", query)}
	}
	for name, given := range values {
		if name != "max_lag" || len(given) != 1 {
			return 0, false, &fsm.FieldError{Field: "query", Limit: "max_lag=DURATION, once", Got: fmt.Sprintf("%.64q", query)}
		}
		if limit, err = time.ParseDuration(given[0]); err != nil || limit < 0 {
			return 0, false, &fsm.FieldError{Field: "max_lag", Limit: "a duration, for instance 10s", Got: fmt.Sprintf("%.64q", given[0])}
		}
		limited = true
	}
	return limit, limited, nil
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // the error is that of a closed connection
}
