package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// lastingCluster is three nodes that can be stopped and come back at their addresses.
type lastingCluster struct {
	t       *testing.T
	nodes   []*registry.Node
	configs []func(*registry.Config)
}

func newLastingCluster(t *testing.T) *lastingCluster {
	c := &lastingCluster{t: t}
	for i := range 3 {
		dir := t.TempDir()
		var seeds []string
		if i > 0 {
			seeds = []string{c.nodes[0].BindAddr()}
		}
		n := startNode(t, fmt.Sprintf("n%d", i+1), func(cfg *registry.Config) {
			cfg.DataDir, cfg.Registries = dir, seeds
		})
		bind, addr := n.BindAddr(), n.Addr()
		c.nodes = append(c.nodes, n)
		c.configs = append(c.configs, func(cfg *registry.Config) {
			cfg.DataDir, cfg.Bind, cfg.Addr = dir, bind, addr
		})
	}
	waitReady(t, c.nodes...)
	awaitVoters(t, c.dial(), 3) // before the first node is stopped
	return c
}

func (c *lastingCluster) stop(i int) {
	c.t.Helper()
	if err := c.nodes[i].Close(); err != nil {
		c.t.Fatalf("stop: %v", err)
	}
}

func (c *lastingCluster) start(i int) {
	c.t.Helper()
	c.nodes[i] = startNode(c.t, fmt.Sprintf("n%d", i+1), c.configs[i])
}

func (c *lastingCluster) dial() *sdk.Client {
	c.t.Helper()
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addr())
	}
	client, err := sdk.Dial(strings.Join(addrs, ","), sdk.WithLogger(testLogger(c.t)), sdk.WithCallTimeout(30*time.Second))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// writer registers and removes members through the bare API of any node.
type writer struct {
	t      *testing.T
	client *sdk.Client
	rnd    *rand.Rand
	live   map[string]*sdk.Registration
}

func (w *writer) change() {
	w.t.Helper()
	id := fmt.Sprintf("m-%d", w.rnd.IntN(12))
	if reg := w.live[id]; reg != nil && w.rnd.IntN(2) == 0 {
		if err := reg.Close(); err != nil {
			w.t.Fatal(err)
		}
		delete(w.live, id)
		return
	} else if reg != nil {
		weight := 1 + w.rnd.IntN(4)
		if _, err := w.client.UpdateMember(w.t.Context(), "web", id, sdk.MemberUpdate{Weight: &weight}); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	reg, err := w.client.Register(w.t.Context(), sdk.Service{Group: "web", ID: id, Addr: "10.0.0.1:80", TTL: time.Minute, Weight: 1 + w.rnd.IntN(3)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.live[id] = reg
}

// level waits until the ring is at what the leader says, and compares.
func (w *writer) level(r *sdk.Ring) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	var receipt sdk.Receipt
	members, err := w.client.Members(ctx, "web", sdk.Linearizable(), sdk.WithReceipt(&receipt))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := r.Wait(ctx, receipt.Revision); err != nil {
		w.t.Fatalf("the ring is at %d, the cluster at %d: %v", r.Revision(), receipt.Revision, err)
	}
	v := r.View()
	if v.Revision() != receipt.Revision || v.Fingerprint() != receipt.Fingerprint || len(v.Members()) != len(members) {
		w.t.Fatalf("ring %016x at %d with %d members, the cluster has %016x at %d with %d",
			v.Fingerprint(), v.Revision(), len(v.Members()), receipt.Fingerprint, receipt.Revision, len(members))
	}
}

// Rings in a process follow a cluster whose nodes are restarted and whose
// leader changes: the same ring at every revision, none older after a newer,
// none empty; and the moved ranges add up.
func TestRingsFollowTheCluster(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newLastingCluster(t)
	client := c.dial()
	w := &writer{t: t, client: client, rnd: rand.New(rand.NewPCG(seed, 0)), live: map[string]*sdk.Registration{}}
	if _, err := client.Register(t.Context(), sdk.Service{Group: "web", ID: "always", Addr: "10.0.0.9:80", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	r, err := client.Ring(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	hashes := make([]uint64, 300)
	owners := make([]string, len(hashes))
	for i := range hashes {
		hashes[i] = ring.Hash(fmt.Sprint(i))
		owners[i] = r.View().Ring().Member(r.View().Ring().OwnerOf(hashes[i])).ID
	}
	told := make(chan sdk.RingChange, 4096)
	start := r.Revision()
	r.OnChange(func(c sdk.RingChange) { told <- c })
	watching, err := client.Watch(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}

	for round := range 6 {
		for range 15 {
			w.change()
		}
		w.level(r)
		victim := w.rnd.IntN(3)
		switch round % 3 {
		case 0:
			c.stop(victim)
			w.change()
			w.level(r)
			c.start(victim)
		case 1:
			if _, err := client.Transfer(t.Context(), ""); err != nil && !errors.Is(err, sdk.ErrOutcomeUnknown) {
				t.Logf("transfer: %v", err)
			}
		}
		waitReady(t, c.nodes...)
	}
	w.change()
	w.level(r)

	last := start
	for last != r.Revision() {
		ch := <-told
		if ch.From != last || ch.To <= last || ch.Rebuilt || len(ch.After.Members()) == 0 {
			t.Errorf("told of %d → %d after %d, rebuilt %v, %d members", ch.From, ch.To, last, ch.Rebuilt, len(ch.After.Members()))
		}
		last = ch.To
		for i, h := range hashes {
			for _, m := range ch.Moved {
				if m.Contains(h) {
					if m.From != owners[i] {
						t.Fatalf("%d: %x moved from %q, it was at %q", ch.To, h, m.From, owners[i])
					}
					owners[i] = m.To
				}
			}
		}
	}
	bare := r.View().Ring()
	for i, h := range hashes {
		if want := bare.Member(bare.OwnerOf(h)).ID; owners[i] != want {
			t.Errorf("the moved ranges leave %x with %q, the ring gives it to %q", h, owners[i], want)
		}
	}
	members := map[string]sdk.Member{}
	for e, err := range watching.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Reset {
			clear(members)
		}
		for _, m := range e.Put {
			members[m.ID] = m
		}
		for _, id := range e.Removed {
			delete(members, id)
		}
		if e.Revision == last {
			break
		}
	}
	var followed []ring.Member
	for _, m := range members {
		followed = append(followed, ring.Member{ID: m.ID, Weight: m.Weight, State: ring.State(m.State)})
	}
	again, err := ring.New(bare.Params(), followed)
	if err != nil || again.Fingerprint() != r.Fingerprint() {
		t.Errorf("the watch's members make another ring: %v", err)
	}
	if s := r.Stats(); s.Mismatches != 0 || s.Rebuilds != 0 {
		t.Errorf("%+v", s)
	} else {
		t.Logf("%+v, age %v", s, r.Age())
	}
}

// All nodes stop, the process restarts, the nodes come back: every key stays
// where it was, and nothing is empty in between.
func TestRingSurvivesTheClusterAndARestart(t *testing.T) {
	t.Parallel()
	c := newLastingCluster(t)
	api := dialAPI(t, c.nodes[0].Addr())
	for i := range 5 { // without heartbeats, and longer than the test
		if _, err := api.Register(t.Context(), &registrypb.RegisterRequest{
			Group: "web", Id: fmt.Sprintf("m-%d", i), Addr: fmt.Sprintf("10.0.0.%d:80", i+1), Ttl: durationpb.New(time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "ring")
	client := c.dial()
	w := &writer{t: t, client: client}
	r, err := client.Ring(t.Context(), "web", sdk.WithDiskCopy(path))
	if err != nil {
		t.Fatal(err)
	}
	w.level(r)
	owner := map[string]string{}
	same := func(r *sdk.Ring) {
		t.Helper()
		for i := range 1000 {
			key := fmt.Sprint("user-id-", i)
			m, err := r.Match(key)
			if err != nil {
				t.Fatal(err)
			}
			if was := owner[key]; was != "" && was != m.ID {
				t.Fatalf("%s went from %s to %s", key, was, m.ID)
			}
			owner[key] = m.ID
		}
	}
	same(r)
	for i := range c.nodes {
		c.stop(i)
	}
	same(r)
	age := r.Age()
	if err := client.Close(); err != nil {
		t.Logf("close: %v", err)
	}

	client = c.dial() // as after a restart of the process
	r, err = client.Ring(t.Context(), "web", sdk.WithDiskCopy(path))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Stats().FromDisk || r.Age() < age {
		t.Errorf("%+v, age %v, before the restart %v", r.Stats(), r.Age(), age)
	}
	same(r)
	for i := range c.nodes {
		c.start(i)
		same(r)
	}
	waitReady(t, c.nodes...)
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.Stats().FromDisk {
		if time.Now().After(deadline) {
			t.Fatalf("no node was heard of: age %v", r.Age())
		}
		<-tick.C
		same(r)
	}
	api = dialAPI(t, c.nodes[1].Addr())
	reg, err := api.Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "m-9", Addr: "10.0.0.9:80", Ttl: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context(), reg.Revision); err != nil || len(r.Members()) != 6 {
		t.Errorf("%d members, %v", len(r.Members()), err)
	}
}

func dialAPI(t *testing.T, addr string) registrypb.RegistryClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return registrypb.NewRegistryClient(conn)
}

// awaitVoters waits until the cluster has that many voters: a node that joins
// is none before it has caught up.
func awaitVoters(t *testing.T, client *sdk.Client, want int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		st, err := client.Status(t.Context(), "")
		voters := 0
		for _, n := range st.Nodes {
			if n.Voter {
				voters++
			}
		}
		if err == nil && voters == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d voters, want %d: %v", voters, want, err)
		}
	}
}
