package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The queries for alerts.
const (
	firing = `ALERTS{alertstate="firing"}`
	fired  = `max_over_time(ALERTS{alertstate="firing"}[1h])` // now or before
)

// alerts asks which alerts there are, each with its instance.
func (s *prometheusServer) alerts(query string) (alerts []string, err error) {
	data, err := s.get("/api/v1/query?query=" + url.QueryEscape(query))
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
		alerts = append(alerts, strings.TrimSpace(r.Metric["alertname"]+" "+r.Metric["instance"]))
	}
	return alerts, err
}

// unlike says how alerts differ from those that a cause is to fire. One without an
// instance is wanted of one node or more, whichever it is.
func unlike(alerts, want []string) error {
	is := func(alert, wanted string) bool { return alert == wanted || strings.HasPrefix(alert, wanted+" ") }
	for _, w := range want {
		if !slices.ContainsFunc(alerts, func(a string) bool { return is(a, w) }) {
			return fmt.Errorf("%q, without %s", alerts, w)
		}
	}
	for _, a := range alerts {
		if !slices.ContainsFunc(want, func(w string) bool { return is(a, w) }) {
			return fmt.Errorf("%q, and %s is not expected", alerts, a)
		}
	}
	return nil
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
				err = fmt.Errorf("%s is %s: %s", addr, target.Health, target.LastError)
			}
		}
		return err
	})
}

// awaitRules waits until all rules were evaluated.
func (s *prometheusServer) awaitRules() {
	s.t.Helper()
	eventually(s.t, patience, "rules", func() error {
		data, err := s.get("/api/v1/rules")
		if err == nil && (!strings.Contains(string(data), `"health":"ok"`) || strings.Contains(string(data), `"health":"unknown"`)) {
			err = errors.New(string(data))
		}
		return err
	})
}

func monitoringFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, "examples", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const alertWait = 15 * time.Second // of the rules, in place of their minutes

// monitor has a Prometheus scrape a cluster of three, by the files of examples/monitoring
// with shorter times.
func monitor(c *cluster) *prometheusServer {
	t := c.t
	t.Helper()
	wait := "for: " + alertWait.String()
	rules := writeConfig(t, replaced(t, monitoringFile(t, "alerts.yml"), "for: 2m", wait, "for: 1m", wait))
	s := startPrometheus(t, writeConfig(t, replaced(t, monitoringFile(t, "prometheus.yml"), "interval: 15s", "interval: 1s", "- alerts.yml", "- "+rules,
		"127.0.0.1:9800", c.nodes[0].addr, "127.0.0.1:9801", c.nodes[1].addr, "127.0.0.1:9802", c.nodes[2].addr)))
	s.awaitHealth("scrapes", 3)
	s.awaitRules()
	return s
}

// alertCause is what an alert is for.
type alertCause struct {
	name, alert string
	prepare     func(c *cluster) // before the nodes start
	flags       []string         // of the nodes
	// begin brings it about. It returns the alerts that fire, and what ends it.
	begin func(c *cluster) (fires []string, end func())
	stays bool // the alert goes on for longer than a test
}

// TestMonitoring: each alert of examples/monitoring fires in a real Prometheus by its
// cause, with no other but those that the cause implies, and ends with it. A rolling
// restart fires none.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	needProgram(t, "prometheus")
	causes := []alertCause{
		{name: "a dead node", alert: "RegistryNodeDown", begin: killLeader},
		{name: "two dead nodes of three", alert: "RegistryNoLeader", begin: killFollowers},
		{name: "a disk that fills", alert: "RegistryDiskLow", prepare: useSmallDisk, flags: []string{"-min-free-disk=32MiB"}, begin: fillDisk},
		{name: "a replica that differs", alert: "RegistryReplicaDiffers", flags: []string{"-log-store=boltdb"}, begin: rewriteMember, stays: true},
		{name: "a replica damaged in memory", alert: "RegistryReplicaDiffers", begin: damageMemory, stays: true},
		{name: "silent members", alert: "RegistryMassLoss", begin: silenceMembers},
	}
	for _, rule := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(monitoringFile(t, "alerts.yml"), -1) {
		if !slices.ContainsFunc(causes, func(c alertCause) bool { return c.alert == rule[1] }) {
			t.Errorf("%s has no cause here", rule[1])
		}
	}
	for _, cause := range causes {
		t.Run(cause.name, func(t *testing.T) {
			t.Parallel()
			c := newNodes(t, 3)
			if cause.prepare != nil {
				cause.prepare(c)
			}
			c.form(cause.flags...)
			cause.test(c)
		})
	}
	t.Run("a rolling restart", func(t *testing.T) {
		t.Parallel()
		rollMonitored(startNodes(t, 3))
	})
}

func (cause *alertCause) test(c *cluster) {
	t, s := c.t, monitor(c)
	if before, err := s.alerts(fired); err != nil || len(before) > 0 {
		t.Fatalf("before: %q, %v", before, err)
	}
	want, end := cause.begin(c)
	if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(w, cause.alert) }) {
		t.Fatalf("%q, without %s", want, cause.alert)
	}
	took := eventually(t, alertWait+patience, "alerts", func() error {
		alerts, err := s.alerts(fired)
		return errors.Join(err, unlike(alerts, want))
	})
	end()
	if !cause.stays {
		ended := eventually(t, patience, "the end of all alerts", func() error {
			alerts, err := s.alerts(firing)
			return errors.Join(err, unlike(alerts, nil))
		})
		t.Logf("no alert %v after the end of the cause", ms(ended))
	}
	alerts, err := s.alerts(fired)
	if err := errors.Join(err, unlike(alerts, want)); err != nil {
		t.Error(err)
	}
	t.Logf("%q after %v", alerts, ms(took))
}

// rollMonitored restarts one node after the other.
func rollMonitored(c *cluster) {
	t, s := c.t, monitor(c)
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
	alerts, err := s.alerts(fired)
	switch {
	case err != nil:
		t.Fatal(err)
	case longest >= alertWait: // so busy that an alert may be right
		t.Logf("a restart took %v, so that alerts say nothing: %q", longest, alerts)
	case len(alerts) > 0:
		t.Errorf("a rolling restart, of at most %v for a node, fires %q", longest, alerts)
	}
	t.Logf("longest restart %v", ms(longest))
}
