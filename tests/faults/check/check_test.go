package check

import (
	"strings"
	"testing"
	"time"
)

// expect compares what a checker found with a part of its text; empty: nothing.
func expect(t *testing.T, found []Violation, want string) {
	t.Helper()
	switch {
	case want == "" && len(found) > 0:
		t.Errorf("found %v", found)
	case want != "" && (len(found) == 0 || !strings.Contains(found[0].String(), want)):
		t.Errorf("found %v, want %q", found, want)
	}
}

func TestLedger(t *testing.T) {
	member := Member{"a", "one", 1}
	holds, empty := map[string]map[string]Member{"g": {"a": member}}, map[string]map[string]Member{}
	both := func(m map[string]map[string]Member) []Listing { return []Listing{{"n1", m}, {"n2", m}} }
	tests := map[string]struct {
		registered, deregistered Outcome
		nodes                    []Listing
		want                     string
	}{
		"kept":                            {OK, "", both(holds), ""},
		"lost":                            {OK, "", both(empty), "lost g/a"},
		"lost by one node":                {OK, "", []Listing{{"n1", holds}, {"n2", empty}}, "n2 lost g/a"},
		"removed":                         {OK, OK, both(empty), ""},
		"back again":                      {OK, OK, both(holds), "holds g/a"},
		"failed and there":                {Failed, "", both(holds), "holds g/a"},
		"failed":                          {Failed, "", both(empty), ""},
		"unknown and there":               {Unknown, "", both(holds), ""},
		"unknown and gone":                {Unknown, "", both(empty), ""},
		"unknown and the nodes differ":    {Unknown, "", []Listing{{"n1", holds}, {"n2", empty}}, "there at n1 and missing at n2"},
		"removal unknown, there":          {OK, Unknown, both(holds), ""},
		"removal failed, gone":            {OK, Failed, both(empty), "lost g/a"},
		"there with another address":      {OK, "", both(map[string]map[string]Member{"g": {"a": {"a", "two", 1}}}), "registered was"},
		"unknown registration, but ended": {Unknown, OK, both(holds), "holds g/a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			expect(t, Ledger([]Entry{{"g", member, tt.registered, tt.deregistered}}, tt.nodes), tt.want)
		})
	}
}

func TestRemoval(t *testing.T) {
	tests := map[string]struct {
		registered, before Outcome
		answer             Outcome
		removed            bool
		after              Outcome
		want               string
	}{
		"removed":                            {OK, "", OK, true, OK, ""},
		"lost before":                        {OK, "", OK, false, OK, "not there to be deregistered"},
		"removed by an earlier, unknown one": {OK, Unknown, OK, false, OK, ""},
		"unknown":                            {OK, "", Unknown, false, Unknown, ""},
		"failed":                             {OK, "", Failed, false, "", ""},
		"an unknown registration, removed":   {Unknown, "", OK, true, OK, ""},
		"an unknown registration, not there": {Unknown, "", OK, false, Unknown, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := &Entry{Group: "g", Member: Member{ID: "a"}, Registered: tt.registered, Deregistered: tt.before}
			expect(t, e.Removal(tt.answer, tt.removed), tt.want)
			if e.Deregistered != tt.after {
				t.Errorf("deregistered: %q, want %q", e.Deregistered, tt.after)
			}
		})
	}
}

func TestLeases(t *testing.T) {
	const s = time.Second
	beats := func(b ...Beat) []Beat { return b }
	gone := func(at time.Duration) []Removal { return []Removal{{"n1", "g", "a", at}} }
	tests := map[string]struct {
		lease       Lease
		gone        []Removal
		changes     int
		unavailable time.Duration
		noLoss      bool
		want        string
	}{
		"beats and stays": {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 9 * s, Acked: 9 * s})},
			noLoss: true},
		"expired in time":                           {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}), Stopped: 1 * s}, gone: gone(3 * s)},
		"expired early":                             {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 2 * s})}, gone: gone(2900 * time.Millisecond), want: "saw it removed"},
		"expired by a late answer":                  {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 2 * s, Acked: 8 * s})}, gone: gone(3500 * time.Millisecond), want: "saw it removed"},
		"unanswered beats count not":                {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 2 * s}), Stopped: 2 * s}, gone: gone(3 * s)},
		"told early":                                {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 2 * s, Acked: 2 * s, Lost: true})}, want: "was told"},
		"stays for ever":                            {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}), Stopped: 1 * s}, want: "still there"},
		"late":                                      {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}), Stopped: 1 * s}, gone: gone(7 * s), want: "was seen to go"},
		"late, but a leader came":                   {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}), Stopped: 1 * s}, gone: gone(7 * s), changes: 2},
		"late, but there was none":                  {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}), Stopped: 1 * s}, gone: gone(7 * s), unavailable: 4 * s},
		"told where none may be":                    {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 2 * s}, Beat{Sent: 3 * s}, Beat{Sent: 4 * s, Acked: 4 * s, Lost: true})}, noLoss: true, want: "beat all the time"},
		"lost where none may be, but it was silent": {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s})}, gone: gone(8 * s), noLoss: true},
		"lost where none may be, but it paused":     {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 5 * s, Acked: 5 * s, Lost: true})}, noLoss: true},
		"lost where none may be":                    {lease: Lease{Beats: beats(Beat{Sent: 1 * s, Acked: 1 * s}, Beat{Sent: 2 * s}, Beat{Sent: 3 * s}, Beat{Sent: 4 * s})}, gone: gone(4 * s), noLoss: true, want: "beat all the time"},
		"gone after the end":                        {lease: Lease{Beats: beats(Beat{Sent: 9 * s, Acked: 9 * s})}, gone: gone(11 * s), noLoss: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := tt.lease
			l.Group, l.ID, l.TTL = "g", "a", 2*s
			expect(t, Leases([]Lease{l}, tt.gone, LeaseBounds{
				Changes:     func(_, _ time.Duration) int { return tt.changes },
				Unavailable: func(_, _ time.Duration) time.Duration { return tt.unavailable },
				Slack:       s, End: 10 * s, NoLoss: tt.noLoss,
			}), tt.want)
		})
	}
}

// TestShown: where no member may be lost, one must have beaten all the time.
func TestShown(t *testing.T) {
	const s = time.Second
	beats := func(from, to time.Duration) (b []Beat) {
		for at := from; at <= to; at += s {
			b = append(b, Beat{Sent: at, Acked: at})
		}
		return b
	}
	for name, tt := range map[string]struct {
		lease Lease
		want  string
	}{
		"through the fault":     {Lease{Beats: beats(1*s, 9*s)}, ""},
		"came after it began":   {Lease{Beats: beats(4*s, 9*s)}, "not shown"},
		"stopped before it was": {Lease{Beats: beats(1*s, 4*s), Stopped: 4 * s}, "not shown"},
		"was kept from beating": {Lease{Beats: append(beats(1*s, 4*s), beats(7*s, 9*s)...)}, "not shown"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.lease.Group, tt.lease.ID, tt.lease.TTL = "g", "a", 2*s
			expect(t, Shown([]Lease{tt.lease}, 3*s, 8*s), tt.want)
		})
	}
}

// TestLateLooksNoFurther: neither a leader nor an outage that came after a
// member was gone excuses that it went late.
func TestLateLooksNoFurther(t *testing.T) {
	const s = time.Second
	l := Lease{Group: "g", ID: "a", TTL: 2 * s, Beats: []Beat{{Sent: 1 * s, Acked: 1 * s}}, Stopped: 1 * s}
	later := func(to time.Duration) int { return int(max(0, to-9*s) / s) }
	expect(t, Leases([]Lease{l}, []Removal{{"n1", "g", "a", 8 * s}}, LeaseBounds{
		Changes:     func(_, to time.Duration) int { return later(to) },
		Unavailable: func(_, to time.Duration) time.Duration { return time.Duration(later(to)) * s },
		Slack:       s, End: 40 * s,
	}), "was seen to go 7s after")
}

func TestWatcher(t *testing.T) {
	a, b := Member{"a", "one", 1}, Member{"b", "one", 1}
	tests := map[string]struct {
		events func(w *Watcher)
		want   string
	}{
		"a snapshot and its deltas": {func(w *Watcher) {
			w.Snapshot("g", 5, 50, []Member{a})
			w.Delta("g", 5, 7, 70, []Member{b}, nil)
			w.Delta("g", 7, 8, 80, nil, []string{"a"})
			w.Final(8, []Member{b})
		}, ""},
		"a newer snapshot after a break": {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Snapshot("g", 9, 90, nil) }, ""},
		"an older snapshot":              {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Snapshot("g", 4, 40, nil) }, "revision 4 after 5"},
		"a gap":                          {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Delta("g", 6, 7, 70, nil, nil) }, "a gap"},
		"the same delta twice": {func(w *Watcher) {
			w.Snapshot("g", 5, 50, nil)
			w.Delta("g", 5, 6, 60, nil, nil)
			w.Delta("g", 5, 6, 60, nil, nil)
		}, "a gap"},
		"a group that is gone":          {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Unknown("g") }, "does not exist"},
		"a group that is not there yet": {func(w *Watcher) { w.Unknown("g"); w.Snapshot("g", 5, 50, nil) }, ""},
		"a delta that leads nowhere":    {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Delta("g", 5, 5, 50, nil, nil) }, "from revision 5 to 5"},
		"a delta first":                 {func(w *Watcher) { w.Delta("g", 0, 5, 50, nil, nil) }, "before any snapshot"},
		"an unknown member is removed":  {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Delta("g", 5, 6, 60, nil, []string{"a"}) }, "not there"},
		"the end is missing":            {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Final(6, nil) }, "ended at revision 5"},
		"events that do not add up":     {func(w *Watcher) { w.Snapshot("g", 5, 50, nil); w.Final(5, []Member{a}) }, "add up to"},
		"a revision with two members":   {func(w *Watcher) { w.Views.Note("g", 5, 50, []Member{a}, "a read"); w.Snapshot("g", 5, 50, nil) }, "other members"},
		"two rings, told of later": {func(w *Watcher) {
			w.Snapshot("g", 5, 50, nil)
			w.Delta("g", 5, 6, 60, []Member{a}, nil)
			w.Views.NoteRing("g", 6, 60, "a read")
			w.Views.NoteRing("g", 6, 61, "another read")
		}, "fingerprint"},
		"two members, a ring told of first": {func(w *Watcher) {
			w.Snapshot("g", 5, 50, nil)
			w.Views.NoteRing("g", 6, 60, "a read")
			w.Delta("g", 5, 6, 60, []Member{a}, nil)
			w.Views.Note("g", 6, 60, nil, "another read")
		}, "other members"},
		"a revision with two rings": {func(w *Watcher) { w.Views.Note("g", 5, 51, nil, "a read"); w.Snapshot("g", 5, 50, nil) }, "fingerprint"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := &Watcher{Name: "n1", Views: NewViews()}
			tt.events(w)
			expect(t, append(w.Violations(), w.Views.Violations()...), tt.want)
		})
	}
}

func TestWatcherTellsOfTheGone(t *testing.T) {
	var gone []string
	w := &Watcher{Gone: func(_, id string) { gone = append(gone, id) }}
	w.Snapshot("g", 1, 1, []Member{{"a", "one", 1}, {"b", "one", 1}})
	w.Snapshot("g", 2, 2, []Member{{"b", "one", 1}})
	w.Delta("g", 2, 3, 3, nil, []string{"b"})
	if strings.Join(gone, " ") != "a b" {
		t.Errorf("gone: %v", gone)
	}
}

func TestSession(t *testing.T) {
	tests := map[string]struct {
		reads func(s *Session)
		want  string
	}{
		"forwards":                     {func(s *Session) { s.Note("n1", "g", 5, 4); s.Wrote("g", 6, 6); s.Note("n2", "g", 6, 6) }, ""},
		"an older index":               {func(s *Session) { s.Note("n1", "g", 5, 4); s.Note("n2", "g", 4, 4) }, "asked was for at least 5"},
		"before the own write":         {func(s *Session) { s.Wrote("g", 6, 6); s.Note("n2", "g", 5, 4) }, "asked was for at least 6"},
		"without the own write":        {func(s *Session) { s.Wrote("g", 6, 6); s.Note("n2", "g", 7, 4) }, "seen was 6"},
		"an older revision":            {func(s *Session) { s.Note("n1", "g", 5, 4); s.Note("n2", "g", 6, 3) }, "seen was 4"},
		"another group's is no matter": {func(s *Session) { s.Note("n1", "g", 5, 4); s.Note("n2", "h", 6, 3) }, ""},
		"a revision from the future":   {func(s *Session) { s.Note("n1", "g", 5, 6) }, "at index 5"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &Session{Name: "s"}
			tt.reads(s)
			expect(t, s.Violations(), tt.want)
		})
	}
}

func TestDigests(t *testing.T) {
	d := NewDigests()
	d.Note("n1", 1, 10)
	d.Note("n2", 1, 10)
	d.Note("n1", 2, 20)
	expect(t, d.Violations(), "")
	d.Note("n2", 2, 21)
	expect(t, d.Violations(), "at index 2")
}
