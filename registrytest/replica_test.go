package registrytest_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// A read replica answers like any node, passes writes on, and is needed for none.
func TestReadReplicaAnswers(t *testing.T) {
	t.Parallel()
	voter := startNode(t, "n1", nil)
	replica := startNode(t, "n2", func(cfg *registry.Config) {
		cfg.ReadReplica, cfg.Registries = true, []string{voter.BindAddr()}
	})
	waitReady(t, voter, replica)
	connect := func(n *registry.Node) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	at, api := registrypb.NewClusterClient(connect(replica)), registrypb.NewRegistryClient(connect(replica))
	register := func(api registrypb.RegistryClient, id string) uint64 {
		t.Helper()
		r, err := api.Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: id, Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return r.Index
	}
	first := register(api, "web-1")
	f := follow(t, api, "web", 0, 0)
	f.until(first)
	second := register(registrypb.NewRegistryClient(connect(voter)), "web-2")
	f.until(second) // the replica's watch goes on
	for _, read := range []*registrypb.ReadOptions{{MinIndex: second}, {Linearizable: true}} {
		m, err := api.Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("user-1"), Read: read})
		if err != nil || m.Receipt.Node != "n2" {
			t.Errorf("%v, %v", m, err)
		}
		list, err := api.Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: read})
		if err != nil || len(list.Members) != 2 || list.Receipt.Node != "n2" {
			t.Errorf("%v, %v", list, err)
		}
	}
	st, err := at.Status(t.Context(), &registrypb.StatusRequest{})
	if err != nil || len(st.Nodes) != 2 || st.Leader != "n1" || st.Nodes[1].Role != "nonvoter" || st.Nodes[1].Voter {
		t.Errorf("%v, %v", st, err)
	}
	if err := replica.Close(); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		register(registrypb.NewRegistryClient(connect(voter)), fmt.Sprint("without-", i))
	}
}
