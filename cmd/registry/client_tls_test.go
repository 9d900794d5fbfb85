package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
)

// serveTLS starts a node whose clients need a certificate of ca.
func serveTLS(t *testing.T, ca *certstest.CA, files certs.Files, more ...string) (port int, n *running) {
	t.Helper()
	p := freePorts(t, 2)
	args := append([]string{"serve", "-id", "n1", "-bind", local(p), "-addr", local(p + 1), "-data-dir", t.TempDir(), "-cert", files.Cert, "-key", files.Key}, more...)
	n = start(t, args...)
	n.stderrUntil("listening") // before that it refuses connections
	return p + 1, n
}

// tlsArgsOf are the flags of a client with these files.
func tlsArgsOf(f certs.Files) []string { return []string{"-ca", f.CA, "-cert", f.Cert, "-key", f.Key} }

// Every kind of command talks TLS: by the SDK, by a connection of its own, by a stream,
// and to complete a word; by flags and by the environment.
func TestCommandsSpeakTLS(t *testing.T) {
	ca := certstest.NewCA(t)
	client := ca.Client("client")
	port, _ := serveTLS(t, ca, ca.Server("server"), "-client-ca", ca.Path)
	t.Setenv("REGISTRY_ADDRS", local(port))
	for name, value := range map[string]string{"REGISTRY_CA": client.CA, "REGISTRY_CLIENT_CERT": client.Cert, "REGISTRY_CLIENT_KEY": client.Key} {
		t.Setenv(name, value)
	}
	untilServing(t, port)
	service := start(t, "register", "-group", "web", "-id", "w1", "-addr", "127.0.0.1:8080")
	service.stderrUntil("registered")
	watch := start(t, "watch", "web")
	watch.until("w1")
	if out := ok(t, "match", "web", "user-1"); !strings.Contains(out, "w1") {
		t.Error(out)
	}
	if out := ok(t, "bench", "match", "-groups", "1", "-members", "2", "-callers", "1", "-duration", "50ms"); !strings.Contains(out, " 0 errors") {
		t.Error(out)
	}
	if out := ok(t, "members", "", completeFlag); !strings.Contains(out, "web") {
		t.Errorf("completed by the environment: %q", out)
	}
	for _, name := range []string{"REGISTRY_CA", "REGISTRY_CLIENT_CERT", "REGISTRY_CLIENT_KEY"} {
		t.Setenv(name, "")
	}
	ok(t, append([]string{"cluster", "status"}, tlsArgsOf(client)...)...)
	if out := ok(t, append(append([]string{"members"}, tlsArgsOf(client)...), "", completeFlag)...); !strings.Contains(out, "web") {
		t.Errorf("completed by flags: %q", out)
	}
}

// What does not fit ends a command at once, in words and with a hint.
func TestTLSErrorsAreInWords(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	client := ca.Client("client")
	plain := freePorts(t, 2)
	start(t, "serve", "-id", "p1", "-bind", local(plain), "-addr", local(plain+1), "-data-dir", t.TempDir())
	untilServing(t, plain+1)
	open, _ := serveTLS(t, ca, ca.Server("server"))
	locked, _ := serveTLS(t, ca, ca.Server("locked"), "-client-ca", ca.Path)
	elsewhere, _ := serveTLS(t, ca, ca.Issue("elsewhere", certs.Request{Server: true, Hosts: []string{"a.example"}}))
	expired, _ := serveTLS(t, ca, ca.Issue("expired", certs.Request{Server: true, Hosts: []string{"127.0.0.1"}, Lifetime: -time.Minute}))
	for name, c := range map[string]struct {
		port       int
		args       []string
		says, hint string
	}{
		"node with TLS":         {open, nil, "the node speaks TLS", "set -ca"},
		"node without TLS":      {plain + 1, []string{"-ca", ca.Path}, "the node does not speak TLS", "leave out -ca"},
		"other name":            {elsewhere, []string{"-ca", ca.Path}, "the certificate is for a.example, not for 127.0.0.1", "-server-name"},
		"expired":               {expired, []string{"-ca", ca.Path}, "the certificate expired at", "another certificate"},
		"unknown authority":     {open, []string{"-ca", other.Path}, "unknown authority", "-ca or REGISTRY_CA names"},
		"system's authorities":  {open, []string{"-server-name", "127.0.0.1"}, "unknown authority", "-ca or REGISTRY_CA names"},
		"no client certificate": {locked, []string{"-ca", ca.Path}, "refuse", "-cert and -key"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"groups", "health", "watch web"} {
				began := time.Now()
				args := append(strings.Fields(command), "-registries", local(c.port), "-timeout", "20s")
				r := execute(t, t.Context(), "", append(args, c.args...)...)
				if r.code != exitUnavailable || !strings.Contains(r.stderr, local(c.port)+": ") || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stderr, c.hint) {
					t.Errorf("%s: %+v", command, r)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("%s: it took %v", command, took)
				}
			}
		})
	}
	ok(t, "groups", "-registries", local(elsewhere), "-ca", ca.Path, "-server-name", "a.example")
	for name, args := range map[string][]string{
		"a certificate alone": {"-cert", client.Cert}, "no such file": {"-ca", "/none"}, "not a certificate": {"-ca", client.Key},
	} {
		for _, command := range []string{"groups", "health"} {
			if r := execute(t, t.Context(), "", append([]string{command}, args...)...); r.code != exitUsage || !strings.Contains(r.stderr, "-cert") {
				t.Errorf("%s, %s: %+v", name, command, r)
			}
		}
	}
	var health []healthJSON
	r := execute(t, t.Context(), "", "health", "-json", "-addr", local(open))
	if err := json.Unmarshal([]byte(r.stdout), &health); err != nil || len(health) != 1 || !strings.Contains(health[0].Error, "speaks TLS") {
		t.Errorf("%+v, %v", r, err)
	}
}

// SIGHUP reads the certificate files again, and does not end a node that has them.
func TestHangupReadsCertificatesAgain(t *testing.T) {
	ca := certstest.NewCA(t)
	files := ca.Server("server")
	p, audit := freePorts(t, 2), filepath.Join(t.TempDir(), "audit.log")
	n := startProcess(t, "serve", "-id", "n1", "-bind", local(p), "-addr", local(p+1), "-data-dir", t.TempDir(), "-cert", files.Cert, "-key", files.Key, "-audit-log", audit)
	t.Setenv("REGISTRY_CA", ca.Path)
	untilServing(t, p+1)
	certstest.Write(t, files.Cert, []byte("garbage"))
	hangUp(t, n, audit)
	ok(t, "health", "-addr", local(p+1))
	n.stop()
	if says := n.log.String(); !strings.Contains(says, "the ones before stay in use") {
		t.Error(says)
	}
}
