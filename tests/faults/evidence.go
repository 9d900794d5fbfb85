//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/faults/load"
)

// keepEvidence writes the history, drawings of groups without an order, and
// copies of the logs.
func (h *harness) keepEvidence(s *session, res *Result, history *load.History, drawings map[string]check.Drawing) (dir string, err error) {
	h.mu.Lock()
	if h.evidence == "" {
		h.evidence, err = os.MkdirTemp("", "registry-faults-evidence-")
	}
	h.mu.Unlock()
	dir = filepath.Join(h.evidence, fmt.Sprintf("%s-%d", res.Kind, res.Seed))
	if err := errors.Join(err, os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	errs := []error{writeJSON(filepath.Join(dir, "history.json"), history), writeJSON(filepath.Join(dir, "result.json"), res)}
	for group, draw := range drawings {
		f, err := os.Create(filepath.Join(dir, group+".html"))
		if err == nil {
			err = errors.Join(draw(f), f.Close())
		}
		errs = append(errs, err)
	}
	logs, err := s.cluster.Logs()
	errs = append(errs, err)
	for _, path := range logs {
		data, err := os.ReadFile(path)
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o644))
	}
	return dir, errors.Join(errs...)
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

const (
	shownViolations = 12
	shownLines      = 15
)

// complain prints violations, what was done, how to repeat it, and the logs' ends.
func (h *harness) complain(s *session, res *Result, history *load.History) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s seed %d: %d VIOLATIONS\n", res.Kind, res.Seed, len(res.Violations))
	for i, v := range res.Violations {
		if i == shownViolations {
			fmt.Fprintf(&b, "  … and %d more\n", len(res.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "  %v\n", v)
	}
	for _, m := range history.Marks {
		fmt.Fprintf(&b, "  at %v: %s\n", m.At.Round(time.Millisecond), m.Text)
	}
	fmt.Fprintf(&b, "  repeat: go -C tests run ./faults -kinds %s -runs 1 -seed %d\n  evidence: %s\n", res.Kind, res.Seed, res.Evidence)
	logs, _ := s.cluster.Logs() // the evidence has said so
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "  end of %s:\n", filepath.Base(path))
		for _, line := range lines[max(0, len(lines)-shownLines):] {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	h.say("%s", b.String())
}
