package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
)

const (
	flagDebugAddr = "debug-addr"

	debugLevelPath = "/debug/log-level"
	debugTimeout   = 5 * time.Second // for the headers, and for a level
)

// parseDebugAddr returns the address of a debug listener, which needs no token and so is
// on loopback. localhost is 127.0.0.1, whatever a resolver says.
func parseDebugAddr(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, ipErr := netip.ParseAddr(host)
	_, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || ipErr != nil || portErr != nil || !ip.IsLoopback() {
		return "", &fsm.FieldError{Field: "-" + flagDebugAddr, Limit: "host:port on loopback, such as 127.0.0.1:6060, because it asks for no token", Got: strconv.Quote(addr)}
	}
	return net.JoinHostPort(host, port), nil
}

// debugServer serves profiles and the log level until it is closed.
type debugServer struct {
	http *http.Server
	done chan struct{} // closed when it serves no more
}

// startDebug listens on an address of parseDebugAddr. Without one it returns nil.
func startDebug(addr string, level *slog.LevelVar, log *slog.Logger) (*debugServer, error) {
	if addr == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		failed := &exitError{code: exitFailure, err: fmt.Errorf("-%s %s: %w", flagDebugAddr, addr, err)}
		return nil, failed.withHint("choose another port with -%s, or leave it out", flagDebugAddr)
	}
	s := &debugServer{done: make(chan struct{}), http: &http.Server{
		Handler:           debugHandler(level, log),
		ReadHeaderTimeout: debugTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); err != http.ErrServerClosed {
			log.Error("port lost", "flag", "-"+flagDebugAddr, "error", err)
		}
	}()
	log.Info("debug listener", flagDebugAddr, ln.Addr())
	return s, nil
}

// close ends the listener and its connections, those with a profile under way, too.
func (s *debugServer) close() {
	if s == nil {
		return
	}
	_ = s.http.Close()
	<-s.done
}

func debugHandler(level *slog.LevelVar, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET "+debugLevelPath, func(w http.ResponseWriter, _ *http.Request) { writeLevel(w, level.Level()) })
	mux.HandleFunc("PUT "+debugLevelPath, func(w http.ResponseWriter, r *http.Request) { putLevel(w, r, level, log) })
	return refuseOtherPages(mux)
}

// refuseOtherPages refuses what a browser on this machine sends for a page from elsewhere:
// one that gave its name the address of loopback, which stands in Host (DNS rebinding), and one that
// sends requests here without reading the answers, so that profiles cost this node time.
func refuseOtherPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site") // of browsers only
		switch {
		case !rpc.LocalHost(r.Host):
			refused := &fsm.FieldError{Field: "Host", Limit: "localhost or an IP address", Got: fmt.Sprintf("%.64q", r.Host)}
			http.Error(w, refused.Error(), http.StatusForbidden)
		case site == "cross-site" || site == "same-site":
			http.Error(w, "the request is of a page from elsewhere", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func writeLevel(w http.ResponseWriter, level slog.Level) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = fmt.Fprintln(w, strings.ToLower(level.String())) // the client may have gone
}

// putLevel sets the log level to the body, and answers with it.
func putLevel(w http.ResponseWriter, r *http.Request, level *slog.LevelVar, log *slog.Logger) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(debugTimeout)) // a connection has it
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64))
	if err != nil {
		http.Error(w, "the level cannot be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	next, err := parseLevel(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	was := level.Level()
	level.Set(min(was, next, slog.LevelInfo)) // the change itself is always told
	log.LogAttrs(r.Context(), slog.LevelInfo, "log level changed", slog.String("by", "-"+flagDebugAddr), slog.Any("from", was), slog.Any("to", next))
	level.Set(next)
	writeLevel(w, next)
}

// parseLevel reads a level as a user gives it.
func parseLevel(text string) (level slog.Level, err error) {
	text = strings.TrimSpace(text)
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, &fsm.FieldError{Field: "LEVEL", Limit: "debug, info, warn or error", Got: fmt.Sprintf("%.64q", text)}
	}
	return level, nil
}
