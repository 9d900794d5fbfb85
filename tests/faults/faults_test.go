//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/faults/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const s = time.Second

func TestRecoveries(t *testing.T) {
	h := &load.History{
		Marks: []load.Mark{{At: 10 * s, Text: "kill", Hit: []string{"n1"}}, {At: 20 * s, Text: "restart", Heals: true}},
		Acks: []load.Ack{
			{Node: "n2", Sent: 9 * s, Acked: 11 * s}, // sent before: says nothing
			{Node: "n2", Sent: 11 * s, Acked: 13 * s},
			{Node: "n2", Sent: 20 * s, Acked: 21 * s},
			{Node: "n1", Sent: 22 * s, Acked: 25 * s},
		},
		End: 30 * s,
	}
	fault, heal, missing := recoveries(h, []string{"n1", "n2"})
	if !slices.Equal(fault, []time.Duration{3 * s}) || !slices.Equal(heal, []time.Duration{5 * s, 1 * s}) || len(missing) != 0 {
		t.Errorf("fault %v, heal %v, missing %v", fault, heal, missing)
	}
	if _, _, missing = recoveries(h, []string{"n3"}); len(missing) != 1 {
		t.Errorf("a node that never came back: %v", missing)
	}
}

func TestLeaseBounds(t *testing.T) {
	h := &load.History{
		Acks:  []load.Ack{{Acked: 1 * s}, {Acked: 1100 * time.Millisecond}, {Acked: 4100 * time.Millisecond}},
		Terms: []load.Term{{At: 1 * s, Term: 2}, {At: 5 * s, Term: 4}, {At: 6 * s, Term: 3}},
		End:   4200 * time.Millisecond,
	}
	b := leaseBounds(h, false)
	for _, tt := range []struct {
		from, to    time.Duration
		changes     int
		unavailable time.Duration
	}{
		{2 * s, 20 * s, 2, 2100 * time.Millisecond},
		{6 * s, 20 * s, 0, 0},
		{1 * s, 20 * s, 2, 3 * s},
		{0, 20 * s, 2, 4 * s},                      // nobody had noted a term yet
		{1 * s, 2 * s, 0, 900 * time.Millisecond},  // the term of 5 s began later
		{1 * s, 4 * s, 2, 2900 * time.Millisecond}, // or just then, and was noted late
	} {
		if got := b.Changes(tt.from, tt.to); got != tt.changes {
			t.Errorf("changes between %v and %v: %d, want %d", tt.from, tt.to, got, tt.changes)
		}
		if got := b.Unavailable(tt.from, tt.to); got != tt.unavailable {
			t.Errorf("unavailable between %v and %v: %v, want %v", tt.from, tt.to, got, tt.unavailable)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range kinds() {
		if k.Name == "" || k.About == "" || k.Inject == nil || seen[k.Name] {
			t.Errorf("kind %+v", k)
		}
		seen[k.Name] = true
	}
	if _, err := choose("kill-leader,no-such-kind"); err == nil || !strings.Contains(err.Error(), "no-such-kind") {
		t.Errorf("an unknown kind: %v", err)
	}
	if chosen, err := choose("kill-all, kill-leader"); err != nil || len(chosen) != 2 || chosen[0].Name != "kill-all" {
		t.Errorf("two kinds: %v, %v", chosen, err)
	}
}

// TestReport: neither a violation nor a run that did not happen is a success.
func TestReport(t *testing.T) {
	good := Result{}
	bad := Result{Violations: []check.Violation{{Checker: "x", Text: "y"}}}
	for name, tt := range map[string]struct {
		row row
		ok  bool
	}{
		"all is well":        {row{Wanted: 1, Runs: []Result{good}}, true},
		"a violation":        {row{Wanted: 1, Runs: []Result{bad}}, false},
		"runs are missing":   {row{Wanted: 2, Runs: []Result{good}}, false},
		"the harness failed": {row{Wanted: 1, Runs: []Result{good}, Errors: []string{"x"}}, false},
		"skipped":            {row{Wanted: 2, Skipped: "no namespaces"}, true},
	} {
		var out strings.Builder
		err := (&harness{}).report(&out, []*row{&tt.row})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		if tt.row.Skipped != "" && !strings.Contains(out.String(), tt.row.Skipped) {
			t.Errorf("%s: the table does not say why: %s", name, &out)
		}
	}
}

// TestUnacceptable: what the Go runtime and a failing node write is found, and
// a program's own words are not.
func TestUnacceptable(t *testing.T) {
	for line, want := range map[string]bool{
		"panic: runtime error: index out of range": true,
		"fatal error: all goroutines are asleep":   true,
		"WARNING: DATA RACE":                       true,
		`20:34:51 ERROR node fails error="x"`:      true,
		"20:34:51 INFO leader term=3":              false,
		"20:34:51 WARN do not panic: all is well":  false,
	} {
		if got := unacceptable.MatchString("first line\n" + line + "\n"); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestClockOverlay(t *testing.T) {
	dir := t.TempDir()
	overlay, err := clockOverlay(t.Context(), dir)
	if err != nil {
		t.Fatalf("the kinds that step clocks cannot run with this Go: %v", err)
	}
	var changed struct{ Replace map[string]string }
	data, err := os.ReadFile(overlay)
	if err := errors.Join(err, json.Unmarshal(data, &changed)); err != nil {
		t.Fatal(err)
	}
	for path, to := range changed.Replace {
		if source, err := os.ReadFile(to); err != nil || filepath.Base(path) == "time.go" && !strings.Contains(string(source), nowChanged) {
			t.Errorf("%s is replaced by %s, where time.Now is unchanged, %v", path, to, err)
		}
	}
	if len(changed.Replace) != 2 {
		t.Errorf("%d files are replaced, want time.go and ours", len(changed.Replace))
	}
}

// A run is made once more if all that it found is that it showed nothing.
func TestOnlyUnshownRunsAreRepeated(t *testing.T) {
	unshown := check.Shown(nil, 0, time.Second)
	wrong := check.Violation{Checker: "views", Text: "two rings"}
	for name, tt := range map[string]struct {
		found []check.Violation
		want  bool
	}{
		"nothing": {nil, false}, "not shown": {unshown, true}, "wrong": {[]check.Violation{wrong}, false},
		"both": {append(unshown, wrong), false},
	} {
		if got := onlyUnshown(tt.found); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
