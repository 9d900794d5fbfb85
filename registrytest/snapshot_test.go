package registrytest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
)

// snapshotOf saves a snapshot of all that was acknowledged before, and reads it.
func snapshotOf(t *testing.T, client *sdk.Client, opts ...sdk.ReadOption) ([]byte, *backup.File) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	var out bytes.Buffer
	size, err := client.SaveSnapshot(ctx, &out, append(opts, sdk.Linearizable())...) // a follower may be behind
	if err != nil || size != int64(out.Len()) {
		t.Fatalf("%d bytes of %d: %v", size, out.Len(), err)
	}
	f, err := backup.Read(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), f
}

// ofFollower is a client of one node that does not lead.
func ofFollower(t *testing.T, c *registrytest.Cluster) *sdk.Client {
	t.Helper()
	return direct(t, c, c.Nodes()[(c.Leader()+1)%3].Addr())
}

// direct is a client that asks one node.
func direct(t *testing.T, c *registrytest.Cluster, addr string, opts ...sdk.Option) *sdk.Client {
	t.Helper()
	return c.Dial(append(opts, sdk.WithDialer(func(ctx context.Context, to string) (net.Conn, error) {
		if to != addr {
			return nil, errors.New("the test asks another node")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", to)
	}))...)
}

// TestSnapshotUnderLoad: a follower writes a file that has every registration that was
// acknowledged before, and nothing beyond its index.
func TestSnapshotUnderLoad(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3))
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	var mu sync.Mutex // guards acked
	acked := map[string]bool{}
	enough := make(chan struct{})
	writing, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 4 {
		client := c.Dial()
		writers.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				id := fmt.Sprintf("m%d-%d", w, i)
				if _, err := client.Register(writing, sdk.Service{Group: "web", ID: id, Addr: "127.0.0.1:80", TTL: time.Hour}); err != nil {
					return
				}
				mu.Lock()
				if acked[id] = true; len(acked) == 100 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Fatal("no load")
	}
	for range 3 {
		mu.Lock()
		before := make([]string, 0, len(acked))
		for id := range acked {
			before = append(before, id)
		}
		mu.Unlock()
		var at sdk.Receipt
		_, f := snapshotOf(t, ofFollower(t, c), sdk.WithReceipt(&at))
		if at.Index != f.Header.Index || at.ClusterID != f.Header.ClusterId || at.Node != f.Header.Node {
			t.Errorf("the receipt says %+v, the header %v", at, f.Header)
		}
		for _, id := range before {
			if f.State.Group("web").Member(id) == nil {
				t.Errorf("%s was acknowledged before and is missing at index %d", id, f.Header.Index)
			}
		}
		for m := range f.State.Group("web").Members {
			if m.CreatedIndex > f.Header.Index {
				t.Errorf("%s was created at %d, the file has index %d", m.ID, m.CreatedIndex, f.Header.Index)
			}
		}
	}
}

// agree waits until all nodes have applied an index and compares their digests, and each
// group's fingerprint with a file's.
func agree(t *testing.T, c *registrytest.Cluster, index uint64, groups *fsm.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	c.WaitIndex(index)
	if groups == nil {
		return
	}
	for g := range groups.Groups {
		for _, n := range c.Nodes() {
			var r sdk.Receipt
			if _, err := direct(t, c, n.Addr()).Members(ctx, g.Name, sdk.WithReceipt(&r)); err != nil {
				t.Fatal(err)
			}
			if r.Fingerprint != g.Fingerprint() || r.Revision < index {
				t.Errorf("%s: group %s has fingerprint %016x at revision %d, the file %016x", n.ID(), g.Name, r.Fingerprint, r.Revision, g.Fingerprint())
			}
		}
	}
	digests(t, c)
}

// digests waits until all nodes have applied the same index, and compares.
func digests(t *testing.T, c *registrytest.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.Client().Status(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		at := func(n sdk.NodeStatus) bool { return n.AppliedIndex == st.Nodes[0].AppliedIndex && n.Role != "" }
		if !slices.ContainsFunc(st.Nodes, func(n sdk.NodeStatus) bool { return !at(n) }) {
			for _, n := range st.Nodes {
				if n.Digest != st.Nodes[0].Digest {
					t.Errorf("digests differ at index %d: %+v", n.AppliedIndex, st.Nodes)
				}
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the nodes do not reach one index: %+v", st.Nodes)
		}
	}
}

// recorded collects the events of a registration.
type recorded struct {
	mu   sync.Mutex // guards all
	all  []sdk.Event
	more chan struct{}
}

func newRecorded() *recorded { return &recorded{more: make(chan struct{}, 100)} }

func (r *recorded) add(e sdk.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
	r.more <- struct{}{}
}

func (r *recorded) has(k sdk.EventKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.all, func(e sdk.Event) bool { return e.Kind == k })
}

func (r *recorded) wait(t *testing.T, k sdk.EventKind) {
	t.Helper()
	timer := time.NewTimer(registrytest.Patience)
	defer timer.Stop()
	for !r.has(k) {
		select {
		case <-r.more:
		case <-timer.C:
			t.Fatalf("no event %v", k)
		}
	}
}

// TestRestoreIntoTheRunningCluster: groups and members are the file's again, a process
// that runs keeps its registration, one that the file lacks registers again, a member
// without a process goes after its TTL, and watchers see revisions rise.
func TestRestoreIntoTheRunningCluster(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3))
	ctx, cancel := context.WithTimeout(t.Context(), 2*registrytest.Patience)
	defer cancel()
	register := func(id string, ttl time.Duration) *recorded {
		told := newRecorded()
		if _, err := c.Dial().Register(ctx, sdk.Service{Group: "web", ID: id, Addr: "127.0.0.1:80", TTL: ttl, OnEvent: told.add}); err != nil {
			t.Fatal(err)
		}
		return told
	}
	lives := register("lives", 3*time.Second)
	register("silent", 2*time.Second) // no stall ends it before the snapshot
	if _, err := c.Client().SetGroup(ctx, sdk.SetGroup{Group: "dropped", VirtualNodes: 64}); err != nil {
		t.Fatal(err)
	}
	data, saved := snapshotOf(t, ofFollower(t, c))
	c.Expire("web", "silent")
	late := register("late", 5*time.Second)
	if _, err := c.Client().DeleteGroup(ctx, "dropped", sdk.GroupDeletion{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().SetGroup(ctx, sdk.SetGroup{Group: "later", VirtualNodes: 64}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Client().Watch(ctx, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	first, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}

	r, err := ofFollower(t, c).RestoreSnapshot(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if !r.LeasesKept || r.Members != 2 || r.Groups != 2 {
		t.Errorf("%+v", r)
	}
	e, err := w.Next(ctx)
	for ; err == nil && e.Revision < r.Index; e, err = w.Next(ctx) { // what was written before
	}
	if err != nil {
		t.Fatal(err)
	}
	if !e.Reset || e.Rebuilt || e.Revision != r.Index || e.Revision <= first.Revision || e.Fingerprint != saved.State.Group("web").Fingerprint() || len(e.Put) != 2 {
		t.Errorf("the watch got %+v", e)
	}
	if _, err := c.Client().Members(ctx, "later", sdk.Linearizable()); !errors.Is(err, sdk.ErrUnknownGroup) {
		t.Errorf("a group that the file lacks: %v", err)
	}
	late.wait(t, sdk.EventReregistered)
	gone := func(e sdk.GroupEvent) bool { return slices.Contains(e.Removed, "silent") }
	for e, err = w.Next(ctx); err == nil && !gone(e); e, err = w.Next(ctx) {
	}
	if err != nil {
		t.Fatalf("the member without a process stays: %v", err)
	}
	members, err := c.Client().Members(ctx, "web", sdk.Linearizable())
	if err != nil || len(members) != 2 || members[0].ID != "late" || members[1].ID != "lives" {
		t.Errorf("%v, %v", members, err)
	}
	if lives.has(sdk.EventLost) || lives.has(sdk.EventReregistered) || lives.has(sdk.EventEnded) {
		t.Errorf("the process that the file has: %+v", lives.all)
	}
	digests(t, c)
}

// TestTokensSurviveARestore: on every node, whichever was asked, tokens of the file are
// valid and others are not, from the restored index on. (etcd's members once kept the
// tokens from before a snapshot that they installed.)
func TestTokensSurviveARestore(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	kept, revoked := c.Token(sdk.Grant{Rights: sdk.Discover}), c.Token(sdk.Grant{Rights: sdk.Register | sdk.Discover})
	owner := c.Dial(sdk.WithToken(revoked))
	told := newRecorded()
	if _, err := owner.Register(ctx, sdk.Service{Group: "web", ID: "a", Addr: "127.0.0.1:80", TTL: time.Minute, OnEvent: told.add}); err != nil {
		t.Fatal(err)
	}
	data, saved := snapshotOf(t, c.Client())
	if err := c.Client().RevokeToken(ctx, "token-2"); err != nil {
		t.Fatal(err)
	}
	late := c.Token(sdk.Grant{Rights: sdk.Discover | sdk.Admin})
	if _, err := direct(t, c, c.Nodes()[0].Addr(), sdk.WithToken(kept)).RestoreSnapshot(ctx, bytes.NewReader(data)); !errors.Is(err, sdk.ErrPermissionDenied) {
		t.Errorf("restored without the right admin: %v", err)
	}
	var none bytes.Buffer
	if _, err := direct(t, c, c.Nodes()[0].Addr(), sdk.WithToken(kept)).SaveSnapshot(ctx, &none); !errors.Is(err, sdk.ErrPermissionDenied) || none.Len() > 0 {
		t.Errorf("saved without the right admin: %v", err)
	}
	// The token that asks ends with the restoration, and gets its answer.
	r, err := direct(t, c, c.Nodes()[(c.Leader()+1)%3].Addr(), sdk.WithToken(late)).RestoreSnapshot(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	agree(t, c, r.Index, saved.State)
	for _, n := range c.Nodes() {
		for token, want := range map[string]error{kept: nil, revoked: nil, late: sdk.ErrUnauthenticated} {
			if _, err := direct(t, c, n.Addr(), sdk.WithToken(token)).Members(ctx, "web"); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", n.ID(), err, want)
			}
		}
	}
	m := saved.State.Group("web").Member("a")
	if m.Token == "" {
		t.Error("the file lacks whose the member is")
	}
	if _, err := direct(t, c, c.Nodes()[0].Addr(), sdk.WithToken(kept)).Deregister(ctx, "web", "a"); !errors.Is(err, sdk.ErrPermissionDenied) {
		t.Errorf("another token deregistered the restored member: %v", err)
	}
}

// TestRestoreOfAnotherClustersFile: into a cluster whose log is shorter than the file's
// index; leases are new, and processes register again.
func TestRestoreOfAnotherClustersFile(t *testing.T) {
	t.Parallel()
	from := registrytest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	for i := range 50 {
		if _, err := from.Client().Register(ctx, sdk.Service{Group: "web", ID: fmt.Sprintf("m%d", i), Addr: "127.0.0.1:80", TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	data, saved := snapshotOf(t, from.Client())
	c := registrytest.Start(t, registrytest.WithNodes(3))
	r, err := ofFollower(t, c).RestoreSnapshot(ctx, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if r.LeasesKept || r.Members != 50 || saved.Header.Index < r.Index {
		t.Errorf("%+v, the file has index %d", r, saved.Header.Index)
	}
	agree(t, c, r.Index, saved.State)
	reg, err := c.Client().Register(ctx, sdk.Service{Group: "web", ID: "m7", Addr: "127.0.0.1:80", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Close(); err != nil || !reg.Removed() {
		t.Errorf("%v", err)
	}
	digests(t, c)
}

// TestRestoreIsRefused: nothing changes, and the error says what is wrong.
func TestRestoreIsRefused(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithTokens())
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	defer cancel()
	data, _ := snapshotOf(t, c.Client())
	open, _ := snapshotOf(t, registrytest.Start(t).Client())
	digests(t, c)
	before, err := c.Client().Status(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(data)
	damaged[len(damaged)/2] ^= 1
	for name, tt := range map[string]struct {
		file []byte
		want string
	}{
		"damaged":     {damaged, "does not have its checksum"},
		"cut":         {data[:len(data)-1], "was cut off"},
		"empty":       {nil, "whole snapshot file"},
		"another":     {[]byte("PK\x03\x04, surely no snapshot"), "not a snapshot file"},
		"tokens lost": {open, "without them every call would be allowed to everybody"},
	} {
		for _, n := range c.Nodes() {
			_, err := direct(t, c, n.Addr()).RestoreSnapshot(ctx, bytes.NewReader(tt.file))
			if !errors.Is(err, sdk.ErrInvalidArgument) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s at %s: %v", name, n.ID(), err)
			}
		}
	}
	digests(t, c)
	after, err := c.Client().Status(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if after.Nodes[0].Digest != before.Nodes[0].Digest {
		t.Errorf("the state changed: %+v, was %+v", after.Nodes[0], before.Nodes[0])
	}
}
