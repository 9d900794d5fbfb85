package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

func (f *fake) SaveSnapshot(_ *registrypb.SaveSnapshotRequest, stream grpc.ServerStreamingServer[registrypb.SaveSnapshotResponse]) error {
	if err := stream.Send(&registrypb.SaveSnapshotResponse{Data: f.savedFile}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the node stops")
}

// node starts a real one, which the commands ask.
func node(t *testing.T, id string) *registry.Node {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir, cfg.MinFreeDisk = id, "127.0.0.1:0", "127.0.0.1:0", t.TempDir(), 0
	n, err := registry.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("REGISTRY_ADDRS", n.Addr())
	return n
}

// names are the files of a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestSnapshotSaveInspectRestore(t *testing.T) {
	node(t, "n1")
	ok(t, "group", "set", "web", "-virtual-nodes", "64", "-yes")
	dir := t.TempDir()
	path := filepath.Join(dir, "state.snapshot")
	var saved, seen snapshotJSON
	if err := json.Unmarshal([]byte(ok(t, "snapshot", "save", "-json", path)), &saved); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() != saved.Bytes || names(t, dir) != "state.snapshot" {
		t.Errorf("%v, %v, the directory has %s", info.Mode(), err, names(t, dir))
	}
	if err := json.Unmarshal([]byte(ok(t, "snapshot", "inspect", "-json", path)), &seen); err != nil {
		t.Fatal(err)
	}
	if seen.Digest != saved.Digest || seen.Index != saved.Index || seen.SavedBy != "n1" || seen.Groups != 1 || len(seen.LargestGroups) != 1 || seen.LargestGroups[0].Group != "web" || len(seen.Nodes) != 1 {
		t.Errorf("%+v", seen)
	}
	text := ok(t, "snapshot", "inspect", path)
	for _, want := range []string{"cluster registry  id " + seen.ClusterID, "saved at ", "by node n1", "the file is whole", "1 group, 0 members, 1 node, 0 fences", "no tokens", "web"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}

	ok(t, "group", "set", "later", "-virtual-nodes", "64", "-yes")
	r := execute(t, t.Context(), "", "snapshot", "restore", path)
	if r.code != exitCheck || !strings.Contains(r.stderr, "(2 groups, 0 members, 0 tokens) would be replaced by that of index") || !strings.Contains(r.stderr, "-yes does it") {
		t.Errorf("without -yes: %+v", r)
	}
	if groups := ok(t, "groups"); !strings.Contains(groups, "later") {
		t.Errorf("it was done: %s", groups)
	}
	if r := execute(t, t.Context(), "", "snapshot", "restore", "-yes", path); r.code != exitOK || !strings.Contains(r.stderr, "restored 1 group, 0 members, 0 tokens") || !strings.Contains(r.stderr, "keep their registrations") {
		t.Errorf("%+v", r)
	}
	if groups := ok(t, "groups"); strings.Contains(groups, "later") || !strings.Contains(groups, "web") {
		t.Errorf("restored: %s", groups)
	}

	other := node(t, "n2") // of another cluster
	r = execute(t, t.Context(), "", "snapshot", "restore", path)
	if r.code != exitCheck || !strings.Contains(r.stderr, "the file is of another cluster") {
		t.Errorf("%s: %+v", other.ID(), r)
	}
	ok(t, "snapshot", "save", path) // replaces the file
	if text := ok(t, "snapshot", "inspect", path); !strings.Contains(text, "by node n2") {
		t.Errorf("not replaced:\n%s", text)
	}
}

// TestSnapshotSaveLeavesTheOldFile whatever goes wrong, and nothing beside it.
func TestSnapshotSaveLeavesTheOldFile(t *testing.T) {
	f := startFake(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "state.snapshot")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for sent, timeout := range map[string]string{"": "1s", "registry snapshot\n": patience.String()} {
		f.savedFile = []byte(sent)
		r := execute(t, t.Context(), "", "snapshot", "save", "-timeout", timeout, path)
		if r.code != exitUnavailable || sent != "" && !strings.Contains(r.stderr, "the node stops") { // before, it tries again
			t.Errorf("after %q: %+v", sent, r)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "old" || names(t, dir) != "state.snapshot" {
			t.Errorf("after %q: %q, %v, the directory has %s", sent, data, err, names(t, dir))
		}
	}
	if r := execute(t, t.Context(), "", "snapshot", "save", dir); r.code != exitUsage || !strings.Contains(r.stderr, "is not a file") {
		t.Errorf("%+v", r)
	}
}

func TestSnapshotOfNoUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.snapshot")
	for content, want := range map[string]string{
		"":                             "not a snapshot file",
		"registry snapshot\nH\x05\x00": "part 0, at byte 18, was cut off",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"inspect", "restore"} {
			if r := execute(t, t.Context(), "", "snapshot", command, path); r.code != exitFailure || !strings.Contains(r.stderr, want) {
				t.Errorf("%s of %q: %+v", command, content, r)
			}
		}
	}
	if r := execute(t, t.Context(), "", "snapshot", "inspect", path+".none"); r.code != exitFailure || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("%+v", r)
	}
}
