package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/docs"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/access"
)

// guideConfigs are the configurations of the guide: without locks, and with.
func guideConfigs(t *testing.T) (open, locked string) {
	t.Helper()
	blocks, err := docs.Blocks(repository, "docs/guides/prometheus.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks = slices.DeleteFunc(blocks, func(b docs.Block) bool { return b.Lang != "yaml" })
	if len(blocks) != 2 {
		t.Fatalf("%d configurations in the guide", len(blocks))
	}
	return blocks[0].Text, blocks[1].Text
}

// replaced is a text with each old part, which must be there, by its new one.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the guide has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func needProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s (Debian: prometheus)", name)
	}
	return path
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func promtool(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, needProgram(t, "promtool"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// prometheusServer is a running Prometheus.
type prometheusServer struct {
	t    *testing.T
	addr string
}

func startPrometheus(t *testing.T, config string) *prometheusServer {
	t.Helper()
	s := &prometheusServer{t, local(freePorts(t, 1)[0])}
	start(t, command{name: "prometheus", path: needProgram(t, "prometheus"), args: []string{
		"--config.file=" + config, "--web.listen-address=" + s.addr, "--storage.tsdb.path=" + t.TempDir(),
	}})
	return s
}

func (s *prometheusServer) get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return data, err
}

// promTarget is a target as Prometheus shows it.
type promTarget struct {
	Labels    map[string]string `json:"labels"`
	ScrapeURL string            `json:"scrapeUrl"`
	Health    string            `json:"health"`
	LastError string            `json:"lastError"`
}

// targets are those of a job, by their instance.
func (s *prometheusServer) targets(job string) (map[string]promTarget, error) {
	data, err := s.get("/api/v1/targets?state=active")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			ActiveTargets []promTarget `json:"activeTargets"`
		} `json:"data"`
	}
	err = json.Unmarshal(data, &answer)
	all := make(map[string]promTarget)
	for _, t := range answer.Data.ActiveTargets {
		if t.Labels["job"] == job {
			all[t.Labels["instance"]] = t
		}
	}
	return all, err
}

// awaitTargets waits until the targets of the job web are those.
func (s *prometheusServer) awaitTargets(what string, want ...string) (got map[string]promTarget) {
	s.t.Helper()
	took := eventually(s.t, patience, what, func() (err error) {
		if got, err = s.targets("web"); err != nil {
			return err
		}
		if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
			return fmt.Errorf("%q, want %q", have, want)
		}
		return nil
	})
	s.t.Logf("%s: %v", what, ms(took))
	return got
}

// failures is how many questions of Prometheus had no usable answer.
func (s *prometheusServer) failures() (n float64, err error) {
	data, err := s.get("/metrics")
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "prometheus_sd_http_failures_total "); ok {
			_, err = fmt.Sscan(rest, &n)
		}
	}
	return n, err
}

// discoveryAnswer asks a locked node as Prometheus does.
func discoveryAnswer(t *testing.T, addr string) (code int, body string, err error) {
	config, err := access.TLS(tlsFile("ca.crt"), "")
	if err != nil {
		return 0, "", err
	}
	config.NextProtos = []string{"http/1.1"}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/v1/sd/prometheus?group=web", nil)
	if err != nil {
		return 0, "", err
	}
	file, _ := tokenFile(t)
	token, err := os.ReadFile(file)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// TestPrometheus: members of a locked cluster become targets of a real Prometheus, leave
// them, and stay while its node is down, and while it is not ready.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	needProgram(t, "prometheus")
	c := startCluster(t, 3)
	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stats" {
			_, _ = io.WriteString(w, "served 1\n")
		}
	}))
	t.Cleanup(scraped.Close)
	addr := strings.TrimPrefix(scraped.URL, "http://")
	member := func(id string) {
		t.Helper()
		err := registerMember(t.Context(), connect(t, c.nodes[0].addr), &registrypb.RegisterRequest{
			Group: "web", Id: id, Addr: addr, Ttl: durationpb.New(time.Hour), Meta: map[string]string{"metrics-path": "/stats"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	member("web-1")
	member("web-2")
	asked := c.nodes[1]
	_, text := guideConfigs(t)
	file, _ := tokenFile(t)
	config := writeConfig(t, "global: {scrape_interval: 1s}\n"+replaced(t, text, "127.0.0.1:9800", asked.addr, "15s", "1s",
		"ca_file: ca.crt", "ca_file: "+tlsFile("ca.crt"), "prometheus.token", file))
	promtool(t, "check", "config", config)
	s := startPrometheus(t, config)
	for id, target := range s.awaitTargets("the members are targets", "web-1", "web-2") {
		if want := scraped.URL + "/stats"; target.ScrapeURL != want {
			t.Errorf("%s is scraped at %s, want %s", id, target.ScrapeURL, want)
		}
	}
	eventually(t, patience, "a scrape", func() error {
		all, err := s.targets("web")
		if err == nil && all["web-1"].Health != "up" {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	ok(t, "deregister", "-group", "web", "-id", "web-1", "-yes", "-registries", c.nodes[0].addr)
	s.awaitTargets("one left", "web-2")
	member("web-3")
	s.awaitTargets("one came", "web-2", "web-3")

	standsThrough := func(what string) {
		t.Helper()
		before, err := s.failures()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, "failures while "+what, func() error {
			n, err := s.failures()
			if err == nil && n < before+2 {
				err = fmt.Errorf("%v failures, %v before", n, before)
			}
			return err
		})
		s.awaitTargets("the targets while "+what, "web-2", "web-3")
	}
	for _, n := range c.nodes {
		n.kill()
	}
	standsThrough("all nodes are down")
	asked.start()
	eventually(t, patience, "a node that is not ready", func() error {
		code, body, err := discoveryAnswer(t, asked.addr)
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(body, "not_ready")) {
			t.Fatalf("a node that restarted alone answers %d %s", code, body)
		}
		return err
	})
	standsThrough("the node is not ready")
	c.nodes[0].start()
	c.nodes[2].start()
	c.settled(3)
	ok(t, "deregister", "-group", "web", "-id", "web-2", "-yes", "-registries", c.nodes[0].addr)
	s.awaitTargets("the cluster is back", "web-3")
}

// TestPromtool: promtool accepts the configurations of the guide, and finds the members,
// and the nodes, by the one without locks.
func TestPromtool(t *testing.T) {
	t.Parallel()
	needProgram(t, "promtool")
	c := startNodes(t, 1)
	addr := c.nodes[0].addr
	if _, err := registrypb.NewRegistryClient(connect(t, addr)).Register(t.Context(), &registrypb.RegisterRequest{
		Group: "web", Id: "web-1", Addr: "10.0.0.1:8080", Ttl: durationpb.New(time.Hour), Meta: map[string]string{"metrics-path": "/stats", "zone": "a"},
	}); err != nil {
		t.Fatal(err)
	}
	text, _ := guideConfigs(t)
	config := writeConfig(t, replaced(t, text, "127.0.0.1:9800", addr))
	promtool(t, "check", "config", config)
	for job, wants := range map[string][]string{
		"web":      {`"__metrics_path__": "/stats"`, `"instance": "web-1"`, `"zone": "a"`, `"__address__": "10.0.0.1:8080"`},
		"registry": {`"instance": "node-1"`, `"__address__": "` + addr + `"`},
	} {
		out := promtool(t, "check", "service-discovery", "--timeout=3s", config, job)
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("the job %s has no %s:\n%s", job, want, out)
			}
		}
	}
}
