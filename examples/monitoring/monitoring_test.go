// Package monitoring has tests of the files beside it only.
package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Alerts and dashboard ask for metrics that nodes have.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `(registry_\\w+)` \\| (\\w+) ").FindAllStringSubmatch(read(t, "../../docs/reference/metrics.md"), -1) {
		if documented[m[1]] = true; m[2] == "histogram" {
			documented[m[1]+"_bucket"] = true
		}
	}
	if len(documented) < 50 {
		t.Fatalf("%d metrics are documented", len(documented))
	}
	for file, least := range map[string]int{"alerts.yml": 4, "alerts_test.yml": 4, "dashboard.json": 15} {
		used := make(map[string]bool)
		for _, name := range regexp.MustCompile(`\bregistry_\w+`).FindAllString(read(t, file), -1) {
			if used[name] = true; !documented[name] {
				t.Errorf("%s: no node has %s", file, name)
			}
		}
		if len(used) < least {
			t.Errorf("%s: %d metrics", file, len(used))
		}
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var d struct {
		Title         string
		SchemaVersion int
		Panels        []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.SchemaVersion == 0 || len(d.Panels) < 10 {
		t.Errorf("title %q, schema %d, %d panels", d.Title, d.SchemaVersion, len(d.Panels))
	}
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type == "" || p.GridPos.W == 0 || len(p.Targets) == 0 {
			t.Errorf("%+v", p)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if target.RefID == "" || !strings.Contains(target.Expr, `job="registry"`) {
				t.Errorf("%s: %+v", p.Title, target)
			}
		}
	}
}

// The alerts fire on what they are for, and on nothing else during a rolling restart.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool (Debian: prometheus)")
	}
	for _, args := range []string{"check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"} {
		if out, err := exec.CommandContext(t.Context(), promtool, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
	// The panels' questions can be parsed.
	var rules strings.Builder
	rules.WriteString("groups: [{name: panels, rules: [")
	for _, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(read(t, "dashboard.json"), -1) {
		rules.WriteString("{record: panel, expr: " + m[1] + "},\n")
	}
	rules.WriteString("]}]\n")
	path := t.TempDir() + "/panels.yml"
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(rules.String(), ",\n]", "\n]")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("panels: %v\n%s", err, out)
	}
}
