package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// TestConfirm: one rule for all that moves keys or weakens the cluster. Without
// a terminal it shows what would happen and wants -yes.
func TestConfirm(t *testing.T) {
	voters := []*registrypb.NodeStatus{
		{Id: "n1", Role: "leader", Voter: true}, {Id: "n2", Role: "follower", Voter: true}, {Id: "n3", Role: "follower", Voter: true, Ready: true},
	}
	at := func(f *fake) {
		f.nodes = voters
		voters[1].Addr = f.addr // where it is asked to leave
	}
	for _, tt := range []struct {
		args, says, done string
	}{
		{"group set web -virtual-nodes 128", "of the keys would move", "group web set"},
		{"member set -group web -id web-1 -weight 5", "of the keys of web would move", "group revision"},
		{"member set -group web -id web-1 -state draining", "of the keys of web would move", "group revision"},
		{"member set -group web -id web-3 -state active -weight 2", "of the keys of web would move", "group revision"},
		{"member drain -group web -id web-1", "of the keys of web would move", "web/web-1 is draining, group revision"},
		{"member resume -group web -id web-3", "of the keys of web would move", "web/web-3 is active, group revision"},
		{"deregister -group web -id web-1", "of the keys of web would move", "deregistered"},
		{"cluster remove n2", "n2 would leave for good: 3 voters now, 2 afterwards: the loss of no node is tolerated", "node n2 removed"},
		{"cluster replace n2 n3", "n2 would leave for good when n3 is a voter: 3 voters now, 2 afterwards: the loss of no node is tolerated", "node n3 is a voter, and n2 is no node"},
		{"cluster leave n2", "n2 would leave for good: 3 voters now, 2 afterwards: the loss of no node is tolerated", "node n2 left"},
		{"group delete -force web", "web would go for good with its 3 members", "group web deleted with 3 members"},
		{"group accept-loss web", "2 silent members of web would go", ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			f := withWeb(t)
			at(f)
			r := execute(t, t.Context(), "y\n", strings.Fields(tt.args)...)
			if r.code != exitCheck || !strings.Contains(r.stderr, "not done: ") || !strings.Contains(r.stderr, tt.says) ||
				!strings.Contains(r.stderr, "-yes") || f.writes.Load() != 0 {
				t.Errorf("without -yes: %+v, %d writes", r, f.writes.Load())
			}
			if out := ok(t, append(strings.Fields(tt.args), "-yes", "-json")...); !json.Valid([]byte(out)) {
				t.Errorf("no JSON: %q", out)
			}
			f = withWeb(t)
			at(f)
			r = execute(t, t.Context(), "", append(strings.Fields(tt.args), "-yes")...)
			if r.code != exitOK || !strings.Contains(r.stderr, tt.done) || f.writes.Load() != 1 {
				t.Errorf("with -yes: %+v, %d writes", r, f.writes.Load())
			}
		})
	}
	for _, args := range []string{
		"member hold -group web -id web-1 -for 30s", "member set -group web -id web-3 -weight 7", "member resume -group web -id web-1",
		"deregister -group web -id web-3", "deregister -group web -id nobody", "cluster remove nobody",
	} {
		t.Run("nothing moves: "+args, func(t *testing.T) {
			withWeb(t).nodes = voters
			ok(t, strings.Fields(args)...)
		})
	}
}

func TestRemoveEffect(t *testing.T) {
	node := func(id string, voter bool, role string) sdk.NodeStatus {
		return sdk.NodeStatus{ID: id, Voter: voter, Role: role}
	}
	five := []sdk.NodeStatus{node("a", true, "leader"), node("b", true, ""), node("c", true, ""), node("d", true, "follower"), node("e", false, "follower")}
	for _, tt := range []struct {
		gone sdk.NodeStatus
		want string
	}{
		{five[0], "a would leave for good: 4 voters now, 3 afterwards: the loss of 1 node is tolerated; 2 of them do not answer now"},
		{five[1], "b would leave for good: 4 voters now, 3 afterwards: the loss of 1 node is tolerated; 1 of them does not answer now"},
		{five[4], "e, which has no vote, would leave for good"},
	} {
		if got := removeEffect(five, tt.gone); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// TestRemovalText: when the leader removes a voter, or why it does not.
func TestRemovalText(t *testing.T) {
	for want, r := range map[string]sdk.Removal{
		"the leader has not reached it for 2m10s, and removes it in 2m50s":                     {Unreachable: 130*time.Second + time.Millisecond, RemovedIn: 170 * time.Second},
		"the leader has not reached it for 1h0m0s, and keeps it: 2 voters would be left, so 3": {Unreachable: time.Hour, Kept: "2 voters would be left,\nso 3"},
	} {
		if got := removalText(&r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if j := toRemovalJSON(&r); (j.RemovedIn == "") != (j.Kept != "") {
			t.Errorf("%+v", j)
		}
	}
}
