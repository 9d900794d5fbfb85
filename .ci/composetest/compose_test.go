package composetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

const group = "webservice-group"

var (
	allNodes      = []string{"registry1", "registry2", "registry3"}
	threeServices = []string{"webserver1", "webserver2", "webserver3"}
)

// TestCompose is one story, told in steps: each starts from where the one
// before ended, and the first that fails ends it.
func TestCompose(t *testing.T) {
	start := time.Now()
	p := newProject(t, "docker-compose.yml")
	t.Logf("%-60s %6.1fs", "images built", time.Since(start).Seconds())
	step := func(name string, run func()) { t.Helper(); logStep(t, name, run) }

	step("up: three nodes form one cluster, two services register", func() {
		p.mustCompose("up", "-d", "--no-build")
		p.healthy(allNodes...)
		p.eventually("the services are registered", 30*time.Second, func() error {
			return p.checkMembers(allNodes, "webserver1", "webserver2")
		})
		p.converged(allNodes...)
	})
	created := p.createdIndexes("registry1")

	step("the image: static, non-root, its own health check", func() {
		if user := p.inspect(p.container("registry1"), "{{.Config.User}}"); user != "65532:65532" {
			t.Errorf("runs as %q", user)
		}
		if out := p.must("docker", "run", "--rm", "--label", p.name, p.image(), "version"); !strings.HasPrefix(out, "registry ") {
			t.Errorf("version printed %q", out)
		}
	})

	step("a node without the secret cannot join", func() {
		out, err := p.try("docker", "run", "--rm", "--label", p.name, "--network", p.name+"_default", "--no-healthcheck", p.image(),
			"serve", "-id", "intruder", "-registries", "registry1:7370", "-join-timeout", "3s")
		if err == nil || !strings.Contains(err.Error(), "-join-timeout") {
			t.Errorf("it ended with %v: %s", err, out)
		}
		p.converged(allNodes...)
	})

	step("the CLI, in a container, registers a third service", func() {
		all := "registry1:9800,registry2:9800,registry3:9800"
		p.run("--no-healthcheck", p.image(),
			"register", "-registries", all, "-group", group, "-id", "webserver3", "-addr", "webserver3:8080")
		p.eventually("webserver3 is registered", 15*time.Second, func() error {
			return p.checkMembers(allNodes, threeServices...)
		})
		p.sameOwners(allNodes...)
	})

	step("up again: the secret is kept", func() {
		p.mustCompose("up", "-d", "--no-build")
		p.healthy(allNodes...)
		p.converged(allNodes...)
	})

	load := p.startLoad()

	follower := p.others(p.leader("registry1"))[0]
	oldIP := p.ip(p.container(follower))
	step("kill of a follower: match and register go on", func() {
		p.must("docker", "kill", p.container(follower))
		p.goesOnWithout(follower, "during-follower-kill", threeServices...)
	})
	step("the follower comes back with another IP and catches up", func() {
		p.startWithAnotherIP(follower, oldIP)
		p.healthy(follower)
		p.converged(allNodes...)
		p.sameOwners(allNodes...)
	})

	leader := p.leader(follower)
	step("kill of the leader: match and register go on", func() {
		p.must("docker", "kill", p.container(leader))
		p.goesOnWithout(leader, "during-leader-kill", threeServices...)
	})
	step("a new container on the leader's volume catches up", func() {
		p.must("docker", "rm", p.container(leader))
		p.mustCompose("up", "-d", "--no-build", "--no-deps", leader)
		p.healthy(leader)
		p.converged(allNodes...)
		p.sameOwners(allNodes...)
	})

	step("a crash: the engine restarts the node by itself", func() {
		p.crash(follower)
		p.healthy(follower)
		p.converged(allNodes...)
	})

	leader = p.leader("registry1")
	step("stop of the leader: it hands over and ends in time", func() {
		began := time.Now()
		p.mustCompose("stop", leader)
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if code := p.inspect(p.container(leader), "{{.State.ExitCode}}"); code != "0" {
			t.Errorf("exit code %s", code)
		}
		p.goesOnWithout(leader, "during-stop", threeServices...)
		p.mustCompose("start", leader)
		p.healthy(leader)
		p.converged(allNodes...)
	})

	step("all nodes killed and started: nothing acknowledged is lost", func() {
		load.stop(t) // with no node at all there is nothing to answer
		before := p.fingerprint("registry1")
		for _, node := range allNodes {
			p.must("docker", "kill", p.container(node))
		}
		for _, node := range allNodes {
			p.must("docker", "start", p.container(node))
		}
		p.healthy(allNodes...)
		p.converged(allNodes...)
		if after := p.fingerprint("registry1"); after != before {
			t.Errorf("fingerprint %016x, was %016x", after, before)
		}
		if now := p.createdIndexes("registry1"); now["webserver1"] != created["webserver1"] || now["webserver2"] != created["webserver2"] {
			t.Errorf("a service that was alive all the time was dropped: created at %v, now %v", created, now)
		}
	})
}

func logStep(t *testing.T, name string, run func()) {
	t.Helper()
	began := time.Now()
	run()
	t.Logf("%-60s %6.1fs", name, time.Since(began).Seconds())
}

// status is what "cluster status --json" prints, as far as it is looked at here.
type status struct {
	Leader string `json:"leader"`
	Nodes  []struct {
		ID           string `json:"id"`
		Role         string `json:"role"`
		Voter        bool   `json:"voter"`
		Ready        bool   `json:"ready"`
		AppliedIndex uint64 `json:"applied_index"`
		Digest       string `json:"digest"`
		Error        string `json:"error"`
	} `json:"nodes"`
}

// leader returns the node that leads, as another node sees it.
func (p *project) leader(asked string) (id string) {
	p.t.Helper()
	p.eventually("a leader", 30*time.Second, func() error {
		var s status
		if err := p.registry(asked, &s, "cluster", "status"); err != nil {
			return err
		}
		if id = s.Leader; id == "" {
			return errors.New("no leader")
		}
		return nil
	})
	return id
}

// others returns the nodes but one.
func (p *project) others(node string) []string {
	return slices.DeleteFunc(slices.Clone(allNodes), func(n string) bool { return n == node })
}

// converged waits until the nodes have equal digests at an equal index, and all
// are voters that are ready.
func (p *project) converged(nodes ...string) {
	p.t.Helper()
	p.eventually("equal digests at an equal index", time.Minute, func() error {
		var s status
		if err := p.registry(nodes[0], &s, "cluster", "status"); err != nil {
			return err
		}
		if len(s.Nodes) != len(nodes) {
			return fmt.Errorf("%d nodes, want %d: %+v", len(s.Nodes), len(nodes), s)
		}
		for _, n := range s.Nodes {
			if n.Error != "" || !n.Voter || !n.Ready || n.AppliedIndex != s.Nodes[0].AppliedIndex || n.Digest != s.Nodes[0].Digest {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
}

// client talks to the published port of one node and to no other.
func (p *project) client(node string) *sdk.Client {
	p.t.Helper()
	return p.dial(p.addrs[node])
}

// dial is for these addresses and no others.
func (p *project) dial(addrs string) *sdk.Client {
	p.t.Helper()
	c, err := sdk.Dial(addrs, append(p.options, sdk.WithRefreshInterval(-1))...)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// checkMembers tells whether every one of the nodes lists these members.
func (p *project) checkMembers(nodes []string, want ...string) error {
	for _, node := range nodes {
		c := p.client(node)
		members, err := c.Members(p.ctx, group)
		c.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", node, err)
		}
		var ids []string
		for _, m := range members {
			ids = append(ids, m.ID)
		}
		if !slices.Equal(ids, want) {
			return fmt.Errorf("%s: members %q, want %q", node, ids, want)
		}
	}
	return nil
}

// createdIndexes returns the log index that created each member.
func (p *project) createdIndexes(node string) map[string]uint64 {
	p.t.Helper()
	c := p.client(node)
	defer c.Close()
	members, err := c.Members(p.ctx, group)
	if err != nil {
		p.t.Fatal(err)
	}
	created := map[string]uint64{}
	for _, m := range members {
		created[m.ID] = m.CreatedIndex
	}
	return created
}

// owners matches 500 keys on one node.
func (p *project) owners(node string) (owners []string, receipt sdk.Receipt) {
	p.t.Helper()
	keys := make([]string, 500)
	for i := range keys {
		keys[i] = "user-id-" + strconv.Itoa(i)
	}
	c := p.client(node)
	defer c.Close()
	members, err := c.MatchMany(p.ctx, group, keys, sdk.Linearizable(), sdk.WithReceipt(&receipt))
	if err != nil {
		p.t.Fatalf("match on %s: %v", node, err)
	}
	if receipt.Node != node {
		p.t.Fatalf("%s answered on the port of %s", receipt.Node, node)
	}
	for _, m := range members {
		owners = append(owners, m.ID)
	}
	return owners, receipt
}

func (p *project) fingerprint(node string) uint64 {
	p.t.Helper()
	_, receipt := p.owners(node)
	return receipt.Fingerprint
}

// sameOwners checks that the nodes match every key to the same member, by the
// same ring.
func (p *project) sameOwners(nodes ...string) {
	p.t.Helper()
	want, first := p.owners(nodes[0])
	if len(slices.Compact(slices.Sorted(slices.Values(want)))) < 2 {
		p.t.Fatalf("one member owns all keys: %q", want[0])
	}
	for _, node := range nodes[1:] {
		got, receipt := p.owners(node)
		if !slices.Equal(got, want) || receipt.Fingerprint != first.Fingerprint {
			p.t.Fatalf("%s and %s match keys to different members: %+v, %+v", nodes[0], node, first, receipt)
		}
	}
}

// goesOnWithout registers a service while a node is away, sees it on the others
// and checks that they agree.
func (p *project) goesOnWithout(away, id string, services ...string) {
	p.t.Helper()
	left := p.others(away)
	c := p.dial(p.addrs[left[0]] + "," + p.addrs[left[1]])
	defer c.Close()
	ctx, cancel := context.WithTimeout(p.ctx, 15*time.Second)
	defer cancel()
	reg, err := c.Register(ctx, sdk.Service{Group: group, ID: id, Addr: "127.0.0.1:1"})
	if err != nil {
		p.t.Fatalf("register without %s: %v", away, err)
	}
	p.eventually(id+" is seen", 10*time.Second, func() error {
		return p.checkMembers(left, append([]string{id}, services...)...)
	})
	p.sameOwners(left...)
	if err := reg.Close(); err != nil {
		p.t.Fatalf("deregister without %s: %v", away, err)
	}
}

// startWithAnotherIP starts a dead container after its address was taken: by
// another, empty node, which the cluster must not mistake for it.
func (p *project) startWithAnotherIP(node, old string) {
	p.t.Helper()
	for i := range 10 {
		taker := p.run(p.image(), "serve", "-wait", "-id", fmt.Sprintf("taker%d", i))
		if p.ip(taker) == old {
			break
		}
	}
	p.must("docker", "start", p.container(node))
	now := p.ip(p.container(node))
	if now == "" || now == old {
		p.t.Fatalf("%s had IP %s and has %q again", node, old, now)
	}
	p.t.Logf("%s had IP %s and now has %s", node, old, now)
}

// crash kills a node behind the engine's back, as a crash would: "docker kill"
// counts as a stop that is wanted, which the restart policy respects.
func (p *project) crash(node string) {
	p.t.Helper()
	container := p.container(node)
	pid, err := strconv.Atoi(p.inspect(container, "{{.State.Pid}}"))
	if err != nil {
		p.t.Fatal(err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || exe != "/registry" {
		p.t.Logf("not shown: the engine's processes cannot be killed from here (%q, %v)", exe, err)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	p.eventually("the engine restarts "+node, 30*time.Second, func() error {
		if s := p.inspect(container, "{{.RestartCount}} {{.State.Running}}"); s != "1 true" {
			return errors.New(s)
		}
		return nil
	})
}
