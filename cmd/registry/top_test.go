package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// viewOf is a view of groups, by events.
func viewOf(events ...sdk.GroupEvent) *topView {
	v := &topView{groups: map[string]*topGroup{}, status: sdk.Status{Cluster: "registry", Leader: "n1", Term: 3, Nodes: []sdk.NodeStatus{
		{ID: "n1", Role: "leader", Voter: true, Ready: true, AppliedIndex: 47, Version: "1.2.3"},
		{ID: "n2", Role: "follower", Voter: true, Ready: true, AppliedIndex: 46, Lag: 81234567, Version: "1.2.3", Alarms: []string{"disk is\nlow"}},
		{ID: "n3", Voter: true, Error: "connection refused"},
	}}}
	for _, ev := range events {
		v.apply(ev, topNow.Add(-3*time.Second))
	}
	return v
}

var topNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func reset(group string, revision uint64, states ...sdk.State) sdk.GroupEvent {
	ev := sdk.GroupEvent{Group: group, Reset: true, Revision: revision}
	for i, s := range states {
		ev.Put = append(ev.Put, sdk.Member{ID: fmt.Sprint("m", i), State: s})
	}
	return ev
}

// TestTopFrame: the groups that need a look come first, and what changes is shown.
func TestTopFrame(t *testing.T) {
	v := viewOf(
		reset("web", 41, sdk.StateActive, sdk.StateActive), reset("a\x1b[2J", 42, sdk.StateActive), reset("drained", 43, sdk.StateActive, sdk.StateDraining, sdk.StateHeld),
		reset("empty", 44), reset("gone", 45),
		sdk.GroupEvent{Group: "web", From: 41, Revision: 46, Removed: []string{"m0"}, Put: []sdk.Member{{ID: "m7"}, {ID: "m8"}}},
		sdk.GroupEvent{Group: "gone", Unknown: true},
	)
	golden(t, "top.txt", v.frame(frameSize{}, topNow, false))
	v.apply(sdk.GroupEvent{Err: errors.New("no node answers")}, topNow)
	v.takeStatus(topStatus{err: errors.New("registry: nobody there")})
	golden(t, "top_small.txt", v.frame(frameSize{40, 14}, topNow, false))
	if out := v.frame(frameSize{200, 50}, topNow, true); !strings.Contains(out, "\x1b[31mthe watch gets no answer: no node answers\x1b[0m\n") || !strings.Contains(out, "\x1b[31mempty") || !strings.Contains(out, "\x1b[33mdrained") {
		t.Errorf("without colours:\n%q", out)
	}
	v.apply(sdk.GroupEvent{Recovered: true}, topNow)
	v.takeStatus(topStatus{status: sdk.Status{Cluster: "registry"}})
	if out := v.frame(frameSize{}, topNow, false); strings.Contains(out, "no answer") || !strings.Contains(out, "no leader: ") {
		t.Errorf("afterwards:\n%s", out)
	}
	for rows := range 30 {
		for columns := range 50 {
			out := v.frame(frameSize{columns + 1, rows + 1}, topNow, false)
			if lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); len(lines) > rows+1 {
				t.Fatalf("%d lines on a screen of %d rows", len(lines), rows+1)
			} else if len([]rune(lines[0])) > columns+1 {
				t.Fatalf("%q on a screen of %d columns", lines[0], columns+1)
			}
		}
	}
}

// TestTopOnce: without a terminal it prints one frame, of the groups with the prefix, and
// no colours.
func TestTopOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t).addWeb()
	top := func(args ...string) []string { return append([]string{"top", "-registries", f.addr}, args...) }
	f.nodes = []*registrypb.NodeStatus{{Id: "n1", Role: "leader", Ready: true, Voter: true}}
	f.put("api", &registrypb.Member{Id: "api-1", Addr: "h:1", Weight: 1, ModifiedIndex: 44})
	for args, want := range map[string]bool{"": true, "-prefix web -once": false} {
		out := ok(t, top(strings.Fields(args)...)...)
		if !strings.Contains(out, "\nweb    3        2       1         0     43") || strings.Contains(out, "\napi ") != want || strings.Contains(out, "\x1b") || strings.Contains(out, "q quits") {
			t.Errorf("%s:\n%q", args, out)
		}
	}
	if out := ok(t, top("-prefix", "none")...); !strings.Contains(out, "0 groups of none*  0 members") {
		t.Error(out)
	}
	f.failWith("Watch", codes.Unavailable, registrypb.ErrorDetail_NOT_READY, "because of the test")
	if r := execute(t, t.Context(), "", top("-timeout", "300ms")...); r.code != exitUnavailable || r.stdout != "" {
		t.Errorf("without a watch: %+v", r)
	}
	f.failWith("Watch", codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED, "because of the test")
	if r := execute(t, t.Context(), "", top()...); r.code != exitDenied || r.stdout != "" {
		t.Errorf("without the right: %+v", r)
	}
	if r := execute(t, t.Context(), "", "top", "-timeout", "300ms", "-registries", "127.0.0.1:1"); r.code != exitUnavailable {
		t.Errorf("nobody there: %+v", r)
	}
}
