package rpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// spellings are how the secret part of a token or of a cluster could be written.
func spellings(text string, raw []byte) map[string][]byte {
	return map[string][]byte{
		"text": []byte(text), "raw": raw, "hex": []byte(hex.EncodeToString(raw)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(raw))),
		"base64": []byte(strings.TrimRight(base64.StdEncoding.EncodeToString(raw), "=")), "URL": []byte(base64.RawURLEncoding.EncodeToString(raw)),
		"Go": []byte(strings.Trim(fmt.Sprint(raw), "[]")),
	}
}

// Neither a token nor the cluster's secret is in a log, a metric, a status, an error, an
// event, a profile, a diagnosis, a span, a snapshot or raft's log: etcd CVE-2021-28235 and NATS GHSA-x6g4-f6q3-fqvv logged them.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	secret, out := peertls.NewSecret(), new(logbuffer.Buffer)
	var dirs []string
	c := registrytest.Start(t, registrytest.WithSecret(writeSecret(t, secret)),
		registrytest.WithLogger(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		registrytest.WithConfig(func(cfg *registry.Config) {
			cfg.SnapshotThreshold, cfg.SnapshotInterval = 256, time.Second
			cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spanWriter{out}))
			dirs = append(dirs, cfg.DataDir)
		}))
	addr := c.Nodes()[0].Addr()
	conn := dial(t, addr, insecure.NewCredentials())
	planted := map[string][]byte{}
	plant := func(name, text string, raw []byte) {
		for how, s := range spellings(text, raw) {
			planted[name+" as "+how] = s
		}
	}
	rawSecret, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	plant("the secret", secret, rawSecret)
	token := func(name, text string) string {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "rgt_"))
		if err != nil {
			t.Fatal(err)
		}
		plant(name, text, raw[registrypb.TokenIDSize:])
		return text
	}
	tokens := registrypb.NewTokensClient(conn)
	text, id, hash := registrypb.MakeToken()
	valid := token("the token", text)
	if _, err := tokens.Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}}); err != nil {
		t.Fatal(err)
	}
	wrong, _, _ := registrypb.MakeToken()
	guess, _ := registrypb.MakeTokenSecret(id)
	for name, text := range map[string]string{"a wrong token": wrong, "a guess": guess} {
		for _, header := range []string{"Bearer " + token(name, text), "Basic " + text, text} {
			_, err := tokens.Self(presenting(t.Context(), header), &registrypb.SelfRequest{})
			if err == nil {
				t.Errorf("%s is a token", name)
			}
			fmt.Fprintln(out, err)
			fmt.Fprintln(out, page(t, addr, header))
		}
	}
	ctx := presenting(t.Context(), "Bearer "+valid)
	for i := range 600 { // until there is a snapshot
		if _, err := registrypb.NewRegistryClient(conn).SetGroup(ctx, &registrypb.SetGroupRequest{Group: fmt.Sprintf("g%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	showEvents(t, out, conn, ctx)
	status, err := registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := tokens.List(ctx, &registrypb.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(out, status, list, page(t, addr, "Bearer "+valid))
	showDiagnosis(t, out, registrypb.NewClusterClient(conn), ctx)
	showProfiles(t, out)
	snapshots := awaitSnapshot(t, dirs)
	files := 0
	for _, dir := range dirs {
		files += appendFiles(t, out, dir)
	}
	t.Logf("%d bytes of logs, answers and files, %d files, %d of them snapshots'", len(out.String()), files, snapshots)
	all := []byte(out.String())
	for name, s := range planted {
		if bytes.Contains(all, s) {
			t.Errorf("%s is shown", name)
		}
	}
	if !bytes.Contains(all, hash) { // what is searched has what it should
		t.Error("the hash of the token is nowhere")
	}
	for _, span := range []string{"registry.v1.Tokens/Self", "raft.commit"} {
		if !bytes.Contains(all, []byte("Name:"+span)) {
			t.Errorf("there is no span %s", span)
		}
	}
}

// spanWriter writes all that spans have.
type spanWriter struct{ to io.Writer }

func (w spanWriter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, span := range tracetest.SpanStubsFromReadOnlySpans(spans) {
		fmt.Fprintf(w.to, "%+v\n", span)
		for _, a := range span.Attributes {
			fmt.Fprintln(w.to, a.Key, a.Value.String())
		}
	}
	return nil
}

func (spanWriter) Shutdown(context.Context) error { return nil }

// showDiagnosis shows the files of a diagnosis, with what is compressed in them.
func showDiagnosis(t *testing.T, out io.Writer, cluster registrypb.ClusterClient, ctx context.Context) {
	t.Helper()
	stream, err := cluster.Diagnose(ctx, &registrypb.DiagnoseRequest{Cpu: durationpb.New(50 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[m.Name] = append(files[m.Name], m.Data...)
	}
	for name, data := range files {
		if strings.HasSuffix(name, ".gz") {
			zip, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(zip); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(out, "%s: %s\n", name, data)
	}
	if len(files) != 8 || !bytes.Contains(files["log.txt"], []byte("audit: refused")) {
		t.Errorf("%d files, log %.500q", len(files), files["log.txt"])
	}
}

// showEvents watches a member that a token registers, changes and takes away, in every
// way: events tell of it, and of old values, and never of the token.
func showEvents(t *testing.T, out io.Writer, conn *grpc.ClientConn, ctx context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	api := registrypb.NewRegistryClient(conn)
	if _, err := api.SetGroup(ctx, &registrypb.SetGroupRequest{Group: "events"}); err != nil {
		t.Fatal(err)
	}
	var watches []grpc.ServerStreamingClient[registrypb.WatchEvent]
	for _, req := range []*registrypb.WatchRequest{
		{Target: &registrypb.WatchRequest_Group{Group: "events"}}, {Target: &registrypb.WatchRequest_Prefix{Prefix: "events"}},
		{Target: &registrypb.WatchRequest_Groups{Groups: true}}, {Target: &registrypb.WatchRequest_Nodes{Nodes: true}},
	} {
		watch, err := api.Watch(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		first, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(out, first)
		watches = append(watches, watch)
	}
	// until shows the events of the group, and of the prefix, up to one that tells of a change.
	until := func(tells func(*registrypb.GroupDelta) bool) {
		for _, watch := range watches[:2] {
			for seen := false; !seen; {
				event, err := watch.Recv()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(out, event)
				seen = tells(event.GetDelta())
			}
		}
	}
	member := &registrypb.RegisterRequest{Group: "events", Id: "m", Addr: "10.0.0.1:80", Instance: []byte("instance")}
	r, err := api.Register(ctx, member)
	if err != nil {
		t.Fatal(err)
	}
	until(func(d *registrypb.GroupDelta) bool { return len(d.GetPut()) > 0 })
	weight := uint32(2)
	updated, err := api.UpdateMember(ctx, &registrypb.UpdateMemberRequest{Group: "events", Id: "m", Weight: &weight})
	if err != nil {
		t.Fatal(err)
	}
	until(func(d *registrypb.GroupDelta) bool { return len(d.GetPut()) > 0 })
	gone, err := api.Deregister(ctx, &registrypb.DeregisterRequest{Group: "events", Id: "m"})
	if err != nil {
		t.Fatal(err)
	}
	until(func(d *registrypb.GroupDelta) bool { return len(d.GetRemoved()) > 0 })
	fmt.Fprintln(out, r, updated, gone)
}

// showProfiles shows the profiles of this process, which runs the nodes: they have the
// names of what runs and is held, and no values.
func showProfiles(t *testing.T, out io.Writer) {
	t.Helper()
	for _, p := range pprof.Profiles() {
		for _, debug := range []int{0, 1, 2} { // 0 is compressed: what is in it, 1 has as text
			if err := p.WriteTo(out, debug); err != nil {
				t.Errorf("%s: %v", p.Name(), err)
			}
		}
	}
}

func page(t *testing.T, addr, header string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", header)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.Header, string(body))
}

// awaitSnapshot waits until there is a snapshot, and returns how many files it has.
func awaitSnapshot(t *testing.T, dirs []string) int {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(registrytest.Patience); ; <-tick.C {
		files := 0
		for _, dir := range dirs {
			found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
			if err != nil {
				t.Fatal(err)
			}
			files += len(found)
		}
		if files > 0 {
			return files
		}
		if time.Now().After(deadline) {
			t.Fatal("no snapshot")
		}
	}
}

// appendFiles adds the content and the names of all files below a directory.
func appendFiles(t *testing.T, out io.Writer, dir string) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) { // a snapshot may have been replaced
			return err
		}
		files++
		_, err = fmt.Fprintf(out, "%s\n%s\n", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
