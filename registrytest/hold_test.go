package registrytest_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const heldState = registrypb.MemberState_MEMBER_STATE_HELD

// hold holds web/id, by its instance or on an operator's word.
func (c *apiCluster) hold(t *testing.T, via int, id string, d time.Duration, instance []byte) uint64 {
	t.Helper()
	u, err := c.apis[via].UpdateMember(t.Context(), &registrypb.UpdateMemberRequest{
		Group: "web", Id: id, State: heldState.Enum(), Hold: durationpb.New(d), Instance: instance,
	})
	if err != nil {
		t.Fatalf("hold %s: %v", id, err)
	}
	return u.Index
}

// field is the one that an error names.
func field(err error) string {
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*registrypb.ErrorDetail); ok {
			return detail.Field
		}
	}
	return ""
}

// Every node says of every key of a held member that it is held, and who stands
// in; one key or many, asked alone or with its next owners.
func TestMatchNamesTheFallback(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	var instance []byte
	for i := range 4 {
		r := c.register(t, i%3, func(r *registrypb.RegisterRequest) { r.Id = fmt.Sprintf("m-%d", i) })
		if i == 1 {
			instance = r.Instance
		}
	}
	read := &registrypb.ReadOptions{MinIndex: c.hold(t, 2, "m-1", time.Minute, instance)}
	keys := make([][]byte, 300)
	for i := range keys {
		keys[i] = fmt.Append(nil, "key", i)
	}
	for n, api := range c.apis {
		many, err := api.MatchMany(t.Context(), &registrypb.MatchManyRequest{Group: "web", Keys: keys, N: 2, Read: read})
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		for i, key := range keys {
			one, err := api.Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: key, Read: read})
			if err != nil {
				t.Fatal(err)
			}
			if owner := many.Members[many.Owners[2*i]].Id; owner != one.Members[0].Id {
				t.Fatalf("node %d, key %d: %s, and among many %s", n, i, one.Members[0].Id, owner)
			}
			if one.Members[0].Id != "m-1" {
				if one.Fallback != nil || many.Fallbacks[i] != 0 {
					t.Fatalf("node %d, key %d of %s has a fallback", n, i, one.Members[0].Id)
				}
				continue
			}
			held++
			second := many.Members[many.Owners[2*i+1]].Id
			if m := one.Members[0]; m.State != heldState || m.Hold.AsDuration() != time.Minute {
				t.Fatalf("node %d, key %d: %v", n, i, m)
			}
			if one.Fallback.GetId() != second || many.Members[many.Fallbacks[i]-1].Id != second {
				t.Fatalf("node %d, key %d: fallback %v, want %s", n, i, one.Fallback, second)
			}
		}
		if held < 30 {
			t.Errorf("node %d: %d of %d keys are held", n, held, len(keys))
		}
	}
	back := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id, r.Addr = "m-1", "10.0.0.77:80" })
	many, err := c.apis[1].MatchMany(t.Context(), &registrypb.MatchManyRequest{Group: "web", Keys: keys, Read: &registrypb.ReadOptions{MinIndex: back.Index}})
	if err != nil || len(many.Fallbacks) > 0 {
		t.Errorf("after the return: %d fallbacks, %v", len(many.GetFallbacks()), err)
	}
	for _, m := range many.Members {
		if m.Id == "m-1" && (m.Addr != "10.0.0.77:80" || m.State != 0 || m.Hold != nil) {
			t.Errorf("returned as %v", m)
		}
	}
}

func TestHoldOverTheAPI(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := c.register(t, 0, nil)
	c.logStays(t, "web", func() {
		for name, req := range map[string]*registrypb.UpdateMemberRequest{
			"nothing":          {State: heldState.Enum(), Hold: durationpb.New(0)},
			"less than 1 ms":   {State: heldState.Enum(), Hold: durationpb.New(time.Microsecond)},
			"999 ms":           {State: heldState.Enum(), Hold: durationpb.New(999 * time.Millisecond)},
			"more than a day":  {State: heldState.Enum(), Hold: durationpb.New(24*time.Hour + time.Millisecond)},
			"centuries":        {State: heldState.Enum(), Hold: &durationpb.Duration{Seconds: 1 << 60}},
			"a negative time":  {State: heldState.Enum(), Hold: durationpb.New(-time.Second)},
			"no state":         {Hold: durationpb.New(time.Minute)},
			"while it drains":  {State: registrypb.MemberState_MEMBER_STATE_DRAINING.Enum(), Hold: durationpb.New(time.Minute)},
			"while it is back": {State: registrypb.MemberState_MEMBER_STATE_ACTIVE.Enum(), Hold: durationpb.New(time.Minute)},
		} {
			req.Group, req.Id = "web", "web-1"
			_, err := c.apis[1].UpdateMember(t.Context(), req)
			if wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT); field(err) != "hold" {
				t.Errorf("%s: the error names %q: %v", name, field(err), err)
			}
		}
		_, err := c.apis[2].Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "w", Addr: "10.0.0.1:80", State: heldState.Enum()})
		if wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT); field(err) != "state" {
			t.Errorf("register as held: the error names %q", field(err))
		}
	})

	c.hold(t, 1, "web-1", time.Minute, first.Instance)
	_, err := c.apis[0].Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: "10.0.0.1:80", Instance: first.Instance})
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_FENCED)
	d, err := c.apis[2].Deregister(t.Context(), &registrypb.DeregisterRequest{Group: "web", Id: "web-1", Instance: first.Instance, KeepHeld: true})
	if err != nil || d.Removed {
		t.Errorf("the end of the process: %v, %v", d, err)
	}
	d, err = c.apis[2].Deregister(t.Context(), &registrypb.DeregisterRequest{Group: "web", Id: "web-1"})
	if err != nil || !d.Removed {
		t.Errorf("deregister a held member: %v, %v", d, err)
	}
}
