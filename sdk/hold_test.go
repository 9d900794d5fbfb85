package sdk

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const (
	wireDraining = registrypb.MemberState_MEMBER_STATE_DRAINING
	wireHeld     = registrypb.MemberState_MEMBER_STATE_HELD
)

func TestHoldGivesTheRegistrationUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, service("a", rec.on))
		rec.want(t, EventRegistered)
		eventually(t, "a beat", func() bool { return cl.beatsOf("g", "a") >= 1 })
		if err := r.Hold(testContext(t), time.Minute); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(over(t, r), ErrHeld) || !errors.Is(rec.want(t, EventEnded).Err, ErrHeld) {
			t.Errorf("ended by %v", r.Err())
		}
		left := make(chan int)
		c.keeper.post(func() { left <- len(c.keeper.beats) + len(c.keeper.losses) + c.keeper.workers })
		if n := <-left; n != 0 {
			t.Errorf("%d leases still beat", n)
		}
		m := cl.member("g", "a")
		if m.GetState() != wireHeld || m.GetHold().AsDuration() != time.Minute {
			t.Errorf("%v", m)
		}
		for _, err := range []error{r.Hold(testContext(t), time.Minute), r.Drain(testContext(t)), r.Resume(testContext(t))} {
			if !errors.Is(err, ErrHeld) {
				t.Errorf("after it: %v", err)
			}
		}
		again := register(t, c, Service{Group: "g", ID: "a", Addr: "elsewhere:80"})
		if m := cl.member("g", "a"); m.GetState() != 0 || m.GetAddr() != "elsewhere:80" {
			t.Errorf("returned as %v", m)
		}
		if err := r.Close(); err != nil || cl.member("g", "a") == nil {
			t.Errorf("the close of the former registration: %v", err)
		}
		if err := again.Close(); err != nil || cl.member("g", "a") != nil {
			t.Errorf("the close of the new one: %v", err)
		}
	})
}

// Close leaves a held member held, whether the process held it or an operator.
func TestCloseLeavesAHeldMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		own, operators := register(t, c, service("a", nil)), register(t, c, service("b", nil))
		last := register(t, c, service("c", nil))
		if err := own.Hold(testContext(t), time.Minute); err != nil {
			t.Fatal(err)
		}
		cl.set(t, "b", wireHeld, time.Minute)
		if err := operators.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for id, stays := range map[string]bool{"a": true, "b": true, "c": false} {
			if (cl.member("g", id) != nil) != stays {
				t.Errorf("%s stays: %t", id, !stays)
			}
		}
		if own.Removed() || operators.Removed() || !last.Removed() {
			t.Errorf("removed: %t, %t and %t", own.Removed(), operators.Removed(), last.Removed())
		}
	})
}

// A hold that failed changes nothing: the beats go on, and it may be repeated.
func TestHoldThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		r := register(t, c, service("a", nil))
		if err := r.Hold(testContext(t), 0); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("no time: %v", err)
		}
		cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
			if method == "UpdateMember" {
				return failing(codes.InvalidArgument, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_INVALID_ARGUMENT, Field: "hold"})
			}
			return nil
		})
		var e *Error
		if err := r.Hold(testContext(t), time.Second); !errors.As(err, &e) || e.Field != "hold" || r.Err() != nil {
			t.Errorf("%v, registration %v", err, r.Err())
		}
		beats := cl.beatsOf("g", "a")
		eventually(t, "another beat", func() bool { return cl.beatsOf("g", "a") > beats })
		cl.nodes[0].script(nil)
		if err := r.Hold(testContext(t), time.Second); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		other := register(t, c, service("b", nil))
		if err := other.Hold(ctx, time.Second); err == nil || other.Err() != nil {
			t.Errorf("%v, registration %v", err, other.Err())
		}
	})
}

func TestDrainAndResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		rec := newRecorder()
		r := register(t, c, service("a", rec.on))
		rec.want(t, EventRegistered)
		if err := r.Drain(testContext(t)); err != nil || cl.member("g", "a").GetState() != wireDraining {
			t.Errorf("%v, %v", cl.member("g", "a"), err)
		}
		rec.want(t, EventDrained)
		cl.expire("g", "a")
		if err := r.Drain(testContext(t)); err != nil && !errors.Is(err, ErrUnknownMember) {
			t.Errorf("while the lease is lost: %v", err)
		}
		rec.want(t, EventLost)
		rec.want(t, EventReregistered)
		if m := cl.member("g", "a"); m.GetState() != wireDraining {
			t.Errorf("registered again as %v", m)
		}
		if err := r.Resume(testContext(t)); err != nil || cl.member("g", "a").GetState() != 0 {
			t.Errorf("%v, %v", cl.member("g", "a"), err)
		}
		rec.want(t, EventResumed)
		cl.expire("g", "a")
		rec.want(t, EventLost)
		rec.want(t, EventReregistered)
		if m := cl.member("g", "a"); m.GetState() != 0 {
			t.Errorf("registered again as %v", m)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := r.Drain(testContext(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("after the close: %v", err)
		}
	})
}

// holding returns the members with those held that are named.
func holding(ms []*registrypb.Member, ids ...string) []*registrypb.Member {
	out := make([]*registrypb.Member, len(ms))
	for i, m := range ms {
		out[i] = proto.Clone(m).(*registrypb.Member)
		if slices.Contains(ids, m.Id) {
			out[i].State, out[i].ModifiedIndex = wireHeld, m.ModifiedIndex+1
		}
	}
	return out
}

// withHeld returns members and a key whose owner is held, with its fallback.
func withHeld(t *testing.T, n int) (ms []*registrypb.Member, key string, owner, fallback string) {
	t.Helper()
	ms = memberIDs(n)
	before := fakeRing(ms)
	key = "alice"
	owners := before.MatchN(nil, key, 2)
	owner, fallback = before.Member(owners[0]).ID, before.Member(owners[1]).ID
	return holding(ms, owner), key, owner, fallback
}

func TestLocalMatchNamesTheFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		ms, key, owner, fallback := withHeld(t, 4)
		cl.write("g", ms...)
		r := openRing(t, cl.client(cl.target(), fastProgress))
		m, err := r.Match(key)
		if err != nil || m.ID != owner || m.State != StateHeld || m.Fallback == nil || m.Fallback.ID != fallback || m.Serving().ID != fallback {
			t.Errorf("Match: %+v, %v", m, err)
		}
		all, err := r.MatchN(nil, key, 2)
		if err != nil || all[0].ID != owner || all[0].Fallback.ID != fallback || all[1].ID != fallback || all[1].Fallback != nil {
			t.Errorf("MatchN: %+v, %v", all, err)
		}
		if all, err = r.Serving(nil, key, 4); err != nil || all[0].ID != fallback || all[3].ID != owner {
			t.Errorf("Serving: %+v, %v", all, err)
		}
		for i := range r.Members() {
			if r.Members()[i].Fallback != nil {
				t.Error("the ring's own members were changed")
			}
		}
	})
}

func TestMatchManyReadsFallbacks(t *testing.T) {
	resp := &registrypb.MatchManyResponse{
		Members:      []*registrypb.Member{{Id: "a", State: wireHeld}, {Id: "b"}},
		Owners:       []uint32{0, 1, 0},
		OwnersPerKey: 1,
		Fallbacks:    []uint32{2, 0, 2},
	}
	all, err := spread(resp, 3)
	if err != nil || all[0][0].Serving().ID != "b" || all[1][0].Fallback != nil || all[2][0].Serving().ID != "b" {
		t.Errorf("%+v, %v", all, err)
	}
	for name, bad := range map[string][]uint32{"too few": {2}, "nobody": {3, 0, 0}, "overflow": {1<<32 - 1, 0, 0}} {
		resp.Fallbacks = bad
		if _, err := spread(resp, 3); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What is written to disk of a member is all that there is of it, but for the
// fallback, which is of a key.
func TestMemberOnDiskIsWhole(t *testing.T) {
	m := Member{
		ID: "a", Addr: "a:80", Weight: 3, Meta: map[string]string{"k": "v"}, State: StateHeld, TTL: time.Second, Hold: time.Minute,
		CreatedIndex: 4, ModifiedIndex: 5, RegisteredAt: time.Unix(6, 7).UTC(),
	}
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		if v.Field(i).IsZero() != (v.Type().Field(i).Name == "Fallback") {
			t.Errorf("field %s is not tried", v.Type().Field(i).Name)
		}
	}
	if got := memberFromProto(memberToProto(m)); !reflect.DeepEqual(got, m) {
		t.Errorf("%+v became %+v", m, got)
	}
}
