package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// fired asks which alerts fired, now or before, with their instances.
func (s *prometheusServer) fired() (alerts []string, err error) {
	data, err := s.get("/api/v1/query?query=" + url.QueryEscape(`max_over_time(ALERTS{alertstate="firing"}[1h])`))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	err = json.Unmarshal(data, &answer)
	for _, r := range answer.Data.Result {
		alerts = append(alerts, r.Metric["alertname"]+" "+r.Metric["instance"])
	}
	return alerts, err
}

// awaitHealth waits until the nodes are up, but for those that are down.
func (s *prometheusServer) awaitHealth(what string, nodes int, down ...string) {
	s.t.Helper()
	eventually(s.t, patience, what, func() error {
		all, err := s.targets("registry")
		if err == nil && len(all) != nodes {
			err = fmt.Errorf("%d targets", len(all))
		}
		for addr, target := range all {
			if want := map[bool]string{false: "up", true: "down"}[slices.Contains(down, addr)]; err == nil && target.Health != want {
				err = fmt.Errorf("%s is %s", addr, target.Health)
			}
		}
		return err
	})
}

// TestMonitoring: the alerts of examples/monitoring in a real Prometheus that scrapes a
// cluster: a rolling restart fires none, and a dead node one.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	needProgram(t, "prometheus")
	c := startNodes(t, 3)
	text := func(name string) string {
		data, err := os.ReadFile(filepath.Join(repository, "examples", "monitoring", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	const waits = 15 * time.Second // of the alerts, in place of their minutes
	rules := writeConfig(t, replaced(t, text("alerts.yml"), "for: 2m", "for: 15s", "for: 1m", "for: 15s"))
	s := startPrometheus(t, writeConfig(t, replaced(t, text("prometheus.yml"), "interval: 15s", "interval: 500ms", "- alerts.yml", "- "+rules,
		"127.0.0.1:9800", c.nodes[0].addr, "127.0.0.1:9801", c.nodes[1].addr, "127.0.0.1:9802", c.nodes[2].addr)))
	s.awaitHealth("scrapes", 3)
	longest := time.Duration(0)
	for _, n := range c.nodes {
		began := time.Now()
		n.stop()
		s.awaitHealth("a node is away", 3, n.addr)
		n.start()
		c.settled(3)
		s.awaitHealth("it is back", 3)
		longest = max(longest, time.Since(began))
	}
	alerts, err := s.fired()
	switch {
	case err != nil:
		t.Fatal(err)
	case longest >= waits: // so busy that an alert may be right
		t.Logf("a restart took %v, so that alerts say nothing: %q", longest, alerts)
	case len(alerts) > 0:
		t.Errorf("a rolling restart, of at most %v for a node, fires %q", longest, alerts)
	}
	leader, _ := c.leader()
	leader.kill()
	want := "RegistryNodeDown " + leader.addr
	took := eventually(t, waits+patience, want, func() error {
		alerts, err := s.fired()
		if err == nil && !slices.Contains(alerts, want) {
			err = fmt.Errorf("%q", alerts)
		}
		return err
	})
	t.Logf("longest restart %v, alert after %v", ms(longest), ms(took))
}
