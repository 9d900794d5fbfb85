package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// A group goes on an operator's word, at every node: empty, or with its members,
// which are told; made again, its revisions are above those it had.
func TestGroupIsDeleted(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := c.register(t, 0, func(r *registrypb.RegisterRequest) {
		r.Group, r.Id, r.Instance, r.Ttl = "web", "web-1", []byte("one"), durationpb.New(time.Hour)
	})
	f := follow(t, c.apis[2], "web", 0, 0)
	f.until(first.Revision)
	_, err := c.apis[1].DeleteGroup(t.Context(), &registrypb.DeleteGroupRequest{Group: "web"})
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_GROUP_NOT_EMPTY)
	_, err = c.apis[1].DeleteGroup(t.Context(), &registrypb.DeleteGroupRequest{Group: "web", Force: true, ExpectedRevision: first.Revision + 1})
	wantReason(t, err, codes.Aborted, registrypb.ErrorDetail_REVISION_MISMATCH)
	r, err := c.apis[1].DeleteGroup(t.Context(), &registrypb.DeleteGroupRequest{Group: "web", Force: true, ExpectedRevision: first.Revision})
	if err != nil || r.Members != 1 || r.Index <= first.Index {
		t.Fatalf("got %v, %v", r, err)
	}
	if e := f.next(); e.GetUnknownGroup() != "web" || e.GetAbsence().GetIndex() != r.Index || e.GetAbsence().GetClusterId() == "" {
		t.Errorf("the watch is told %v", e)
	}
	_, err = c.apis[1].DeleteGroup(t.Context(), &registrypb.DeleteGroupRequest{Group: "web", Force: true})
	wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP)
	for via := range 3 {
		_, err := c.apis[via].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("k"), Read: &registrypb.ReadOptions{MinIndex: r.Index}})
		wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP)
	}

	beat, err := c.apis[2].Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: []uint64{first.LeaseId}})
	if err != nil || len(beat.Lost) != 1 {
		t.Errorf("the member's heartbeat is answered %v, %v", beat, err)
	}
	_, err = c.apis[2].Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: "10.0.0.1:80", Instance: []byte("one")})
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_FENCED)

	again := c.register(t, 2, func(r *registrypb.RegisterRequest) { r.Group, r.Id, r.Instance = "web", "web-1", []byte("two") })
	if again.Revision <= r.Index {
		t.Errorf("made again at %d, deleted at %d", again.Revision, r.Index)
	}
	f.until(again.Revision)
	if len(f.members) != 1 || f.resets != 2 {
		t.Errorf("%d members after %d resets", len(f.members), f.resets)
	}
}

// The cluster's nodes are the members of a group that nobody may change.
func TestNodesAreAGroup(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	client, err := sdk.Dial(c.nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	const group = "registry-group"
	g, members, err := client.Group(t.Context(), group, sdk.Linearizable())
	if err != nil || len(members) != 3 || g.Members != 3 || g.Revision == 0 {
		t.Fatalf("%+v, %v, %v", g, members, err)
	}
	for i, m := range members {
		if m.ID != c.nodes[i].ID() || m.Addr != c.nodes[i].Addr() || m.Weight != 1 {
			t.Errorf("%+v", m)
		}
	}
	ring, err := client.Ring(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		local, err := ring.Match(key)
		if err != nil {
			t.Fatal(err)
		}
		one, err1 := client.Match(t.Context(), group, key)
		many, err2 := client.MatchMany(t.Context(), group, []string{key})
		if err := errors.Join(err1, err2); err != nil || one.ID != local.ID || many[0].ID != local.ID {
			t.Errorf("%s: %v, %v, %v, %v", key, local, one, many, err)
		}
	}
	if _, err := client.SetGroup(t.Context(), sdk.SetGroup{Group: "web", VirtualNodes: 64}); err != nil { // the log moves
		t.Fatal(err)
	}
	for i, conn := range c.conns {
		api, read := registrypb.NewRegistryClient(conn), &registrypb.ReadOptions{Linearizable: true}
		list, err1 := api.Members(t.Context(), &registrypb.MembersRequest{Group: group, Read: read})
		one, err2 := api.Match(t.Context(), &registrypb.MatchRequest{Group: group, Key: []byte("a"), Read: read})
		if err := errors.Join(err1, err2); err != nil || list.Receipt.Revision != g.Revision || one.Receipt.Revision != g.Revision {
			t.Errorf("%s: revisions %d by Members, %d by Match, want %d, %v", c.nodes[i].ID(), list.GetReceipt().GetRevision(), one.GetReceipt().GetRevision(), g.Revision, err)
		}
	}
	if _, err := client.DeleteGroup(t.Context(), "web", sdk.GroupDeletion{}); err != nil {
		t.Fatal(err)
	}
	c.logStays(t, group, func() {
		_, err := client.Register(t.Context(), sdk.Service{Group: group, ID: "web-1", Addr: "10.0.0.1:80"})
		if !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("a registration: %v", err)
		}
		if _, err := client.DeleteGroup(t.Context(), group, sdk.GroupDeletion{Force: true}); !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("a deletion: %v", err)
		}
		if _, err := client.SetGroup(t.Context(), sdk.SetGroup{Group: group, VirtualNodes: 128}); !errors.Is(err, sdk.ErrInvalidArgument) {
			t.Errorf("other parameters: %v", err)
		}
		groups, err := client.Groups(t.Context())
		if err != nil || len(groups) != 0 {
			t.Errorf("the list of groups: %v, %v", groups, err)
		}
	})
}

// A node that the cluster does not have is not found.
func TestUnknownNodes(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for via := range 3 {
		cluster := registrypb.NewClusterClient(c.conns[via])
		_, err := cluster.Remove(t.Context(), &registrypb.RemoveRequest{Id: "nobody"})
		wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_NODE)
		_, err = cluster.Transfer(t.Context(), &registrypb.TransferRequest{Id: "nobody"})
		wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_NODE)
	}
}

// A node that joins is a member at once, and takes keys.
func TestNodesGroupFollowsTheCluster(t *testing.T) {
	t.Parallel()
	first := startNode(t, "n1", nil)
	waitReady(t, first)
	client, err := sdk.Dial(first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	const group = "registry-group"
	owners := func() map[string]bool {
		found := map[string]bool{}
		for i := range 200 {
			m, err := client.Match(t.Context(), group, fmt.Sprint("key-", i), sdk.Linearizable())
			if err != nil {
				t.Fatal(err)
			}
			found[m.ID] = true
		}
		return found
	}
	if got := owners(); len(got) != 1 || !got["n1"] {
		t.Errorf("one node: %v", got)
	}
	w, err := client.Watch(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	startNode(t, "n2", func(cfg *registry.Config) { cfg.Registries = []string{first.BindAddr()} })
	members := map[string]bool{}
	for len(members) < 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		e, err := w.Next(ctx)
		cancel()
		if err != nil {
			t.Fatalf("the watch was told of %v: %v", members, err)
		}
		for _, m := range e.Put {
			members[m.ID] = true
		}
	}
	if got := owners(); len(got) != 2 {
		t.Errorf("two nodes: %v", got)
	}
}
