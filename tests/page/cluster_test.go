package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/ports"
	"github.com/werbenhu/registry/tests/source"
)

// patience is for what has no promised bound and must happen all the same.
const patience = 30 * time.Second

// registry is the program, built once.
var registry string

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // flags read the environment
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "REGISTRY_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "registry-page-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	registry = filepath.Join(dir, "registry")
	if browser() != "" {
		build, err := source.Go(context.Background(), "build", "-buildvcs=false", "-o", registry, "./cmd/registry")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// node is a process, and how it is started again.
type node struct {
	t              *testing.T
	id, bind, addr string
	args           []string
	log            bytes.Buffer // read after the process has ended
	cmd            *exec.Cmd
}

// cluster is three nodes.
type cluster struct {
	t     *testing.T
	nodes []*node
}

// startCluster returns when all nodes are voters and ready. Their election timeout is short:
// the tests wait for elections.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	free, err := ports.Free(6)
	must(t, err)
	local := func(i int) string { return fmt.Sprint("127.0.0.1:", free[i]) }
	for i := range 3 {
		n := &node{t: t, id: fmt.Sprintf("node-%d", i+1), bind: local(2 * i), addr: local(2*i + 1)}
		n.args = []string{"serve", "-id", n.id, "-bind", n.bind, "-addr", n.addr, "-data-dir", filepath.Join(t.TempDir(), n.id)}
		if i > 0 {
			n.args = append(n.args, "-registries", c.nodes[0].bind)
		}
		n.start()
		c.nodes = append(c.nodes, n)
	}
	c.settled()
	return c
}

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(registry, n.args...)
	n.cmd.Stdout, n.cmd.Stderr = &n.log, &n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd := n.cmd
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed before
		_ = cmd.Wait()
		if n.t.Failed() {
			n.t.Logf("log of %s:\n%s", n.id, n.log.String())
		}
	})
}

// kill ends the process as a crash does.
func (n *node) kill() {
	n.t.Helper()
	if err := n.cmd.Process.Kill(); err != nil {
		n.t.Fatal(err)
	}
	_ = n.cmd.Wait()
}

// status is what the page's first view is made of.
type status struct {
	Leader string
	Nodes  []struct {
		ID    string
		Voter bool
		Ready bool
		Error string
	}
}

// settled waits until there is a leader, and all nodes are voters and ready; it returns the leader and another node.
func (c *cluster) settled() (leader, other *node) {
	c.t.Helper()
	eventually(c.t, patience, "three voters, ready", func() error {
		leader, other = nil, nil
		for _, n := range c.nodes {
			var st status
			if err := n.call("GET", "/v1/cluster", "", nil, &st); err != nil {
				return err
			}
			if len(st.Nodes) != len(c.nodes) || st.Leader == "" {
				return fmt.Errorf("%+v", st)
			}
			for _, s := range st.Nodes {
				if !s.Voter || !s.Ready || s.Error != "" {
					return fmt.Errorf("%+v", s)
				}
			}
			if n.id == st.Leader {
				leader = n
			} else {
				other = n
			}
		}
		if leader == nil || other == nil {
			return fmt.Errorf("the nodes do not agree on a leader")
		}
		return nil
	})
	return leader, other
}

// call makes a call of the API.
func (n *node) call(method, path, token string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if body == nil {
		data = nil
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+n.addr+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s, %v", method, path, resp.Status, text, err)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// register adds a member whose lease outlives the test.
func (n *node) register(group, id string, more map[string]any) {
	n.t.Helper()
	body := map[string]any{"addr": "10.0.0.1:8080", "ttl": "1h"}
	for k, v := range more {
		body[k] = v
	}
	path := "/v1/groups/" + url.PathEscape(group) + "/members/" + url.PathEscape(id)
	n.write("PUT", path, body)
}

// write repeats a call whose outcome is unknown, or that found no leader, as the API tells its callers:
// the nodes of a busy machine may choose another leader at any time.
func (n *node) write(method, path string, body any) {
	n.t.Helper()
	eventually(n.t, patience, method+" "+path, func() error {
		err := n.call(method, path, "", body, nil)
		if err != nil && !strings.Contains(err.Error(), `"reason":"outcome_unknown"`) && !strings.Contains(err.Error(), `"reason":"no_leader"`) {
			n.t.Fatal(err)
		}
		return err
	})
}

// eventually tries until f returns nil, and returns how long that took.
func eventually(t *testing.T, within time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
	}
}

// registerMany registers count members, 1,000 in a call.
func (n *node) registerMany(group string, count int) {
	n.t.Helper()
	for first := 0; first < count; first += 1000 {
		var members []map[string]any
		for i := first; i < min(first+1000, count); i++ {
			members = append(members, map[string]any{"group": group, "id": fmt.Sprintf("%s-%04d", group, i), "addr": "10.0.0.1:8080", "ttl": "1h"})
		}
		n.write("POST", "/v1/register", map[string]any{"registrations": members})
	}
}

func readToken(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
