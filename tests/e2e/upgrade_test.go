package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

const (
	upgradeGroup = "upgrade"
	upgradeTTL   = 3 * time.Second
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
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/registry")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", m[1], err, out)
	}
	t.Logf("%s built in %v", m[1], ms(time.Since(began)))
	return string(m[1]), program
}

// upgradeLoad registers, heartbeats and watches through the SDK while nodes restart.
type upgradeLoad struct {
	t     *testing.T
	ring  *sdk.Ring
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex // guards the rest
	regs    map[string]*sdk.Registration
	calls   int
	errs    []error  // that SDK callers got
	lost    []string // events of leases that were lost
	watched map[string]bool
	gaps    []string
	resets  int // events with the whole group
	slowest time.Duration
}

func startUpgradeLoad(t *testing.T, c *cluster) *upgradeLoad {
	ctx, end := context.WithCancel(t.Context())
	l := &upgradeLoad{t: t, end: end, regs: make(map[string]*sdk.Registration), watched: make(map[string]bool)}
	t.Cleanup(func() { end(); l.tasks.Wait() })
	client := dial(t, c.addrs())
	watch, err := client.Watch(ctx, upgradeGroup)
	if err != nil {
		t.Fatal(err)
	}
	l.tasks.Go(func() { l.follow(watch) })
	l.register(ctx, client, "first")
	if l.ring, err = client.Ring(ctx, upgradeGroup); err != nil {
		t.Fatal(err)
	}
	for w := range 2 {
		l.tasks.Go(func() {
			for i := 0; ctx.Err() == nil && i < 400; i++ {
				l.register(ctx, client, fmt.Sprintf("m%d-%d", w, i))
				if !waitUntil(ctx, 100*time.Millisecond) {
					return
				}
			}
		})
	}
	l.tasks.Go(func() { // a linearizable read has what was acknowledged before
		for waitUntil(ctx, 50*time.Millisecond) {
			l.mu.Lock()
			want := len(l.regs)
			l.mu.Unlock()
			began := time.Now()
			members, err := client.Members(ctx, upgradeGroup, sdk.Linearizable())
			l.note(ctx, "members", began, err)
			if err == nil && len(members) < want {
				l.note(ctx, "members", began, fmt.Errorf("%d members, %d were acknowledged before", len(members), want))
			}
		}
	})
	return l
}

func waitUntil(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *upgradeLoad) note(ctx context.Context, what string, began time.Time, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	l.slowest = max(l.slowest, time.Since(began))
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", what, err))
	}
}

func (l *upgradeLoad) register(ctx context.Context, client *sdk.Client, id string) {
	began := time.Now()
	reg, err := client.Register(ctx, sdk.Service{Group: upgradeGroup, ID: id, Addr: "10.0.0.1:80", TTL: upgradeTTL, OnEvent: func(e sdk.Event) {
		if e.Kind == sdk.EventLost || e.Kind == sdk.EventEnded && !errors.Is(e.Err, sdk.ErrClosed) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lost = append(l.lost, fmt.Sprintf("%s: %v (%v)", e.ID, e.Kind, e.Err))
		}
	}})
	l.note(ctx, "register "+id, began, err)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.regs[id] = reg
	}
}

// follow folds the watch's events. Nobody leaves the group, so a removal is a member that
// was dropped.
func (l *upgradeLoad) follow(watch *sdk.Watch[sdk.GroupEvent]) {
	var last uint64
	for {
		e, err := watch.Next(l.t.Context())
		if err != nil {
			return
		}
		l.mu.Lock()
		if e.Err != nil || e.Rebuilt || len(e.Removed) > 0 {
			l.gaps = append(l.gaps, fmt.Sprintf("error %v, rebuilt %v, removed %v", e.Err, e.Rebuilt, e.Removed))
		}
		if e.From != last {
			l.gaps = append(l.gaps, fmt.Sprintf("an event from revision %d after one of %d", e.From, last))
		}
		if last = e.Revision; e.Reset {
			l.resets++
		}
		for _, m := range e.Put {
			l.watched[m.ID] = true
		}
		l.mu.Unlock()
	}
}

// startPlain starts a node without the secret of the other tests, which 0.1.0 does not
// know.
func startPlain(t *testing.T, name, path string, args []string) *process {
	t.Helper()
	return start(t, command{name: name, path: path, args: args, env: []string{"REGISTRY_SECRET_FILE="}})
}

// upgradeRoll restarts all nodes with another program, the leader last.
func upgradeRoll(t *testing.T, c *cluster, program string) {
	t.Helper()
	leader, others := c.led()
	for _, n := range append(others, leader) {
		n.stop()
		n.process = startPlain(t, n.id, program, n.args())
		eventually(t, patience, n.id+" ready", func() error {
			st, err := statusOf(t, n.addr)
			if err != nil {
				return err
			}
			for _, s := range st.Nodes {
				if !s.Ready || !s.Voter || len(s.Alarms) > 0 && strings.Contains(fmt.Sprint(s.Alarms), "differ") {
					return fmt.Errorf("%v", s)
				}
			}
			return nil
		})
	}
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

// TestUpgrade rolls a cluster under load from the last release to this version, back,
// and up again, and raises the feature level. Nothing acknowledged is lost, no live member
// is dropped, and no SDK caller gets an error. REGISTRY_LONG_TESTS=1 does it five times.
func TestUpgrade(t *testing.T) {
	needSignal(t, sigTerm)
	version, previous := previousRelease(t)
	t.Parallel()
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
	l := startUpgradeLoad(t, c)
	current := program("registry")

	rounds := 1
	if os.Getenv("REGISTRY_LONG_TESTS") != "" {
		rounds = 5
	}
	for range rounds {
		upgradeRoll(t, c, current)
		upgradeRoll(t, c, previous)
	}
	leader, others := c.led()
	mixed := others[0]
	mixed.stop()
	mixed.process = startPlain(t, mixed.id, current, mixed.args())
	eventually(t, patience, mixed.id+" ready", func() error { _, err := statusOf(t, mixed.addr); return err })
	a := cli(t, "cluster", "feature-level", "-raise", "-yes", "-registries", mixed.addr)
	if a.code != 4 || !strings.Contains(a.stderr, "version "+version) {
		t.Errorf("the level of a mixed cluster (leader %s): %+v", leader.id, a)
	}
	upgradeRoll(t, c, current)
	if a := cli(t, "token", "init", "-registries", c.addrs()); a.code != 4 || !strings.Contains(a.stderr, "all nodes support it") {
		t.Errorf("a token at level 1: %+v", a)
	}
	if out := ok(t, "cluster", "feature-level", "-raise", "-yes", "-json", "-registries", c.addrs()); !strings.Contains(out, `"feature_level": 2`) {
		t.Error(out)
	}

	// A node of the previous release is refused from now on.
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

// finish ends the load and checks it.
func (l *upgradeLoad) finish(c *cluster) {
	t := l.t
	t.Helper()
	eventually(t, patience, "all nodes ready", func() error {
		st, err := statusOf(t, c.nodes[0].addr)
		if err == nil {
			for _, n := range st.Nodes {
				if !n.Ready {
					err = fmt.Errorf("%v", n)
				}
			}
		}
		return err
	})
	client := dial(t, c.addrs())
	eventually(t, patience, "the watch and the ring have all members", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.watched) < len(l.regs) || len(l.ring.Members()) < len(l.regs) {
			return fmt.Errorf("%d acknowledged, %d in the watch, %d in the ring", len(l.regs), len(l.watched), len(l.ring.Members()))
		}
		return nil
	})
	members, err := client.Members(t.Context(), upgradeGroup, sdk.Linearizable())
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, m := range members {
		have[m.ID] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d calls, the slowest %v; %d members; the watch began anew %d times; errors that SDK callers got: %d", l.calls, ms(l.slowest), len(members), l.resets, len(l.errs))
	for id := range l.regs {
		if !have[id] {
			t.Errorf("%s was acknowledged and is no member", id)
		}
	}
	for _, list := range [][]string{l.lost, l.gaps} {
		if len(list) > 0 {
			t.Errorf("%d times: %s", len(list), list[0])
		}
	}
	for i, err := range l.errs {
		if i < 5 {
			t.Errorf("an SDK caller got: %v", err)
		}
	}
	l.end()
}
