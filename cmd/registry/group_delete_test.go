package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// A group that is empty goes at once; one that has members says what removes them.
func TestGroupDelete(t *testing.T) {
	f := withWeb(t)
	f.groups["empty"] = &fakeGroup{config: &registrypb.GroupConfig{VirtualNodes: 64}}
	r := execute(t, t.Context(), "", "group", "delete", "web")
	if r.code != exitConflict || !strings.Contains(r.stderr, "-force removes its members with it") || f.groups["web"] == nil {
		t.Errorf("with members: %+v", r)
	}
	r = execute(t, t.Context(), "", "group", "delete", "empty")
	if r.code != exitOK || !strings.Contains(r.stderr, "group empty deleted\n") || f.groups["empty"] != nil {
		t.Errorf("empty: %+v", r)
	}
	f.groups["empty"] = &fakeGroup{config: &registrypb.GroupConfig{VirtualNodes: 64}}
	if r := execute(t, t.Context(), "", "group", "delete", "-force", "empty"); r.code != exitOK || f.groups["empty"] != nil {
		t.Errorf("empty, with -force: %+v", r)
	}
	if help := ok(t, "group", "delete", "-help"); !strings.Contains(help, "A group without members is deleted without a question") {
		t.Errorf("the help does not say so:\n%s", help)
	}
	if help := ok(t, "group", "accept-loss", "-help"); !strings.Contains(help, "If there are any it says how many") {
		t.Errorf("the help of accept-loss does not say when it asks:\n%s", help)
	}
	for _, args := range []string{"group delete empty", "group delete -force empty"} {
		if r := execute(t, t.Context(), "", strings.Fields(args)...); r.code != exitNotFound {
			t.Errorf("%s, which is gone: %+v", args, r)
		}
	}
}

// A node that does not know the group is no consent: the write would go on to others.
func TestGroupDeleteOfAGroupThatANodeDoesNotKnow(t *testing.T) {
	f := withWeb(t)
	f.failWith("Members", codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP, "unknown group")
	r := execute(t, t.Context(), "", "group", "delete", "-force", "web")
	if r.code != exitNotFound || f.groups["web"] == nil {
		t.Errorf("code %d, stderr %q, the group is there: %t", r.code, r.stderr, f.groups["web"] != nil)
	}
}
