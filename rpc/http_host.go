package rpc

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// refuseRebound protects a node that listens on loopback alone, where the browser of a
// developer reaches it and tokens are often off. A page from elsewhere may give its own
// name the address 127.0.0.1: the browser then takes the node for a part of that page,
// which may read and write (DNS rebinding). The name stands in Host. Where tokens are on,
// a request with one is for the authorizer to judge: such a page has none that is valid.
// Probes are answered in any case.
func (h *httpServer) refuseRebound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.URL.Path == "/livez" || r.URL.Path == "/readyz"
		judged := r.Header.Get(registrypb.AuthorizationHeader) != "" && h.tokensOn()
		if h.loopback && !probe && !judged && !LocalHost(r.Host) {
			writeProblem(w, r, &httpError{http.StatusForbidden, &fsm.FieldError{
				Field: "Host", Limit: "localhost or an IP address, because the node listens on loopback; or send a token", Got: fmt.Sprintf("%.64q", r.Host),
			}})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// LocalHost reports whether a Host cannot be another page's: it is no name that somebody
// else may give an address. Programs may leave it out, browsers do not.
func LocalHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return name == "" || err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// onLoopback reports whether a listener is reached from its own machine only.
func onLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
