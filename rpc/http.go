package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/werbenhu/registry/fsm"
)

// What scrapes may take of a node.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// metricsLog says what a scrape could not collect.
type metricsLog struct{ log *slog.Logger }

func (l metricsLog) Println(v ...any) { l.log.Error("metrics", "err", fmt.Sprint(v...)) }

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

// livez says that the process answers.
func (h *httpServer) livez(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }

// readyz says whether the node answers reads, and why not. A node without a
// leader answers, because that is what a registry is for when a quorum is lost;
// who wants it out of balancing then says how old its answers may be: max_lag.
func (h *httpServer) readyz(w http.ResponseWriter, r *http.Request) {
	if err := h.server.store.Serving(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if text := r.URL.Query().Get("max_lag"); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil || limit < 0 {
			writeText(w, http.StatusBadRequest, (&fsm.FieldError{Field: "max_lag", Limit: "a duration, for instance 10s", Got: strconv.Quote(text)}).Error())
			return
		}
		if lag := h.server.store.Lag(); lag > limit {
			writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("last word from the leader %s ago", lag.Round(time.Millisecond)))
			return
		}
	}
	writeText(w, http.StatusOK, "ok")
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // the client is gone, then
}
