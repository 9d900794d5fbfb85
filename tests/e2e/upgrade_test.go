package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// previousRelease builds the last release from the repository's own history, and skips
// the test where that is not there.
func previousRelease(t *testing.T) (version, program string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^## ([0-9.]+) - [0-9]{4}-[0-9]{2}-[0-9]{2}$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("no release in CHANGELOG.md")
	}
	git := func(args ...string) []byte {
		out, err := exec.Command("git", append([]string{"-C", repository}, args...)...).Output()
		if err != nil {
			t.Skipf("the upgrade from %s was not tested: git %s: %v", m[1], args[0], err)
		}
		return out
	}
	commits := strings.Fields(string(git("log", "--format=%H", "-S"+string(m[0]), "--", "CHANGELOG.md")))
	if shallow := strings.TrimSpace(string(git("rev-parse", "--is-shallow-repository"))); shallow != "false" || len(commits) == 0 {
		t.Skipf("the upgrade from %s was not tested: its commit is not in this clone", m[1])
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "source.tar")
	git("archive", "-o", archive, commits[len(commits)-1])
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", archive, "-C", source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program = filepath.Join(dir, "registry-previous")
	began := time.Now()
	// The go command finds what it compiled before only if the directory, which is
	// another one each time, counts for nothing.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/registry")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", m[1], err, out)
	}
	t.Logf("%s built in %v", m[1], ms(time.Since(began)))
	return string(m[1]), program
}

// startPlain starts a node without the secret of the other tests, which 0.1.0 does not
// know.
func startPlain(t *testing.T, name, path string, args []string) *process {
	t.Helper()
	return start(t, command{name: name, path: path, args: args, env: []string{"REGISTRY_SECRET_FILE="}})
}

// rollNodes stops every node by SIGTERM, the followers first and the leader last, and
// starts it again when it has ended. It goes on when all are ready.
func rollNodes(t *testing.T, c *cluster, l *openLoad, how string, start func(*node)) {
	t.Helper()
	leader, others := c.led()
	for _, n := range append(others, leader) {
		role := "a follower"
		if n == leader {
			role = "the leader"
		}
		l.begin(fmt.Sprintf("%s: %s, %s", how, n.id, role))
		n.stop()
		start(n)
		eventually(t, patience, n.id+" ready", func() error { return allReady(t, n) })
	}
}

// allReady asks a node whether all nodes are ready voters and agree.
func allReady(t *testing.T, ask *node) error {
	t.Helper()
	st, err := statusOf(t, ask.addr)
	if err != nil {
		return err
	}
	for _, s := range st.Nodes {
		if !s.Ready || !s.Voter || strings.Contains(fmt.Sprint(s.Alarms), "differ") {
			return fmt.Errorf("%v", s)
		}
	}
	return nil
}

// led is leader, of a cluster whose index does not stand still.
func (c *cluster) led() (leader *node, others []*node) {
	c.t.Helper()
	eventually(c.t, patience, "a leader", func() error {
		leader, others = nil, nil
		st, err := statusOf(c.t, c.nodes[0].addr)
		if err != nil {
			return err
		}
		for _, n := range c.nodes {
			if n.id == st.Leader {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		if leader == nil {
			return errors.New("none")
		}
		return nil
	})
	return leader, others
}

// rollRounds is how often a cluster is rolled.
func rollRounds() int {
	if longTests {
		return 5
	}
	return 1
}

// TestUpgrade rolls a cluster under load from the last release to this version, back,
// and up again, and raises the feature level. Nothing acknowledged is lost, no live member
// is dropped, and no SDK caller gets an error. REGISTRY_LONG_TESTS=1 does it five times.
func TestUpgrade(t *testing.T) {
	needSignal(t, sigTerm)
	version, previous := previousRelease(t)
	c := &cluster{t: t}
	for i := range 3 {
		n := newNode(t, fmt.Sprintf("node-%d", i+1))
		args := n.args()
		if i > 0 {
			args = n.args("-registries", c.nodes[0].bind)
		}
		n.process = startPlain(t, n.id, previous, args)
		c.nodes = append(c.nodes, n)
	}
	c.settled(3)
	l := startOpenLoad(t, c)
	current := program("registry")
	restartWith := func(program string) func(*node) {
		return func(n *node) { n.process = startPlain(t, n.id, program, n.args()) }
	}

	for range rollRounds() {
		rollNodes(t, c, l, "upgrade", restartWith(current))
		rollNodes(t, c, l, "back", restartWith(previous))
	}
	leader, others := c.led()
	mixed := others[0]
	l.begin("one node newer")
	mixed.stop()
	mixed.process = startPlain(t, mixed.id, current, mixed.args())
	eventually(t, patience, mixed.id+" ready", func() error { return allReady(t, mixed) }) // before, it does not know the leader's version
	a := cli(t, "cluster", "feature-level", "-raise", "-yes", "-registries", mixed.addr)
	if a.code != 4 || !strings.Contains(a.stderr, "version "+version) {
		t.Errorf("the level of a mixed cluster (leader %s): %+v", leader.id, a)
	}
	rollNodes(t, c, l, "upgrade", restartWith(current))
	if a := cli(t, "token", "init", "-registries", c.addrs()); a.code != 4 || !strings.Contains(a.stderr, "all nodes support it") {
		t.Errorf("a token at level 1: %+v", a)
	}
	if out := ok(t, "cluster", "feature-level", "-raise", "-yes", "-json", "-registries", c.addrs()); !strings.Contains(out, `"feature_level": 2`) {
		t.Error(out)
	}

	// A node of the previous release is refused from now on.
	l.begin("raised")
	_, others = c.led()
	late := others[0]
	eventually(t, patience, "the level on disk", func() error {
		data, err := os.ReadFile(filepath.Join(late.dir, "node.json"))
		if err == nil && !strings.Contains(string(data), `"format": 3`) {
			err = fmt.Errorf("%s", data)
		}
		return err
	})
	late.stop()
	startPlain(t, late.id+"-previous", previous, late.args()).refused(1, "its format is 3")
	joining := newNode(t, "node-4")
	startPlain(t, joining.id, previous, joining.args("-registries", c.nodes[0].bind+","+c.nodes[1].bind)).
		refused(4, "supports feature level 1, and the cluster is at level 2")
	late.process = startPlain(t, late.id, current, late.args())

	l.finish(c)
}
