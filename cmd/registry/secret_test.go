package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
)

func TestSecretNew(t *testing.T) {
	if secrets, err := peertls.ParseSecrets([]byte(ok(t, "secret", "new"))); err != nil || len(secrets) != 1 {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
	path := filepath.Join(t.TempDir(), "secret")
	ok(t, "secret", "new", "-out", path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peertls.ParseSecrets(first); err != nil {
		t.Error(err)
	}
	// A file that exists is never replaced.
	r := execute(t, t.Context(), "", "secret", "new", "-out", path)
	if r.code != exitFailure || !strings.Contains(r.stderr, "exists") {
		t.Errorf("%+v", r)
	}
	ok(t, "secret", "new", "-out", path, "-keep")
	if again, err := os.ReadFile(path); err != nil || string(again) != string(first) {
		t.Errorf("the file has changed, %v", err)
	}
	if r := execute(t, t.Context(), "", "secret", "new", "-keep"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

// SIGHUP lets a locked node read its secret again, and does not end it.
func TestHangupReloads(t *testing.T) {
	port := freePorts(t, 2)
	file := filepath.Join(t.TempDir(), "secret")
	ok(t, "secret", "new", "-out", file)
	p := startProcess(t, "serve", "-id", "n1", "-bind", local(port), "-addr", local(port+1), "-data-dir", filepath.Join(t.TempDir(), "n1"), "-secret-file", file)
	awaitMetric(t, local(port+1), "registry_peer_files_unusable_total 0")
	certstest.Write(t, file, []byte("broken"))
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	awaitMetric(t, local(port+1), "registry_peer_files_unusable_total 1")
	p.stop()
}

// awaitMetric waits until a node exports a line.
func awaitMetric(t *testing.T, addr, line string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		resp, err := client.Get("http://" + addr + "/metrics")
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was read
		if err == nil && strings.Contains(string(body), "\n"+line+"\n") {
			return
		}
	}
	t.Fatalf("no line %q at %s", line, addr)
}
