package main

import (
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// leaderless is a cluster of three voters of which one answers.
func leaderless(t *testing.T) *fake {
	f := newFake(t).addWeb()
	f.leaderless = true
	f.nodes = []*registrypb.NodeStatus{
		{Id: "n1", Bind: "10.0.1.1:7370", Addr: "10.0.1.1:9800", Role: "follower", AppliedIndex: 43, CommitIndex: 43, Digest: 0xabc, Version: "v1", Voter: true, Ready: true},
		{Id: "n2", Bind: "10.0.1.2:7370", Addr: "10.0.1.2:9800", Voter: true, Error: "connection refused"},
		{Id: "n3", Bind: "10.0.1.3:7370", Addr: "10.0.1.3:9800", Voter: true, Error: "connection refused"},
		{Id: "n4", Bind: "10.0.1.4:7370", Addr: "10.0.1.4:9800", Role: "follower", AppliedIndex: 42, CommitIndex: 43, Digest: 0xdef, Version: "v1", Ready: true},
	}
	return f
}

// TestStatusWithoutLeader: the nodes are listed, and the exit code says that the
// cluster takes no writes.
func TestStatusWithoutLeader(t *testing.T) {
	f := leaderless(t)
	for name, args := range map[string][]string{"txt": nil, "json": {"-json"}} {
		r := execute(t, t.Context(), "", append([]string{"cluster", "status", "-registries", f.addr}, args...)...)
		if r.code != exitUnavailable || !strings.HasSuffix(r.stderr, "registry: no leader: only 1 of 3 voters can be reached\n") {
			t.Errorf("%s: exit code %d, %s", name, r.code, r.stderr)
		}
		golden(t, "cluster_status_no_leader."+name, r.stdout)
	}
}

// TestCallsWithoutLeader: a write, and a read that needs the leader, say why there
// is none, and keep their exit code.
func TestCallsWithoutLeader(t *testing.T) {
	t.Parallel()
	var cases sync.WaitGroup // each waits for its timeout
	for _, tt := range []struct {
		method, args string
		code         int
	}{
		{"SetGroup", "group set -virtual-nodes 128 new", exitUnavailable},
		{"DeleteGroup", "group delete web", exitUnavailable},
		{"Deregister", "deregister -yes -group web -id web-1", exitUnavailable},
		{"UpdateMember", "member drain -yes -group web -id web-1", exitUnavailable},
		{"Remove", "cluster remove -yes n2", exitUnavailable},
		{"Register", "register -group web -id w1 -addr 127.0.0.1:8080", exitUnavailable},
		{"Members", "members -linearizable web", exitUnavailable},
		{"MatchMany", "match -linearizable web a", exitUnavailable},
		{"SetGroup", "group set -virtual-nodes 128 new", exitUnknown},
	} {
		f := leaderless(t)
		f.failWith(tt.method, codes.Unavailable, registrypb.ErrorDetail_NO_LEADER, "not the leader: none is known")
		if tt.code == exitUnknown {
			f.failWith(tt.method, codes.Unknown, registrypb.ErrorDetail_OUTCOME_UNKNOWN, "outcome unknown")
		}
		args := append(strings.Fields(tt.args), "-registries", f.addr, "-timeout")
		cases.Go(func() {
			r := execute(t, t.Context(), "", append(args, waits)...)
			if r.code != tt.code && r.code != exitUnknown || !strings.HasSuffix(r.stderr, "\n  no leader: only 1 of 3 voters can be reached\n") {
				t.Errorf("%s: want exit code %d, got %+v", tt.args, tt.code, r)
			}
			f.mu.Lock()
			f.leaderless = false
			f.mu.Unlock()
			if r := execute(t, t.Context(), "", append(args, "500ms")...); strings.Contains(r.stderr, "voters") {
				t.Errorf("%s, when there is a leader again: %+v", tt.args, r)
			}
		})
	}
	cases.Wait()
}

func TestNoLeader(t *testing.T) {
	voter := func(role string) sdk.NodeStatus { return sdk.NodeStatus{Voter: true, Role: role} }
	for _, tt := range []struct {
		want   string
		status sdk.Status
	}{
		{"", sdk.Status{Leader: "a"}},
		{"no leader: the node is in no cluster yet", sdk.Status{}},
		{"no leader: only 1 of 2 voters can be reached", sdk.Status{Nodes: []sdk.NodeStatus{voter("follower"), voter("")}}},
		{"no leader: only 2 of 4 voters can be reached", sdk.Status{Nodes: []sdk.NodeStatus{voter("follower"), voter("candidate"), voter(""), voter("")}}},
		{"no leader: 2 of 3 voters can be reached, so one should be elected soon", sdk.Status{Nodes: []sdk.NodeStatus{voter("follower"), voter("candidate"), voter("")}}},
	} {
		if got := noLeader(tt.status); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestIndexThatNoNodeHas: -at-least above what the nodes have says how far they are.
func TestIndexThatNoNodeHas(t *testing.T) {
	t.Parallel()
	f := leaderless(t)
	for _, method := range []string{"MatchMany", "Members"} { // a node waits for the index until the call ends
		f.failWith(method, codes.DeadlineExceeded, registrypb.ErrorDetail_UNSPECIFIED, "context deadline exceeded")
	}
	var cases sync.WaitGroup // each waits for its timeout
	for _, args := range []string{"match -at-least 50 web a", "members -at-least 50 web", "match -json -at-least 50 web a", "ring stats -at-least 50 web"} {
		cases.Go(func() {
			r := execute(t, t.Context(), "", append(strings.Fields(args), "-timeout", waits, "-registries", f.addr)...)
			want := "registry: no node has applied index 50 within " + waits + ": n1 is at 43, n2 does not answer, n3 does not answer, n4 is at 42\n"
			if r.code != exitUnavailable || !strings.HasSuffix(r.stderr, want) || r.stdout != "" {
				t.Errorf("%s: %+v", args, r)
			}
		})
	}
	cases.Go(func() {
		r := execute(t, t.Context(), "", "match", "-at-least", "43", "web", "a", "-timeout", waits, "-registries", f.addr)
		if r.code != exitUnavailable || !strings.Contains(r.stderr, "no node answered at index 43 or above: "+f.addr) {
			t.Errorf("an index that a node has: %+v", r)
		}
	})
	cases.Wait()
}
