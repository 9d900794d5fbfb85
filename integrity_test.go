package registry_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest"
)

// ghost puts a member into one node's state that the log knows nothing of.
func ghost(t *testing.T, m *fsm.Machine) {
	t.Helper()
	data, err := fsm.Encode(&fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: "web", Id: "ghost", Addr: "nowhere:1", Weight: 1, TtlMs: 1000, Instance: []byte("x"),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m.Apply([]fsm.Entry{{Index: m.State().Index(), Term: m.State().Term(), Data: data}})
}

// Over real connections: a node whose state is wrong ends its watches with a
// reason that sends clients elsewhere, takes the state of another node, and
// then answers as the others do.
func TestWrongStateEndsWatchesAndIsReplaced(t *testing.T) {
	c := registrytest.Start(t, registrytest.WithNodes(3))
	var conns []*grpc.ClientConn
	var apis []registrypb.RegistryClient
	for _, n := range c.Nodes() {
		conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns, apis = append(conns, conn), append(apis, registrypb.NewRegistryClient(conn))
	}
	register := func(via int, id string) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(storetest.Patience); ; <-tick.C {
			r, err := apis[via].Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: id, Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)})
			if err == nil {
				c.WaitIndex(r.Index)
				return
			}
			// A machine that stalls costs the cluster its leader.
			if code := status.Code(err); code != codes.Unavailable && code != codes.Unknown || time.Now().After(deadline) {
				t.Fatalf("register %s: %v", id, err)
			}
		}
	}
	register(0, "web-1")
	for i, n := range c.Nodes() { // each once, whether it leads or not
		stream, err := apis[i].Watch(t.Context(), &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
		if err != nil {
			t.Fatal(err)
		}
		awaitEqual(t, conns[i])
		ghost(t, n.Machine())
		register((i+1)%3, "after-"+n.ID())
		for err == nil {
			_, err = stream.Recv()
		}
		wantReason(t, err, codes.Unavailable, registrypb.ErrorDetail_NOT_READY)
		ids := awaitMembers(t, apis[i])
		if ids["ghost"] || !ids["after-"+n.ID()] {
			t.Errorf("%s has %v", n.ID(), ids)
		}
		awaitEqual(t, conns[i])
	}
}

// awaitEqual waits until all nodes are ready, without alarms, and have one state.
func awaitEqual(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(storetest.Patience); ; <-tick.C {
		st, err := registrypb.NewClusterClient(conn).Status(t.Context(), &registrypb.StatusRequest{})
		equal := 0
		for _, n := range st.GetNodes() {
			if n.Ready && len(n.Alarms) == 0 && n.AppliedIndex == st.Nodes[0].CommitIndex && n.Digest == st.Nodes[0].Digest {
				equal++
			}
		}
		if equal == 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the nodes do not become equal: %v, %v", st, err)
		}
	}
}

// awaitMembers waits until a node answers up to date again.
func awaitMembers(t *testing.T, api registrypb.RegistryClient) map[string]bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(storetest.Patience); ; <-tick.C {
		r, err := api.Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{Linearizable: true}})
		if err == nil {
			ids := make(map[string]bool)
			for _, m := range r.Members {
				ids[m.Id] = true
			}
			return ids
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
