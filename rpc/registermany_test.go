package rpc

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest"
)

// A registration whose earlier attempt may have had an effect does not fail as if nothing
// had been done.
func TestRegisterManyAgainLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		s := serverOf(t, c.Leader())
		for _, again := range []bool{false, true} {
			req := &registrypb.RegisterManyRequest{Registrations: []*registrypb.RegisterRequest{
				{Group: "web", Id: "w", Addr: "10.0.0.1:80", RequestId: []byte("0123456789abcdef"), Again: again},
				{Group: "web", Id: "w", Addr: "nowhere", RequestId: []byte("fedcba9876543210"), Again: again},
			}}
			ctx, cancel := context.WithCancel(callOn(t, s, registrypb.Registry_RegisterMany_FullMethodName, req, ""))
			cancel() // nothing is proposed
			resp, err := s.registerMany(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			want := registrypb.ErrorDetail_NO_LEADER
			if again {
				want = registrypb.ErrorDetail_OUTCOME_UNKNOWN
			}
			if got := resp.Results[0].GetFailure().GetDetail().GetReason(); got != want {
				t.Errorf("again %v: %v, want %v", again, got, want)
			}
			if got := resp.Results[1].GetFailure().GetDetail().GetReason(); got != registrypb.ErrorDetail_INVALID_ARGUMENT {
				t.Errorf("again %v, an invalid one: %v", again, got)
			}
		}
	})
}

// A request of too many registrations takes hardly more memory than one at the limit, and
// what is no message is an error.
func TestNoMoreRegistrationsAreParsed(t *testing.T) {
	parse := func(data []byte) (n int, err error) {
		req := &registrypb.RegisterManyRequest{}
		err = newFrameCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, req)
		return len(req.Registrations), err
	}
	one := func(n int) []byte {
		data, err := proto.Marshal(&registrypb.RegisterManyRequest{Registrations: make([]*registrypb.RegisterRequest, n)})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for n, want := range map[int]int{0: 0, 1: 1, fsm.MaxBatch: fsm.MaxBatch, fsm.MaxBatch + 1: fsm.MaxBatch + 1, MaxRequest / 2: fsm.MaxBatch + 1} {
		if got, err := parse(one(n)); got != want || err != nil {
			t.Errorf("%d registrations: %d are parsed, %v", n, got, err)
		}
	}
	later := make([]byte, 0, 3*2000)
	for range 2000 {
		later = append(later, 0x78, 1) // a field of a later version
	}
	if got, err := parse(append(later, one(3)...)); got != 3 || err != nil {
		t.Errorf("after fields of a later version: %d, %v", got, err)
	}
	if _, err := parse([]byte{0x0a, 5, 1}); err == nil {
		t.Error("a message that is cut off is no error")
	}
}
