package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// threeAnd is a cluster of n1, n2 and n3, of which n3 is down, and more nodes.
func threeAnd(more ...*registrypb.NodeStatus) []*registrypb.NodeStatus {
	return append([]*registrypb.NodeStatus{
		{Id: "n1", Role: "leader", Voter: true, Ready: true}, {Id: "n2", Role: "follower", Voter: true, Ready: true}, {Id: "n3", Voter: true, Error: "refused"},
	}, more...)
}

// The old node, which is down, is removed when the new one is a voter that is ready,
// and not before.
func TestReplaceWaitsForTheVote(t *testing.T) {
	f := startFake(t)
	steps := [][]*registrypb.NodeStatus{
		threeAnd(),
		threeAnd(&registrypb.NodeStatus{Id: "n4", Error: "refused"}),
		threeAnd(&registrypb.NodeStatus{Id: "n4", Role: "nonvoter", Ready: true}),
		threeAnd(&registrypb.NodeStatus{Id: "n4", Role: "follower", Voter: true}),
		threeAnd(&registrypb.NodeStatus{Id: "n4", Role: "follower", Voter: true, Ready: true}),
	}
	f.onStatus = func() {
		if f.writes.Load() > 0 {
			t.Errorf("it is removed, and these are left to see: %v", steps)
		}
		if len(steps) > 0 {
			f.nodes, steps = steps[0], steps[1:]
		}
	}
	r := execute(t, t.Context(), "", "cluster", "replace", "-yes", "n3", "n4")
	if r.code != exitOK || r.stderr != "node n4 is a voter, and n3 is no node\n" || f.writes.Load() != 1 || len(steps) > 0 {
		t.Errorf("%+v, %d writes, not seen: %v", r, f.writes.Load(), steps)
	}
}

// A replacement that was interrupted after the removal ends as one that was not.
func TestReplaceIsRepeatable(t *testing.T) {
	f := startFake(t)
	f.nodes = []*registrypb.NodeStatus{{Id: "n1", Role: "leader", Voter: true, Ready: true}, {Id: "n4", Role: "follower", Voter: true, Ready: true}}
	f.failWith("Remove", codes.NotFound, registrypb.ErrorDetail_UNKNOWN_NODE, `unknown node: "n3"`)
	for _, args := range []string{"", "-yes "} { // nothing is left to confirm
		if out := ok(t, strings.Fields("cluster replace -json "+args+"n3 n4")...); out != "{\n  \"removed\": \"n3\",\n  \"voter\": \"n4\"\n}\n" {
			t.Errorf("%q", out)
		}
	}
}

func TestReplaceRefuses(t *testing.T) {
	n4 := func(n *registrypb.NodeStatus) []*registrypb.NodeStatus { n.Id = "n4"; return threeAnd(n) }
	voter := n4(&registrypb.NodeStatus{Role: "follower", Voter: true, Ready: true})
	for _, tt := range []struct {
		name   string
		nodes  []*registrypb.NodeStatus
		args   string
		reason registrypb.ErrorDetail_Reason // of the removal
		code   int
		says   string
	}{
		{"the same node", voter, "n3 n3", 0, exitUsage, "OLD and NEW are both n3"},
		{"no time", voter, "-within 0s n3 n4", 0, exitUsage, "-within is 0s"},
		{"one node", voter, "n3", 0, exitUsage, "NEW is missing"},
		{"unknown nodes", threeAnd(), "n7 n8", 0, exitNotFound, `there is no node "n7"`},
		{"not joined", threeAnd(), "-within 1ms n3 n4", 0, exitUnavailable, "n3 is not removed: n4 has not joined after 1ms"},
		{"down", n4(&registrypb.NodeStatus{Voter: true, Error: "refused"}), "-within 1ms n3 n4", 0, exitUnavailable, "n3 is not removed: n4 does not answer (refused) after 1ms"},
		{"no vote", n4(&registrypb.NodeStatus{Role: "nonvoter", Ready: true}), "-within 1ms n3 n4", 0, exitUnavailable, "n3 is not removed: n4 has no vote after 1ms"},
		{"not ready", n4(&registrypb.NodeStatus{Role: "follower", Voter: true}), "-within 1ms n3 n4", 0, exitUnavailable, "n3 is not removed: n4 is not ready after 1ms"},
		{"leads and cannot hand over", voter, "n1 n4", registrypb.ErrorDetail_BUSY, exitUnavailable, "no other voter answers"},
		{"leaves no majority", voter, "n2 n4", registrypb.ErrorDetail_MEMBERSHIP, exitConflict, "no other voter answers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := startFake(t)
			f.nodes = tt.nodes
			if tt.reason != 0 {
				f.failWith("Remove", codes.FailedPrecondition, tt.reason, "no other voter answers")
			}
			r := execute(t, t.Context(), "", append(strings.Fields("cluster replace -yes"), strings.Fields(tt.args)...)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("%+v, want exit code %d and %q", r, tt.code, tt.says)
			}
			if removals := f.writes.Load(); (removals > 0) != (tt.reason != 0) {
				t.Errorf("%d removals", removals)
			}
		})
	}
}

// A node that has not joined knows none of the cluster's nodes.
func TestReplaceNeedsALeader(t *testing.T) {
	f := startFake(t)
	f.leaderless, f.nodes = true, []*registrypb.NodeStatus{{Id: "n4", Role: "follower"}}
	r := execute(t, t.Context(), "", "cluster", "replace", "-yes", "n3", "n4")
	if r.code != exitUnavailable || !strings.Contains(r.stderr, "the node that answered knows none") {
		t.Errorf("%+v", r)
	}
}

func TestReplaceEffect(t *testing.T) {
	voter := func(id string) sdk.NodeStatus { return sdk.NodeStatus{ID: id, Voter: true} }
	three := []sdk.NodeStatus{voter("a"), voter("b"), voter("c"), {ID: "d"}}
	for _, tt := range []struct {
		old  int
		to   string
		want string
	}{
		{0, "d", "a would leave for good when d is a voter: 3 voters now, 3 afterwards: the loss of 1 node is tolerated"},
		{0, "e", "a would leave for good when e is a voter: 3 voters now, 3 afterwards: the loss of 1 node is tolerated"},
		{0, "b", "a would leave for good when b is a voter: 3 voters now, 2 afterwards: the loss of no node is tolerated"},
		{3, "e", "d would leave for good when e is a voter: 3 voters now, 4 afterwards: the loss of 1 node is tolerated"},
	} {
		if got := replaceEffect(three, three[tt.old], tt.to); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
