package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDebugAddress(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:6060": "127.0.0.1:6060", "127.9.9.9:0": "127.9.9.9:0", "[::1]:6060": "[::1]:6060", "localhost:6060": "127.0.0.1:6060",
		":6060": "", "0.0.0.0:6060": "", "[::]:6060": "", "192.168.1.4:6060": "", "[::ffff:192.168.1.4]:6060": "", "registry.example:6060": "",
		"localhost.example:6060": "", "127.0.0.1": "", "6060": "", "127.0.0.1:http": "", "127.0.0.1:65536": "",
	} {
		got, err := parseDebugAddr(addr)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
	}
	const says = `-debug-addr: must be host:port on loopback, such as 127.0.0.1:6060, because it asks for no token, got ":6060"`
	ended, end := context.WithCancel(t.Context()) // a node that starts all the same ends at once
	end()
	for _, args := range [][]string{{"serve", "-id", "n1", "-debug-addr", ":6060"}, {"debug", "log-level", "-debug-addr", ":6060"}} {
		if r := execute(t, ended, "", args...); r.code != exitUsage || r.stderr != "registry: "+says+"\n" {
			t.Errorf("%q: %+v", args, r)
		}
	}
	file := writeConfig(t, "id: n1\ndebug-addr: \":6060\"\n")
	if r := execute(t, ended, "", "serve", "-config", file); r.code != exitUsage || !strings.Contains(r.stderr, file+":2: "+says) {
		t.Errorf("%+v", r)
	}
}

// A page from elsewhere, in a browser on this machine, reads and causes nothing.
func TestDebugListenerRefusesOtherPages(t *testing.T) {
	t.Parallel()
	level := new(slog.LevelVar)
	handler := debugHandler(level, slog.New(slog.DiscardHandler))
	for _, row := range []struct {
		host, site string
		refused    bool
	}{
		{"127.0.0.1:6060", "", false},
		{"[::1]:6060", "none", false},
		{"localhost:6060", "same-origin", false},
		{"evil.example:6060", "", true},
		{"evil.example", "same-origin", true},
		{"127.0.0.1:6060", "cross-site", true},
		{"localhost:6060", "same-site", true},
	} {
		for _, request := range []string{"GET /debug/log-level", "PUT /debug/log-level", "GET /debug/pprof/", "GET /debug/pprof/heap", "GET /debug/pprof/cmdline", "GET /debug/none"} {
			method, path, _ := strings.Cut(request, " ")
			r := httptest.NewRequest(method, path, strings.NewReader("debug"))
			r.Host = row.host
			if row.site != "" {
				r.Header.Set("Sec-Fetch-Site", row.site)
			}
			w := httptest.NewRecorder()
			level.Set(slog.LevelInfo)
			handler.ServeHTTP(w, r)
			if (w.Code == http.StatusForbidden) != row.refused || row.refused && level.Level() != slog.LevelInfo {
				t.Errorf("%+v, %s: %d %.80q, level %v", row, request, w.Code, w.Body, level.Level())
			}
		}
	}
}

func TestLogLevelIsSet(t *testing.T) {
	t.Parallel()
	level, log := new(slog.LevelVar), new(lockedBuffer)
	handler := debugHandler(level, slog.New(newTextHandler(log, level)))
	for _, row := range []struct {
		method, body string
		code         int
		answer       string
	}{
		{"GET", "", 200, "info"},
		{"PUT", "error\n", 200, "error"},
		{"GET", "", 200, "error"},
		{"PUT", "DEBUG", 200, "debug"},
		{"PUT", "loud", 400, `LEVEL: must be debug, info, warn or error, got "loud"`},
		{"PUT", "", 400, `LEVEL: must be debug, info, warn or error, got ""`},
		{"PUT", strings.Repeat("debug", 100), 400, "the level cannot be read: http: request body too large"},
		{"POST", "info", 405, "Method Not Allowed"},
		{"OPTIONS", "", 405, "Method Not Allowed"},
		{"GET", "", 200, "debug"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(row.method, debugLevelPath, strings.NewReader(row.body))
		r.Host = "127.0.0.1:6060"
		handler.ServeHTTP(w, r)
		if got := strings.TrimSpace(w.Body.String()); w.Code != row.code || got != row.answer {
			t.Errorf("%s %.10q: %d %q, want %d %q", row.method, row.body, w.Code, got, row.code, row.answer)
		}
	}
	want := "INFO  log level changed by=-debug-addr from=INFO to=ERROR\nINFO  log level changed by=-debug-addr from=ERROR to=DEBUG\n"
	if diff := cmp.Diff(want, regexp.MustCompile(`(?m)^\S+ `).ReplaceAllString(log.String(), "")); diff != "" {
		t.Error(diff)
	}
}

// A node serves profiles and its log level while it runs, and no longer; without the flag
// it serves them nowhere.
func TestDebugListener(t *testing.T) {
	dir, port, debug := t.TempDir(), freePorts(t, 2), local(freePorts(t, 1))
	t.Setenv("REGISTRY_DEBUG_ADDR", debug)
	n := serveNode(t, dir, "n1", port, port+1)
	untilServing(t, port+1)
	if out := ok(t, "debug", "log-level"); out != "info\n" {
		t.Errorf("%q", out)
	}
	if out := ok(t, "debug", "log-level", "error"); out != "error\n" {
		t.Errorf("%q", out)
	}
	get := func(addr, path string) (int, string) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for path, says := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "registry.Start", "/debug/pprof/symbol": "num_symbols", "/debug/pprof/cmdline": ""} {
		if code, body := get(debug, path); code != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
		if code, _ := get(local(port+1), path); code != http.StatusNotFound {
			t.Errorf("the client port has %s: %d", path, code)
		}
	}
	taken := serveNode(t, t.TempDir(), "n2", freePorts(t, 1), freePorts(t, 1))
	taken.wait(exitFailure)
	if says := taken.stderr.String(); !strings.Contains(says, "-debug-addr "+debug) || !strings.Contains(says, "choose another port") {
		t.Error(says)
	}
	// A profile under way does not hold the end of the node up.
	profile := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + debug + "/debug/pprof/trace?seconds=3600")
		close(begun)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		profile <- err
	}()
	<-begun
	n.cancel(nil)
	n.wait(exitOK)
	select {
	case err := <-profile:
		if err == nil {
			t.Error("a profile of an hour came to its end")
		}
	case <-time.After(patience):
		t.Fatal("the listener outlives its node")
	}
	if log := n.stderr.String(); !strings.Contains(log, "log level changed") || strings.Contains(log, "stopping") {
		t.Errorf("the level is not that which was set:\n%s", log)
	}
	for _, args := range [][]string{{"debug", "log-level"}, {"debug", "log-level", "warn"}} {
		if r := execute(t, t.Context(), "", args...); r.code != exitUnavailable || !strings.Contains(r.stderr, "does a node on this machine run with -debug-addr "+debug) {
			t.Errorf("%q after the node's end: %+v", args, r)
		}
	}
}

func TestDebugUsage(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"debug":                     "debug needs a command: log-level",
		"debug log-level":           "-debug-addr is required",
		"debug log-level info warn": `unexpected argument "warn"`,
		"debug log-level loud -debug-addr 127.0.0.1:1": `LEVEL: must be debug, info, warn or error, got "loud"`,
	} {
		if r := execute(t, t.Context(), "", strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
