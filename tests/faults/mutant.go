//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/werbenhu/registry/tests/source"
)

// Mutant is the registry with one protection switched off. A harness that does
// not find it would not find the same mistake in the sources either.
type Mutant struct {
	Name string
	// Off says which protection is switched off.
	Off   string
	Edits []Edit
	// Forgets are files whose sync is left out, by the disk, as of disk.New: it may
	// be in a package that no overlay reaches.
	Forgets string
	// Kinds of faults that find it, tried in this order; none: no kind does.
	Kinds []string
	// Runs is how many runs of each kind it may take.
	Runs int
	// Says is what a violation must say to count; nil: anything counts.
	Says *regexp.Regexp
	// Tests that fail with it.
	Tests []Test
	// Note tells what else was tried, and of a mutant that no kind finds, why.
	Note string
}

// Edit changes one place of a source file.
type Edit struct {
	File string // from the folder of the module under test
	Old  string // occurs once
	New  string
}

// Test is a test of a package.
type Test struct{ Package, Name string }

func (t Test) String() string { return t.Package + " " + t.Name }

// sources are the edited files, by their path from the module's folder.
func (m Mutant) sources(root string) (map[string][]byte, error) {
	edited := make(map[string][]byte)
	for _, e := range m.Edits {
		text, ok := edited[e.File]
		if !ok {
			var err error
			if text, err = os.ReadFile(filepath.Join(root, e.File)); err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.Name, err)
			}
		}
		if n := bytes.Count(text, []byte(e.Old)); n != 1 {
			return nil, fmt.Errorf("mutant %s: %s has this %d times, want once: %q", m.Name, e.File, n, e.Old)
		}
		edited[e.File] = bytes.Replace(text, []byte(e.Old), []byte(e.New), 1)
	}
	return edited, nil
}

// overlay writes the edited files and what go's -overlay reads to dir. The
// sources themselves are not touched.
func (m Mutant) overlay(root, dir string) (string, error) {
	edited, err := m.sources(root)
	if err != nil {
		return "", err
	}
	files := make(map[string][]byte)
	for name, data := range edited {
		files[filepath.Join(root, name)] = data
	}
	return writeOverlay(dir, files)
}

func chooseMutants(names string) ([]Mutant, error) {
	if names == "all" {
		return mutants, nil
	}
	var chosen []Mutant
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(mutants, func(m Mutant) bool { return m.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no mutant %q; -list -mutant all lists them", name)
		}
		chosen = append(chosen, mutants[i])
	}
	return chosen, nil
}

var errNoFailure = errors.New("the tests pass")

// failingTest runs the tests with the mutant and returns the first that fails.
func (m Mutant) failingTest(ctx context.Context, overlay string) (name, said string, err error) {
	for _, t := range m.Tests {
		cmd, err := source.Go(ctx, "test", "-overlay", overlay, "-count=1", "-timeout=1m", "-run", "^"+t.Name+"$", path.Join(source.Module, t.Package))
		if err != nil {
			return "", "", err
		}
		cmd.Env = append(os.Environ(), "REGISTRY_LONG_TESTS=1")
		out, err := cmd.CombinedOutput()
		if err == nil {
			continue
		}
		if line := failure(string(out)); line != "" {
			return t.String(), line, nil
		}
		return "", "", fmt.Errorf("%v: %w\n%s", t, err, out)
	}
	return "", "", errNoFailure
}

var (
	failed    = regexp.MustCompile(`(?m)^\s*--- FAIL: |^panic: `)
	complaint = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.+)$|^(panic: .+)$`)
)

// failure is what the first test says that fails; empty: it was something else.
func failure(out string) string {
	if !failed.MatchString(out) {
		return ""
	}
	for _, found := range complaint.FindAllStringSubmatch(out, -1) {
		if said := found[1] + found[2]; !strings.HasPrefix(said, "repeat with ") { // a randomised test's seed
			return said
		}
	}
	return "it fails"
}
