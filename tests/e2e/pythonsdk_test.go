package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// pythonService is sdk/python/tests/scenario.py, which prints what happens to it.
type pythonService struct {
	*process
	id string
}

func startPython(t *testing.T, mode, addrs, id, addr string, ttl time.Duration) *pythonService {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	args := []string{"-B", "-m", "tests.scenario", mode, addrs, "web", id, addr, fmt.Sprint(ttl.Seconds())}
	dir := filepath.Join(repository, "sdk", "python")
	return &pythonService{start(t, command{name: "python-" + id, path: interpreter, dir: dir, args: args}), id}
}

// events are those of the registration, in order.
func (p *pythonService) events() (kinds []string) {
	for _, m := range regexp.MustCompile(`(?m)^event (\S+)\n`).FindAllStringSubmatch(p.log.text(), -1) {
		kinds = append(kinds, m[1])
	}
	return kinds
}

// until waits for an event that is the last one.
func (p *pythonService) until(kinds ...string) {
	p.t.Helper()
	eventually(p.t, patience, fmt.Sprintf("%s: the event %v", p.id, kinds), func() error {
		if all := p.events(); len(all) == 0 || !slices.Contains(kinds, all[len(all)-1]) {
			return fmt.Errorf("events %v", all)
		}
		return nil
	})
}

var ringLine = regexp.MustCompile(`(?m)^ring (\d+) ([0-9a-f]{16}) (.*)\n`)

// agrees waits until the program's ring is that of the nodes, and compares the owners of
// its keys with what a node answers.
func (p *pythonService) agrees(client *sdk.Client) {
	p.t.Helper()
	var keys, want []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("user-%d", i))
	}
	var receipt sdk.Receipt
	owners, err := client.MatchMany(p.t.Context(), "web", keys, sdk.Linearizable(), sdk.WithReceipt(&receipt))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range owners {
		want = append(want, m.ID)
	}
	eventually(p.t, patience, fmt.Sprintf("%s: the ring of revision %d", p.id, receipt.Revision), func() error {
		all := ringLine.FindAllStringSubmatch(p.log.text(), -1)
		if len(all) == 0 {
			return fmt.Errorf("no ring")
		}
		last := all[len(all)-1]
		if last[1] != strconv.FormatUint(receipt.Revision, 10) {
			return fmt.Errorf("revision %s", last[1])
		}
		if last[2] != fmt.Sprintf("%016x", receipt.Fingerprint) || last[3] != strings.Join(want, " ") {
			p.t.Fatalf("%s: %q, want %v of %016x", p.id, last[0], want, receipt.Fingerprint)
		}
		return nil
	})
}

// matches waits for the program's next local match.
func (p *pythonService) matches() string {
	p.t.Helper()
	before := strings.Count(p.log.text(), "\nlocal ")
	owner := ""
	eventually(p.t, patience, p.id+": a local match", func() error {
		all := strings.Split(p.log.text(), "\nlocal ")
		if len(all) < before+3 { // the line of before, a whole one, and one that may be cut off
			return fmt.Errorf("%d matches", len(all)-1)
		}
		owner, _, _ = strings.Cut(all[before+1], "\n")
		return nil
	})
	return owner
}

// TestPythonSDK: sdk/python against a cluster with TLS and tokens, once with threads and
// once with asyncio: registrations, rings and watches survive the death of the leader and
// an outage of all nodes; a lost lease is regained; a held member returns elsewhere.
func TestPythonSDK(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm, sigInt, sigStop, sigCont)
	const ttl = 3 * time.Second
	c := startCluster(t, 3)
	client := dial(t, c.addrs())
	both := []*pythonService{
		startPython(t, "threads", c.addrs(), "py-1", "127.0.0.1:8081", ttl),
		startPython(t, "asyncio", c.addrs(), "py-2", "127.0.0.1:8082", ttl),
	}
	defer func() {
		for _, p := range both {
			if strings.Contains(p.log.text(), "Traceback") {
				t.Errorf("%s:\n%s", p.id, p.log.tail(40))
			}
		}
	}()
	for _, p := range both {
		p.says("event registered", 2*patience) // a busy machine takes long to start Python
		p.until("registered")
		p.says("refused ConflictError", patience)
	}
	third, err := client.Register(t.Context(), sdk.Service{Group: "web", ID: "go-1", Addr: "127.0.0.1:8083", Weight: 2})
	if err != nil {
		t.Fatal(err)
	}
	leader, others := c.leader()
	for _, p := range both {
		p.agrees(client)
		p.says("\nprefix web go-1 py-1 py-2\n", patience)
		p.says("\nnodes "+leader.id+" node-1 node-2 node-3\n", patience)
	}

	before := membersOf(t, others[0].addr, "web")
	leader.kill()
	for _, p := range both {
		tellsOfLeader(t, others[0], leader.id, "\nnodes ", p.log.text)
	}
	pass(t, ttl) // a lease that nobody renews ends
	for i, m := range membersOf(t, others[0].addr, "web") {
		if m.CreatedIndex != before[i].CreatedIndex {
			t.Errorf("the death of the leader cost the lease of %s", m.Id)
		}
	}
	if err := third.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range both {
		p.agrees(client)
	}

	for _, n := range others {
		n.kill()
	}
	owner := both[0].matches()
	for _, p := range both {
		p.until("unreachable")
		if got := p.matches(); got != owner {
			t.Errorf("%s: without nodes the owner is %s, was %s", p.id, got, owner)
		}
	}
	for _, n := range c.nodes {
		n.start()
	}
	c.settled(3)
	for _, p := range both {
		p.until("renewed", "regained")
		p.agrees(client)
	}
	late, err := client.Register(t.Context(), sdk.Service{Group: "web-late", ID: "go-2", Addr: "127.0.0.1:8084"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range both {
		p.says("\nprefix web-late go-2\n", patience)
		p.says(" web-late", patience)
	}
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range both {
		p.says("\nprefix web-late\n", patience)
	}

	for _, p := range both {
		p.send(sigStop) // until its lease has ended
	}
	eventually(t, patience, "expired leases", func() error {
		for _, p := range both {
			if m := memberOf(t, c.nodes[0].addr, "web", p.id); m != nil {
				return fmt.Errorf("%v", m)
			}
		}
		return nil
	})
	for _, p := range both {
		p.send(sigCont)
		p.until("regained")
	}
	for _, p := range both {
		p.agrees(client)
	}

	both[0].send(sigInt)
	if code := both[0].ends(patience); code != 0 {
		t.Errorf("exit code %d after a hold", code)
	}
	both[0].says("error HeldError", patience)
	if m := memberOf(t, c.nodes[0].addr, "web", "py-1"); m == nil || m.State.String() != "MEMBER_STATE_HELD" {
		t.Errorf("after a hold: %v", m)
	}
	both[1].agrees(client)
	again := startPython(t, "threads", c.addrs(), "py-1", "127.0.0.1:8091", ttl)
	both = append(both, again)
	again.until("registered")
	both[1].agrees(client)
	again.agrees(client)

	for _, p := range both[1:] {
		p.stop()
		p.says("removed True", patience)
		if m := memberOf(t, c.nodes[0].addr, "web", p.id); m != nil {
			t.Errorf("still there: %v", m)
		}
	}
}
