package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestZoneAlarm(t *testing.T) {
	for _, tc := range []struct {
		name  string
		zones string // of each voter; -: none
		want  string
	}{
		{"no zones", "- - -", ""},
		{"one node", "a", ""},
		{"one node without a zone", "-", ""},
		{"two nodes", "a b", `the loss of zone "a" (1 of 2 voters) or "b" (1 of 2 voters) loses the quorum of 2`},
		{"two nodes in one zone", "a a", `the loss of zone "a" (2 of 2 voters) loses the quorum of 2`},
		{"two nodes, one without a zone", "a -", `the loss of zone "a" (1 of 2 voters) loses the quorum of 2`},
		{"three zones", "a b c", ""},
		{"three nodes in two zones", "a b a", `the loss of zone "a" (2 of 3 voters) loses the quorum of 2`},
		{"three nodes in one zone", "a a a", `the loss of zone "a" (3 of 3 voters) loses the quorum of 2`},
		{"one of three names a zone", "- a -", ""},
		{"two of three name a zone", "a - a", `the loss of zone "a" (2 of 3 voters) loses the quorum of 2`},
		{"four nodes in two zones", "b a b a", `the loss of zone "a" (2 of 4 voters) or "b" (2 of 4 voters) loses the quorum of 3`},
		{"four nodes in three zones", "b a b c", `the loss of zone "b" (2 of 4 voters) loses the quorum of 3`},
		{"four zones", "a b c d", ""},
		{"five nodes in three zones", "a a b b c", ""},
		{"five nodes, three in a zone", "a a b a c", `the loss of zone "a" (3 of 5 voters) loses the quorum of 3`},
		{"five nodes, two in a zone, others without", "a - - a -", ""},
		{"seven nodes, three in a zone", "a a a b b c c", ""},
		{"seven nodes, four in a zone", "a a a a b b c", `the loss of zone "a" (4 of 7 voters) loses the quorum of 4`},
		{"no voters", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var voters []raft.Server
			of := make(map[raft.ServerID]string)
			for i, zone := range strings.Fields(tc.zones) {
				id := raft.ServerID(fmt.Sprint("n", i))
				voters = append(voters, raft.Server{ID: id})
				of[id] = strings.TrimPrefix(zone, "-")
			}
			if got := zoneAlarm(voters, func(id raft.ServerID) string { return of[id] }); got != tc.want {
				t.Errorf("got %q\nwant %q", got, tc.want)
			}
		})
	}
}
