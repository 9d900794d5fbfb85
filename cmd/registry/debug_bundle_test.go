package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
		return status.FromContextError(stream.Context().Err()).Err() // the deadline may come here first
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
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C { // until n2 has heard of the tokens
		r := execute(t, t.Context(), "", "token", "self", "-token-file", file("web"), "-registries", local(port+3))
		if r.code == exitOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r)
		}
	}

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
	other := file("other.tar.gz")
	if r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", "-cluster", "other", other); r.code != exitConflict {
		t.Errorf("another cluster: %+v", r)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Error(err)
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

// received gives a bundle what a node sends, and returns the sizes of the files that it writes.
func received(t *testing.T, sent ...*registrypb.DiagnoseResponse) (n *bundleNode, files map[string]int64, err error) {
	t.Helper()
	var out bytes.Buffer
	b := &bundle{out: tar.NewWriter(&out)}
	n = &bundleNode{Addr: "10.0.0.1:9800", Dir: "node-n1"}
	err = b.receive(n, func() (*registrypb.DiagnoseResponse, error) {
		if len(sent) == 0 {
			return nil, io.EOF
		}
		m := sent[0]
		sent = sent[1:]
		return m, nil
	})
	if err := b.out.Close(); err != nil {
		t.Fatal(err)
	}
	files = map[string]int64{}
	for archive := tar.NewReader(&out); ; {
		h, next := archive.Next()
		if next == io.EOF {
			return n, files, err
		}
		if next != nil {
			t.Fatal(next)
		}
		files[strings.TrimPrefix(h.Name, bundleDir+"node-n1/")] = h.Size
	}
}

// A node sends as much as a bundle takes and no more, and the manifest has what is not whole.
func TestDebugBundleIsBounded(t *testing.T) {
	part := func(name string, size int, failure string) *registrypb.DiagnoseResponse {
		return &registrypb.DiagnoseResponse{Name: name, Data: make([]byte, size), Error: failure}
	}
	n, files, err := received(t, part("a", maxBundleFile/2, ""), part("a", maxBundleFile/2, ""), part("a", 1, ""), part("b", 1, ""))
	if err == nil || !strings.Contains(err.Error(), "more than 16777216 bytes of a") || len(files) != 1 || files["a"] != maxBundleFile || len(n.Files) != 1 {
		t.Errorf("too large: %v, files %v, %+v", err, files, n)
	}
	var many []*registrypb.DiagnoseResponse
	for i := range maxBundleFiles + 1 {
		many = append(many, part(fmt.Sprint("f", i), 1, ""))
	}
	if _, files, err := received(t, many...); err == nil || !strings.Contains(err.Error(), "nobody expects") || len(files) != maxBundleFiles {
		t.Errorf("too many: %v, %d files", err, len(files))
	}
	n, files, err = received(t, part("a", 2, "cut off"), part("b", 0, "none"), part("c", 3, ""))
	if want := []bundleMissing{{"a", "cut off"}, {"b", "none"}}; err != nil || !maps.Equal(files, map[string]int64{"a": 2, "c": 3}) || !slices.Equal(n.Missing, want) || !slices.Equal(n.Files, []string{"a", "c"}) {
		t.Errorf("not whole: %v, files %v, %+v", err, files, n)
	}
}

// The files of a node stay in its folder, whatever id it claims. One of an earlier version, and one
// that hangs, are named with the reason.
func TestDebugBundleOfOtherNodes(t *testing.T) {
	f, earlier, hanging := startFake(t), newFake(t), newFake(t)
	f.diagnosed, hanging.diagnosed = "log.txt", "log.txt"
	earlier.fail["Diagnose"] = status.Error(codes.Unimplemented, "unknown method")
	hanging.diagnosing = make(chan struct{})
	f.nodes = []*registrypb.NodeStatus{
		{Id: "../../up", Addr: f.addr, Role: "leader"}, {Id: "n2", Addr: earlier.addr, Role: "follower"}, {Id: "n3", Addr: hanging.addr, Role: "follower"},
	}
	out := filepath.Join(t.TempDir(), "out")
	r := execute(t, t.Context(), "", "debug", "bundle", "-cpu", "0", "-timeout", "500ms", out)
	if r.code != exitOK || !strings.Contains(r.stderr, "n2 is missing: its version has no diagnosis\n") || !strings.Contains(r.stderr, "n3: log.txt: it may not be whole") ||
		!strings.HasSuffix(r.stderr, ": 1 of 3 nodes\n") {
		t.Errorf("%+v", r)
	}
	files, m := unpack(t, out)
	if files["node-..%2F..%2Fup/log.txt"] != "some" || files["node-n3/log.txt"] != "some" || len(files) != 4 || len(m.Nodes) != 3 {
		t.Errorf("%q, %+v", slices.Collect(maps.Keys(files)), m)
	}
}
