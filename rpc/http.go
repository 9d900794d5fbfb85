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
)

// Limits of scrapes.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// metricsLog logs the errors of scrapes.
type metricsLog struct{ log *slog.Logger }

func (l metricsLog) Println(v ...any) { l.log.Error("metrics", "error", fmt.Sprint(v...)) }

// httpServer answers HTTP/1.1 on the client port.
type httpServer struct {
	server *Server
	http   *http.Server
}

func newHTTPServer(s *Server, gatherer prometheus.Gatherer) *httpServer {
	h := &httpServer{server: s}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.livez)
	mux.HandleFunc("GET /readyz", h.readyz)
	if gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
			ErrorLog: metricsLog{s.log}, ErrorHandling: promhttp.ContinueOnError,
			MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
		}))
	}
	h.http = &http.Server{
		Handler:           s.metrics.Calls.HTTP(mux),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	return h
}

func (h *httpServer) serve(ln net.Listener) error {
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

// livez reports that the process answers.
func (h *httpServer) livez(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// readyz reports whether the node answers reads, and why not. A node without a leader
// is ready, because it still answers reads. A load balancer that should not use it
// then sets max_lag.
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
	if lag := h.server.store.Lag(); limited && lag > limit {
		writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("last contact with the leader %s ago", lag.Round(time.Millisecond)))
		return
	}
	writeText(w, http.StatusOK, "ok")
}

// maxLag parses the query of a readiness probe. Unknown parameters are errors:
// otherwise a misspelt probe would find every node ready.
func maxLag(query string) (limit time.Duration, limited bool, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, false, &fsm.FieldError{Field: "query", Limit: "max_lag=DURATION", Got: strconv.Quote(query)}
	}
	for name, given := range values {
		if name != "max_lag" || len(given) != 1 {
			return 0, false, &fsm.FieldError{Field: "query", Limit: "max_lag=DURATION, once", Got: strconv.Quote(query)}
		}
		if limit, err = time.ParseDuration(given[0]); err != nil || limit < 0 {
			return 0, false, &fsm.FieldError{Field: "max_lag", Limit: "a duration, for instance 10s", Got: strconv.Quote(given[0])}
		}
		limited = true
	}
	return limit, limited, nil
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // the error is that of a closed connection
}
