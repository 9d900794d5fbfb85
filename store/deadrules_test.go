package store

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Which dead voters are removed, when, and why the others stay.
func TestRemovalRules(t *testing.T) {
	const after = time.Minute
	now := time.Now()
	healthy := voterCheck{reached: true, contact: now}
	behind := voterCheck{reached: true, contact: now, problem: "n2 is behind"}
	dead := func(id string, since time.Duration) voterCheck {
		return voterCheck{id: id, contact: now.Add(-since)}
	}
	const four, five = "4 voters would be left, and 2 of them are healthy", "5 voters would be left, and 2 of them are healthy"
	for _, tc := range []struct {
		name    string
		min     int
		counted time.Duration // since when this leader counts
		others  []voterCheck
		want    string // of each dead voter: when it is removed, or why not
	}{
		{"nobody is dead", 3, time.Hour, []voterCheck{healthy, healthy}, ""},
		{"one of five, too soon", 3, time.Hour, []voterCheck{healthy, healthy, healthy, dead("n5", 20*time.Second)}, "n5 40s"},
		{"one of five", 3, time.Hour, []voterCheck{healthy, healthy, healthy, dead("n5", 70*time.Second)}, "n5 0s"},
		{"one of four", 3, time.Hour, []voterCheck{healthy, healthy, dead("n4", time.Minute)}, "n4 0s"},
		{"one of three", 3, time.Hour, []voterCheck{healthy, dead("n3", time.Hour)}, "n3 2 voters would be left, and -min-voters is 3"},
		{"as many as asked for", 5, time.Hour, []voterCheck{healthy, healthy, healthy, dead("n5", time.Hour)}, "n5 4 voters would be left, and -min-voters is 5"},
		{"new leader", 3, 10 * time.Second, []voterCheck{healthy, healthy, healthy, dead("n5", time.Hour)}, "n5 50s"},
		{"two of five, the longest first", 3, time.Hour, []voterCheck{healthy, healthy, dead("n4", 61*time.Second), dead("n5", time.Hour)}, "n5 0s, n4 1m0s"},
		{"the second not as long", 3, time.Hour, []voterCheck{healthy, healthy, dead("n4", 15*time.Second), dead("n5", time.Hour)}, "n5 45s, n4 1m45s"},
		{"three of five: no quorum", 3, time.Hour, []voterCheck{healthy, dead("n3", time.Hour), dead("n4", time.Hour), dead("n5", time.Hour)}, "n3 " + four + ", n4 " + four + ", n5 " + four},
		{"two of six, two behind", 3, time.Hour, []voterCheck{healthy, behind, behind, dead("n5", time.Hour), dead("n6", time.Hour)}, "n5 " + five + ", n6 " + five},
		{"one behind", 3, time.Hour, []voterCheck{healthy, healthy, behind, dead("n5", time.Hour)}, "n5 n2 is behind"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := removalRules{after, tc.min}.plan(now, now.Add(-tc.counted), tc.others)
			var got []string
			for _, d := range plan {
				what := d.Kept
				if what == "" {
					what = d.RemovedIn.String()
				}
				got = append(got, d.ID+" "+what)
			}
			if got := strings.Join(got, ", "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// A contact is an answer, or a heartbeat that was acknowledged. A voter is reached if it
// had one since the last check, and a new voter was reached just now.
func TestLastContact(t *testing.T) {
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	const never = -1
	for _, tc := range []struct {
		name    string
		last    int // contact that the check before noted; never: the voter is new
		acked   int // when the acknowledged heartbeat was sent
		answers bool
		contact int
		reached bool
	}{
		{"answers", 10, never, true, 30, true},
		{"acknowledges", 10, 25, false, 25, true},
		{"acknowledged before the last check", 10, 15, false, 15, false},
		{"acknowledged before its last answer", 10, 5, false, 10, false},
		{"silent", 10, never, false, 10, false},
		{"new, and answers", never, never, true, 30, true},
		{"new, and silent", never, 5, false, 30, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			acks := &staleness{start: start, acks: make(map[raft.ServerID]int64)}
			if tc.acked != never {
				acks.Acked("n2", int64(at(tc.acked).Sub(start)))
			}
			w := &voterWatch{checked: at(20), contacts: map[raft.ServerID]time.Time{}}
			if tc.last != never {
				w.contacts["n2"] = at(tc.last)
			}
			others := []voterCheck{{id: "n2", reached: tc.answers}}
			w.note(others, at(30), acks)
			if got := others[0]; !got.contact.Equal(at(tc.contact)) || got.reached != tc.reached || !w.contacts["n2"].Equal(got.contact) {
				t.Errorf("contact after %v, reached %v; noted %v", got.contact.Sub(start), got.reached, w.contacts["n2"].Sub(start))
			}
			others[0].id = "n3" // n2 is no voter any more
			w.note(others, at(31), acks)
			if _, kept := w.contacts["n2"]; kept {
				t.Error("the contact of a former voter is kept")
			}
		})
	}
}
