package registry_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/registrypb"
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
	c := newAPICluster(t)
	c.register(t, 0, nil)
	for i, n := range c.nodes { // each once, whether it leads or not
		stream, err := c.apis[i].Watch(t.Context(), &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
		if err != nil {
			t.Fatal(err)
		}
		c.settle(t)
		ghost(t, n.Machine())
		c.register(t, (i+1)%3, func(r *registrypb.RegisterRequest) { r.Id = "after-" + n.ID() })
		for err == nil {
			_, err = stream.Recv()
		}
		wantReason(t, err, codes.Unavailable, registrypb.ErrorDetail_NOT_READY)
		ids := awaitMembers(t, c.apis[i])
		if ids["ghost"] || !ids["after-"+n.ID()] {
			t.Errorf("%s has %v", n.ID(), ids)
		}
		c.settle(t)
		st, err := registrypb.NewClusterClient(c.conns[i]).Status(t.Context(), &registrypb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, node := range st.Nodes {
			if !node.Ready || len(node.Alarms) > 0 || node.Digest != st.Nodes[0].Digest {
				t.Errorf("after the reinstallation: %v", node)
			}
		}
	}
}

// awaitMembers waits until a node answers up to date again.
func awaitMembers(t *testing.T, api registrypb.RegistryClient) map[string]bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
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
