package rpc

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHostsThatAreLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:9800": true, "127.0.0.1": true, "[::1]:9800": true, "[::1]": true, "192.0.2.1:80": true, "localhost:9800": true,
		"LOCALHOST": true, "localhost.:9800": true, "dev.localhost:9800": true, "": true,
		"evil.example:9800": false, "evil.example": false, "127.0.0.1.evil.example:9800": false, "localhost.evil.example": false,
		"evillocalhost": false, "127.0.0.1:9800:evil": false, "evil.example:localhost": false, "0x7f.1": false,
	} {
		if got := LocalHost(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}

// A page whose name was given the address of loopback reads and changes nothing.
func TestPagesOfOtherNamesAreRefused(t *testing.T) {
	for _, row := range []struct {
		listens, request, host, token string
		tokensOn, refused             bool
	}{
		{"127.0.0.1", "GET /v1/none", "evil.example:9800", "", false, true},
		{"127.0.0.1", "DELETE /v1/groups/web", "evil.example:9800", "", false, true},
		{"::1", "GET /", "evil.example", "", false, true},
		{"127.0.0.1", "GET /v1/none", "127.0.0.1:9800", "", false, false},
		{"127.0.0.1", "GET /", "localhost:9800", "", false, false},
		{"127.0.0.1", "GET /v1/none", "registry.example", "Bearer x", true, false}, // a proxy on this machine
		{"127.0.0.1", "GET /v1/none", "evil.example", "Bearer x", false, true},     // nobody looks at the token
		{"127.0.0.1", "GET /v1/none", "evil.example", "", true, true},
		{"127.0.0.1", "GET /livez", "registry.example", "", false, false},
		{"0.0.0.0", "GET /v1/none", "node-1:9800", "", false, false},
		{"192.0.2.1", "GET /v1/none", "node-1:9800", "", false, false},
	} {
		h := &httpServer{loopback: onLoopback(&net.TCPAddr{IP: net.ParseIP(row.listens)}), tokensOn: func() bool { return row.tokensOn }}
		method, path, _ := strings.Cut(row.request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Host = row.host
		if row.token != "" {
			r.Header.Set("Authorization", row.token)
		}
		w := httptest.NewRecorder()
		passed := false
		h.refuseRebound(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, r)
		if passed == row.refused || row.refused && (w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"field":"Host"`)) {
			t.Errorf("%s: passed %t, %d %s", fmt.Sprint(row), passed, w.Code, w.Body)
		}
	}
}
