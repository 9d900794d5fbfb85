package registrytest_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Each registration of a call has its own answer, at the leader and at other nodes, and
// a repeated call the answers of the first.
func TestRegisterMany(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for node, api := range c.apis {
		group := fmt.Sprintf("web-%d", node)
		if _, err := api.Register(t.Context(), &registrypb.RegisterRequest{Group: group, Id: "taken", Addr: "10.0.0.1:80"}); err != nil {
			t.Fatal(err)
		}
		req := &registrypb.RegisterManyRequest{}
		for i := range 1000 {
			r := &registrypb.RegisterRequest{
				Group: group, Id: fmt.Sprintf("m-%d", i), Addr: "10.0.0.2:80", Ttl: durationpb.New(time.Hour), Instance: []byte("instance"),
				RequestId: fmt.Appendf(nil, "%08d%08d", node, i),
			}
			req.Registrations = append(req.Registrations, r)
		}
		req.Registrations[10].Id = "taken"
		req.Registrations[20].Weight = 1 << 30
		req.Registrations[30].Instance = nil
		req.Registrations[40].State = registrypb.MemberState_MEMBER_STATE_HELD.Enum()
		first, err := api.RegisterMany(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Results) != len(req.Registrations) {
			t.Fatalf("node %d: %d results", node, len(first.Results))
		}
		leases := make(map[uint64]bool)
		for i, r := range first.Results {
			want := map[int]registrypb.ErrorDetail_Reason{
				10: registrypb.ErrorDetail_CONFLICT, 20: registrypb.ErrorDetail_INVALID_ARGUMENT, 40: registrypb.ErrorDetail_INVALID_ARGUMENT,
			}[i]
			if got := r.GetFailure().GetDetail().GetReason(); got != want || (r.GetRegistered() == nil) != (want != 0) {
				t.Errorf("node %d, registration %d: %v, want the reason %v", node, i, r, want)
			}
			leases[r.GetRegistered().GetLeaseId()] = true
		}
		if d := first.Results[20].GetFailure().GetDetail(); d.GetField() != "weight" || first.Results[20].GetFailure().GetCode() != uint32(codes.InvalidArgument) {
			t.Errorf("node %d: %v", node, first.Results[20])
		}
		if got := first.Results[30].GetRegistered().GetInstance(); string(got) != string(req.Registrations[30].RequestId) {
			t.Errorf("node %d: without an instance it is %q", node, got)
		}
		if len(leases) != 1000-3+1 {
			t.Errorf("node %d: %d leases", node, len(leases))
		}
		req.SetAgain()
		again, err := c.apis[(node+1)%3].RegisterMany(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range again.Results {
			if before := first.Results[i]; before.GetRegistered() != nil && !proto.Equal(r, before) {
				t.Errorf("node %d, registration %d is repeated with %v, want %v", node, i, r, before)
			}
		}
		members, err := api.Members(t.Context(), &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
		if err != nil || len(members.Members) != 1000-3+1 {
			t.Errorf("node %d: %d members, %v", node, len(members.GetMembers()), err)
		}
	}
}

func TestRegisterManyRefusesNoneAndTooMany(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	for _, n := range []int{0, 1001, 500_000} {
		_, err := c.apis[0].RegisterMany(t.Context(), &registrypb.RegisterManyRequest{Registrations: make([]*registrypb.RegisterRequest, n)})
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
	}
}
