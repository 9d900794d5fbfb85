package registrytest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/raftlog"
)

const (
	releasedData = "../testdata/data"
	releasedNode = "n1"
)

// releasedLevels has the feature level of a new cluster of each release.
var releasedLevels = map[string]uint32{"0.1.0": 1}

// releasedGroup is a line of LOG.json: see testdata/data/make.
type releasedGroup struct {
	Group   string
	Members json.RawMessage
	Leases  map[string]uint64
}

// released is a data directory that a release left behind.
type released struct {
	t      *testing.T
	dir    string
	level  uint32
	groups []releasedGroup
}

func unpackReleased(t *testing.T, archive string) *released {
	t.Helper()
	version := filepath.Base(filepath.Dir(archive))
	r := &released{t: t, dir: filepath.Join(t.TempDir(), "data"), level: releasedLevels[version]}
	if r.level == 0 {
		t.Fatalf("releasedLevels does not have release %s", version)
	}
	unpack(t, archive, r.dir)
	state, err := os.ReadFile(strings.TrimSuffix(archive, ".tar.gz") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(state) {
		var g releasedGroup
		if err := json.Unmarshal(line, &g); err != nil {
			t.Fatal(err)
		}
		r.groups = append(r.groups, g)
	}
	if len(r.groups) == 0 {
		t.Fatal("no groups")
	}
	return r
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(files); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		default:
			err = fmt.Errorf("%s: type %q", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// start starts a node with the directory, at other addresses than it had.
func (r *released) start() (n *registry.Node, conn *grpc.ClientConn) {
	t := r.t
	t.Helper()
	n = startNode(t, releasedNode, func(cfg *registry.Config) { cfg.DataDir = r.dir })
	waitReady(t, n)
	// The log reaches back to before the snapshot, so the node would go on without it.
	if refused, err := filepath.Glob(filepath.Join(r.dir, "damaged-snapshots", "*")); err != nil || len(refused) > 0 {
		t.Errorf("refused snapshots: %v, %v", refused, err)
	}
	if kept, err := filepath.Glob(filepath.Join(r.dir, "snapshots", "*", "state.bin")); err != nil || len(kept) != 1 {
		t.Errorf("snapshots: %v, %v", kept, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return n, conn
}

// check compares what a node has with what the release had, and writes.
func (r *released) check(ctx context.Context, conn *grpc.ClientConn) {
	t := r.t
	t.Helper()
	api, read := registrypb.NewRegistryClient(conn), &registrypb.ReadOptions{Linearizable: true}
	var names []string
	for _, g := range r.groups {
		names = append(names, g.Group)
		want := new(registrypb.MembersResponse)
		if err := protojson.Unmarshal(g.Members, want); err != nil {
			t.Fatal(err)
		}
		got, err := api.Members(ctx, &registrypb.MembersRequest{Group: g.Group, Read: read})
		if err != nil {
			t.Fatalf("group %s: %v", g.Group, err)
		}
		got.Receipt = &registrypb.Receipt{Revision: got.Receipt.Revision, Fingerprint: got.Receipt.Fingerprint}
		if !proto.Equal(got, want) {
			t.Errorf("group %s has\n%v\nand had\n%v", g.Group, got, want)
		}
		beat, err := api.Heartbeat(ctx, &registrypb.HeartbeatRequest{LeaseIds: slices.Collect(maps.Values(g.Leases))})
		if err != nil || len(beat.Lost) > 0 || len(g.Leases) != len(want.Members) {
			t.Errorf("group %s: %d leases of %d members, lost: %v, %v", g.Group, len(g.Leases), len(want.Members), beat.GetLost(), err)
		}
	}
	list, err := api.Groups(ctx, &registrypb.GroupsRequest{Read: read})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range list.Groups {
		if g.Name != "churn" && g.Name != "new" && !slices.Contains(names, g.Name) {
			t.Errorf("a group %s, which was not there", g.Name)
		}
	}
	if _, err := api.Register(ctx, &registrypb.RegisterRequest{Group: "new", Id: "n", Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)}); err != nil {
		t.Errorf("a write: %v", err)
	}
	st, err := registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
	if err != nil || st.FeatureLevel != r.level {
		t.Errorf("feature level %d, want %d; %v", st.GetFeatureLevel(), r.level, err)
	}
}

// releases calls f for every data directory of a release.
func releases(t *testing.T, f func(t *testing.T, archive, log string)) {
	archives, err := filepath.Glob(filepath.Join(releasedData, "*", "*.tar.gz"))
	if err != nil || len(archives) < 2 {
		t.Fatal(archives, err)
	}
	for _, archive := range archives {
		log := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		t.Run(filepath.Base(filepath.Dir(archive))+"/"+log, func(t *testing.T) { f(t, archive, log) })
	}
}

// A node of this version goes on with the data directory of a release that was killed,
// also when its log was moved or compacted before. The feature level stays until it is
// raised.
func TestDataOfReleases(t *testing.T) {
	t.Parallel()
	releases(t, func(t *testing.T, archive, log string) {
		other := raftlog.WAL
		if log == other {
			other = raftlog.Bolt
		}
		for name, before := range map[string]func(t *testing.T, dir string){
			"as it is":       func(*testing.T, string) {},
			"moved":          func(t *testing.T, dir string) { moveLog(t, dir, other) },
			"moved and back": func(t *testing.T, dir string) { moveLog(t, dir, other); moveLog(t, dir, log) },
			"compacted": func(t *testing.T, dir string) {
				if _, _, err := store.CompactLog(dir); err != nil && !(log == raftlog.WAL && errors.Is(err, store.ErrNothingToCompact)) {
					t.Error(err)
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				r := unpackReleased(t, archive)
				before(t, r.dir)
				n, conn := r.start()
				r.check(ctx, conn)
				resp, err := registrypb.NewClusterClient(conn).RaiseFeatureLevel(ctx, &registrypb.RaiseFeatureLevelRequest{})
				if err != nil || resp.Level != fsm.NewestLevel {
					t.Fatalf("raise the level: %v, %v", resp, err)
				}
				r.level = resp.Level
				r.check(ctx, conn)
				if err := n.Close(); err != nil {
					t.Fatal(err)
				}
				_, conn = r.start()
				r.check(ctx, conn)
			})
		}
	})
}

func moveLog(t *testing.T, dir, to string) {
	t.Helper()
	move, err := store.MigrateLog(dir, to, slog.New(slog.DiscardHandler))
	if err != nil || move.To != to || move.Last < 300 {
		t.Fatalf("%+v, %v", move, err)
	}
}

// A changed byte in an entry of a release's log is found at the start, which names the
// directory and what to do.
func TestDamagedDataOfReleases(t *testing.T) {
	t.Parallel()
	releases(t, func(t *testing.T, archive, log string) {
		r := unpackReleased(t, archive)
		changed := 0
		err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			at := bytes.LastIndex(data, []byte("instance-late-l07"))
			if err != nil || at < 0 {
				return err
			}
			changed++
			data[at] ^= 1
			return os.WriteFile(path, data, 0o600)
		})
		if err != nil || changed != 1 {
			t.Fatalf("%d files have the entry, %v", changed, err)
		}
		cfg := registry.DefaultConfig()
		cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir, cfg.Logger = releasedNode, "127.0.0.1:0", "127.0.0.1:0", r.dir, testLogger(t)
		n, err := registry.Start(t.Context(), cfg)
		if err == nil {
			_ = n.Close()
			t.Fatal("it starts")
		}
		for _, want := range []string{r.dir, "damaged", "registry cluster remove " + releasedNode} {
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), want) {
				t.Errorf("it does not say %q: %v", want, err)
			}
		}
	})
}
