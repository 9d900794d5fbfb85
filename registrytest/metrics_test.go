package registrytest_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// scrape reads what a node serves at /metrics.
func scrape(t testing.TB, n *registry.Node) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + n.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", n.ID(), resp.Status, err)
	}
	return body
}

// samples are the lines of a scrape: the name with its labels, and the value.
func samples(t testing.TB, body []byte) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:at]] = v
	}
	return all
}

// awaitSample waits until a node shows what is wanted of a sample.
func awaitSample(t *testing.T, n *registry.Node, name string, ok func(float64) bool) {
	t.Helper()
	awaitSamples(t, n, map[string]func(float64) bool{name: ok})
}

// awaitSamples waits until one scrape shows what is wanted of several.
func awaitSamples(t *testing.T, n *registry.Node, want map[string]func(float64) bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		var wrong []string
		all := samples(t, scrape(t, n))
		for name, ok := range want {
			if v, found := all[name]; !found || !ok(v) {
				wrong = append(wrong, fmt.Sprintf("%s is %v (found: %v)", name, v, found))
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", n.ID(), strings.Join(wrong, ", "))
		}
	}
}

func atLeast(least float64) func(float64) bool { return func(v float64) bool { return v >= least } }
func exactly(want float64) func(float64) bool  { return func(v float64) bool { return v == want } }

// TestMetricsFollowEvents makes things happen and looks for them in the scrape.
func TestMetricsFollowEvents(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	leader := -1
	for i, n := range c.nodes {
		if samples(t, scrape(t, n))["registry_raft_leader"] == 1 {
			leader = i
		}
	}
	if leader < 0 {
		t.Fatal("no node says that it leads")
	}
	follower := (leader + 1) % 3
	kept := c.register(t, follower, nil)
	c.register(t, follower, func(r *registrypb.RegisterRequest) { r.Id = "other" })
	for i, n := range c.nodes {
		awaitSample(t, n, "registry_members", atLeast(2))
		awaitSample(t, n, "registry_ring_builds_total", exactly(0)) // nobody has asked yet
		if _, err := c.apis[i].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("key")}); err != nil {
			t.Fatal(err)
		}
		awaitSample(t, n, "registry_rings", exactly(1))
		awaitSample(t, n, "registry_ring_memory_bytes", atLeast(1))
		awaitSample(t, n, "registry_groups", exactly(1))
		awaitSample(t, n, "registry_ring_builds_total", atLeast(1))
		awaitSample(t, n, "registry_ring_builds_pending", exactly(0))
		awaitSample(t, n, "registry_fsm_applied_entries_total", atLeast(3))
		awaitSample(t, n, "registry_fsm_apply_seconds_count", atLeast(1))
		awaitSample(t, n, "registry_raft_voters", exactly(3))
		awaitSample(t, n, "registry_log_size_bytes", atLeast(1))
		awaitSample(t, n, "registry_log_entries", atLeast(3))
		awaitSample(t, n, "registry_ready", exactly(1))
	}
	at := func(i int, name string, ok func(float64) bool) { t.Helper(); awaitSample(t, c.nodes[i], name, ok) }
	at(leader, "registry_leases", exactly(2))
	at(follower, "registry_leases", exactly(0))
	at(leader, `registry_write_seconds_count{outcome="ok"}`, atLeast(2))
	at(follower, `registry_requests_total{code="OK",method="Registry/Register",port="client"}`, exactly(2))
	at(leader, `registry_requests_total{code="OK",method="Registry/Register",port="node"}`, exactly(2))
	at(follower, `registry_request_seconds_count{method="Registry/Register",port="client"}`, exactly(2))

	if _, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: "nothing"}); err == nil {
		t.Error("a group that does not exist has members")
	}
	at(0, `registry_requests_total{code="NotFound",method="Registry/Members",port="client"}`, exactly(1))

	if _, err := c.apis[leader].Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: []uint64{kept.LeaseId, 1 << 40}}); err != nil {
		t.Fatal(err)
	}
	at(leader, "registry_heartbeats_total", exactly(1))
	at(leader, "registry_heartbeats_lost_total", exactly(1))
	at(leader, `registry_leadership_check_seconds_count{outcome="ok"}`, atLeast(1))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := c.apis[follower].Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	at(follower, `registry_open_streams{method="Registry/Watch",port="client"}`, exactly(1))
	at(follower, "registry_watch_events_total", atLeast(1))
	cancel()
	at(follower, `registry_open_streams{method="Registry/Watch",port="client"}`, exactly(0))

	c.register(t, follower, func(r *registrypb.RegisterRequest) { r.Id, r.Ttl = "short", durationpb.New(time.Second) })
	at(leader, "registry_leases_expired_total", exactly(1))
	for _, n := range c.nodes {
		awaitSample(t, n, "registry_members", exactly(2))
		awaitSample(t, n, `registry_http_requests_total{code="200",route="GET /metrics"}`, atLeast(3))
	}
	terms := samples(t, scrape(t, c.nodes[follower]))["registry_raft_term"]
	if _, err := registrypb.NewClusterClient(c.conns[0]).Transfer(t.Context(), &registrypb.TransferRequest{Id: c.nodes[follower].ID()}); err != nil {
		t.Fatal(err)
	}
	at(follower, "registry_raft_leader", exactly(1))
	at(follower, "registry_raft_elections_won_total", atLeast(1))
	at(follower, "registry_raft_term", atLeast(terms+1))
	at(leader, "registry_raft_leader_changes_total", atLeast(1))
	at(leader, "registry_raft_leader", exactly(0))
}

// TestGuardMetrics: the only series by group are of those that the guard holds.
func TestGuardMetrics(t *testing.T) {
	t.Parallel()
	n := startNode(t, "n1", nil)
	waitReady(t, n)
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	api := registrypb.NewRegistryClient(conn)
	register := func(ttl time.Duration) { // in one call, so that all leases end together on a busy machine, too
		t.Helper()
		req := &registrypb.RegisterManyRequest{}
		for i := range 30 {
			req.Registrations = append(req.Registrations, &registrypb.RegisterRequest{
				Group: "herd", Id: fmt.Sprint(i), Addr: fmt.Sprintf("10.0.0.%d:80", i), Ttl: durationpb.New(ttl), Instance: []byte("instance"),
			})
		}
		resp, err := api.RegisterMany(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.Results {
			if r.GetRegistered() == nil {
				t.Fatal(r)
			}
		}
	}
	register(time.Hour)
	if bytes.Contains(scrape(t, n), []byte(`group="herd"`)) {
		t.Error("a group in which nothing happens has a series")
	}
	register(2 * time.Second)
	// One scrape shows all: the guard does not hold for long.
	awaitSamples(t, n, map[string]func(float64) bool{
		"registry_guard_groups": exactly(1),
		`registry_guard_group_silent_members{group="herd",phase="holding"}`: atLeast(20),
		"registry_guard_holds_total":                                        exactly(1),
		"registry_guard_silent_leases":                                      atLeast(20),
	})
	if resp, err := api.AcceptLoss(t.Context(), &registrypb.AcceptLossRequest{Group: "herd"}); err != nil || resp.Silent < 20 {
		t.Fatalf("%v, %v", resp, err)
	}
	awaitSample(t, n, "registry_guard_accepted_total", exactly(1))
	awaitSample(t, n, "registry_guard_groups", exactly(0))
	awaitSample(t, n, "registry_guard_released_total", atLeast(20))
	awaitSample(t, n, "registry_members", exactly(0))
}

// TestMetricsFollowConventions has Prometheus' own rules look at a scrape.
func TestMetricsFollowConventions(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	c.register(t, 0, nil)
	body := scrape(t, c.nodes[0])
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	t.Run("promtool", func(t *testing.T) {
		tool, err := exec.LookPath("promtool")
		if err != nil {
			t.Skip("promtool is not installed (Debian: prometheus)")
		}
		check := exec.CommandContext(t.Context(), tool, "check", "metrics")
		check.Stdin = bytes.NewReader(body)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

// TestRegisterer: an embedder's registerer takes the metrics of one node, and
// has them taken back when the node is closed.
func TestRegisterer(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	use := func(r prometheus.Registerer) func(*registry.Config) {
		return func(cfg *registry.Config) { cfg.Registerer = r }
	}
	first := startNode(t, "n1", use(reg))
	waitReady(t, first)
	if got := samples(t, scrape(t, first)); got["registry_ready"] != 1 || got["go_goroutines"] != 0 {
		t.Errorf("ready %v, goroutines %v", got["registry_ready"], got["go_goroutines"])
	}
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir, cfg.Registerer = "n2", "127.0.0.1:0", "127.0.0.1:0", t.TempDir(), reg
	if n, err := registry.Start(t.Context(), cfg); err == nil {
		_ = n.Close()
		t.Error("two nodes share a registerer")
	} else if !strings.Contains(err.Error(), "register metrics") {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if left, err := reg.Gather(); err != nil || len(left) > 0 {
		t.Errorf("%d metrics are left, %v", len(left), err)
	}
	reg = prometheus.NewRegistry() // it remembers labels
	labelled := func(id string) func(*registry.Config) {
		return use(prometheus.WrapRegistererWith(prometheus.Labels{"node_id": id}, reg))
	}
	two := []*registry.Node{startNode(t, "n3", labelled("n3")), startNode(t, "n4", labelled("n4"))}
	waitReady(t, two...)
	families, err := reg.Gather()
	if err != nil {
		t.Error(err)
	}
	for _, f := range families {
		if f.GetName() == "registry_ready" && len(f.Metric) != 2 {
			t.Errorf("%d nodes are in the scrape", len(f.Metric))
		}
	}
}

// TestPrometheusScrapes has a real Prometheus scrape three nodes.
func TestPrometheusScrapes(t *testing.T) {
	if testing.Short() {
		t.Skip("another program's scrapes are late beside the race detector")
	}
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed (Debian: prometheus)")
	}
	t.Parallel()
	c := newAPICluster(t)
	c.register(t, 0, nil)
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 250ms}\nscrape_configs:\n- job_name: registry\n  static_configs:\n  - targets: [%q, %q, %q]\n",
		c.nodes[0].Addr(), c.nodes[1].Addr(), c.nodes[2].Addr())
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddrs(t, 1)[0]
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--web.listen-address="+addr, "--storage.tsdb.path="+filepath.Join(dir, "data"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		if _ = cmd.Wait(); t.Failed() { // killed
			t.Log(log.String())
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	query := func(expr string) string {
		resp, err := client.Get("http://" + addr + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return fmt.Sprint(string(body), err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for expr, want := range map[string]string{
		"sum(up)": "3", "sum(registry_ready)": "3", "sum(registry_raft_leader)": "1", "max(registry_members)": "1",
		`sum(registry_requests_total{method="Registry/Register",port="client"})`: "1",
	} {
		for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
			got := query(expr)
			if strings.Contains(got, `"`+want+`"]`) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s", expr, got)
			}
		}
	}
}
