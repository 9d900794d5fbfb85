package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Diagnose sends a file, and then answers as the test says.
func (f *fake) Diagnose(_ *registrypb.DiagnoseRequest, stream grpc.ServerStreamingServer[registrypb.DiagnoseResponse]) error {
	f.mu.Lock()
	name, err := f.diagnosed, f.fail["Diagnose"]
	f.mu.Unlock()
	if name != "" {
		if err := stream.Send(&registrypb.DiagnoseResponse{Name: name, Data: []byte("some")}); err != nil {
			return err
		}
	}
	if f.diagnosing != nil {
		close(f.diagnosing)
		<-stream.Context().Done()
	}
	return err
}

// unpack reads a bundle: its files, with what is compressed in them.
func unpack(t *testing.T, path string) (files map[string]string, m bundleManifest) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for archive := tar.NewReader(bytes.NewReader(gunzip(t, data))); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(h.Name, ".gz") {
			data = gunzip(t, data)
		}
		files[strings.TrimPrefix(h.Name, bundleDir)] = string(data)
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &m); err != nil {
		t.Fatal(err)
	}
	return files, m
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(zip); err != nil {
		t.Fatal(err)
	}
	return data
}

// Two nodes with a secret and tokens: an administrator gets the files of both, without the
// secrets; another token gets nothing; when a node is down the manifest says so.
func TestDebugBundle(t *testing.T) {
	dir, port := t.TempDir(), freePorts(t, 4)
	file := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "secret", "new", "-out", file("secret"))
	t.Setenv("REGISTRY_ADDRS", local(port+1))
	first := serveNode(t, dir, "n1", port, port+1, "-secret-file", file("secret"))
	untilServing(t, port+1)
	second := serveNode(t, dir, "n2", port+2, port+3, "-secret-file", file("secret"), "-registries="+local(port))
	untilServing(t, port+3)
	ok(t, "token", "init", "-out", file("admin"))
	ok(t, "token", "create", "-token-file", file("admin"), "-name", "web", "-allow", "discover:web", "-out", file("web"))
	out := file("bundle.tar.gz")

	if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", "-token-file", file("web"), out); r.code != exitDenied || !strings.Contains(r.stderr, "lacks the right admin") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Error(err)
	}
	t.Setenv("REGISTRY_TOKEN_FILE", file("admin"))
	if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "10ms", out); r.code != exitOK || r.stderr != "wrote "+out+": 2 of 2 nodes\n" {
		t.Errorf("%+v", r)
	}
	files, m := unpack(t, out)
	for _, n := range m.Nodes {
		if n.Error != "" || len(n.Missing) > 0 || !slices.Equal(n.Files, []string{"status.json", "version.txt", "config.yaml", "log.txt", "metrics.txt", "goroutines.txt", "heap.pb.gz", "cpu.pb.gz"}) {
			t.Errorf("%+v", n)
		}
	}
	for name, want := range map[string]string{
		"status.json": `"n2"`, "node-n1/config.yaml": `id: "n1"`, "node-n2/config.yaml": "# command line", "node-n2/log.txt": "msg=listening id=n2",
		"node-n1/metrics.txt": "registry_ready 1", "node-n1/goroutines.txt": "goroutine profile:", "node-n1/status.json": `"n1"`, "node-n1/version.txt": "registry ",
		"node-n1/heap.pb.gz": "inuse_space", "node-n1/cpu.pb.gz": "cpu",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s lacks %q: %.300q", name, want, files[name])
		}
	}
	for _, name := range []string{"secret", "admin", "web"} {
		secret, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		for in, text := range files {
			if strings.Contains(text, strings.TrimSpace(string(secret))) {
				t.Errorf("%s has the text of %s", in, name)
			}
		}
	}
	second.cancel(nil)
	second.wait(exitOK)
	if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", out); r.code != exitOK || !strings.Contains(r.stderr, "n2 is missing: ") || !strings.Contains(r.stderr, ": 1 of 2 nodes\n") {
		t.Errorf("%+v", r)
	}
	if files, m = unpack(t, out); len(m.Nodes) != 2 || m.Nodes[1].Error == "" || len(m.Nodes[1].Files) > 0 || len(m.Nodes[0].Files) != 7 || files["node-n2/log.txt"] != "" {
		t.Errorf("%+v", m)
	}
	first.cancel(nil)
	first.wait(exitOK)
	_ = os.Remove(out)
	if r := execute(t, t.Context(), "", "debug", "bundle", out); r.code != exitUnavailable {
		t.Errorf("%+v", r)
	}
	left, err := filepath.Glob(out + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a node sends is not believed: neither names nor sizes, nor that it is whole.
func TestDebugBundleOfANodeThatFails(t *testing.T) {
	for _, tc := range []struct {
		name, file, says string
		err              error
		code             int
	}{
		{"a path", "../../etc/passwd", "a file that nobody expects", nil, exitFailure},
		{"no name", ".", "a file that nobody expects", nil, exitFailure},
		{"an older version", "", "", status.Error(codes.Unimplemented, "unknown method"), exitFailure},
		{"an answer that ends", "log.txt", "log.txt: it may not be whole", status.Error(codes.Unavailable, "gone"), exitOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := startFake(t)
			f.nodes = []*registrypb.NodeStatus{{Id: "n1", Addr: f.addr, Role: "leader"}}
			f.diagnosed, f.fail["Diagnose"] = tc.file, tc.err
			out := filepath.Join(t.TempDir(), "out")
			r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", out)
			if r.code != tc.code || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("%+v", r)
			}
			if tc.code != exitOK {
				return
			}
			if files, m := unpack(t, out); files["node-n1/log.txt"] != "some" || len(m.Nodes[0].Missing) != 1 || !strings.Contains(m.Nodes[0].Error, "gone") {
				t.Errorf("%+v, %+v", files, m)
			}
		})
	}
}

// A command that is interrupted, a full disk and a directory that is not there leave no file.
func TestDebugBundleLeavesNothing(t *testing.T) {
	f := startFake(t)
	f.nodes = []*registrypb.NodeStatus{{Id: "n1", Addr: f.addr, Role: "leader"}}
	f.diagnosed, f.diagnosing = "log.txt", make(chan struct{})
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan result, 1)
	go func() { done <- execute(t, ctx, "", "debug", "bundle", "-cpu", "0", out) }()
	<-f.diagnosing
	cancel(signalCause{os.Interrupt})
	if r := <-done; r.code != exitInterrupted || r.stderr != "registry: interrupted\n" {
		t.Errorf("%+v", r)
	}
	f.diagnosing = nil
	for _, tc := range []struct {
		path string
		code int
	}{{filepath.Join(dir, "none", "out"), exitFailure}, {dir, exitUsage}} {
		if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", tc.path); r.code != tc.code || !strings.Contains(r.stderr, tc.path[:len(dir)]) {
			t.Errorf("%+v", r)
		}
	}
	for _, cpu := range []string{"11s", "-1s", "1us"} {
		if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", cpu, out); r.code != exitUsage || !strings.Contains(r.stderr, "want 0, or 1ms to 10s") {
			t.Errorf("%+v", r)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	full := errors.New("no space left on device")
	b := &bundle{out: tar.NewWriter(failingWriter{full})}
	n := &bundleNode{Dir: "node-n1"}
	sent := []*registrypb.DiagnoseResponse{{Name: "log.txt", Data: []byte("some")}}
	err := b.receive(n, func() (*registrypb.DiagnoseResponse, error) {
		if len(sent) == 0 {
			return nil, io.EOF
		}
		m := sent[0]
		sent = nil
		return m, nil
	})
	if _, own := errors.AsType[*bundleError](err); !own || !errors.Is(err, full) {
		t.Error(err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
