//go:build linux

package main

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/source"
)

// TestMutants: every edit is of code that is there once, and what it makes of
// the package is still Go. Every mutant is found by something that exists.
func TestMutants(t *testing.T) {
	root, err := source.Dir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var packages map[string]listedPackage
	if !testing.Short() { // it compiles what the packages import
		packages = listed(t)
	}
	seen := make(map[string]bool)
	for _, m := range mutants {
		t.Run(m.Name, func(t *testing.T) {
			if seen[m.Name] || m.Off == "" || (len(m.Edits) == 0) == (m.Forgets == "") {
				t.Errorf("mutant %+v", m)
			}
			seen[m.Name] = true
			if len(m.Kinds) == 0 && (len(m.Tests) == 0 || m.Note == "") {
				t.Error("no kind finds it: it needs a test that does, and a note of what was tried")
			}
			if len(m.Kinds) > 0 && m.Runs < 1 {
				t.Error("without a run no kind finds it")
			}
			for _, k := range m.Kinds {
				if _, err := choose(k); err != nil {
					t.Error(err)
				}
			}
			for _, test := range m.Tests {
				if !testExists(t, filepath.Join(root, test.Package), test.Name) {
					t.Errorf("there is no %v", test)
				}
			}
			edited, err := m.sources(root)
			if err != nil {
				t.Fatal(err)
			}
			if !testing.Short() {
				typeCheck(t, root, edited, packages)
			}
		})
	}
}

func testExists(t *testing.T, dir, name string) bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("func "+name+"(t *testing.T)")) {
			return true
		}
	}
	return false
}

// listed are the mutants' packages, and all that they import.
type listedPackage struct {
	export string   // the file in which the compiler left what it exports
	files  []string // of a package of this module
}

func listed(t *testing.T) map[string]listedPackage {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-f", `{{.ImportPath}} {{.Export}} {{if .Module}}{{join .GoFiles " "}}{{end}}`}
	for _, m := range mutants {
		for _, e := range m.Edits {
			if pkg := source.Module + "/" + filepath.Dir(e.File); !slices.Contains(args, pkg) {
				args = append(args, pkg)
			}
		}
	}
	cmd, err := source.Go(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := make(map[string]listedPackage)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 {
			packages[f[0]] = listedPackage{f[1], f[2:]}
		}
	}
	return packages
}

// typeCheck checks the packages of the edited files.
func typeCheck(t *testing.T, root string, edited map[string][]byte, packages map[string]listedPackage) {
	t.Helper()
	dirs := make(map[string]bool)
	for name := range edited {
		dirs[filepath.Dir(name)] = true
	}
	for dir := range dirs {
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range packages[source.Module+"/"+dir].files {
			path := filepath.Join(dir, name)
			var text any
			if data, ok := edited[path]; ok {
				text = data
			}
			f, err := parser.ParseFile(fset, filepath.Join(root, path), text, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(packages[path].export) })}
		if _, err := conf.Check(source.Module+"/"+dir, fset, files, nil); err != nil {
			t.Errorf("the mutant does not compile: %v", err)
		}
	}
}

// TestStaleMutant: code that is gone, or there twice, is an error.
func TestStaleMutant(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.go"), []byte("one two two"), 0o600); err != nil {
		t.Fatal(err)
	}
	for old, ok := range map[string]bool{"one": true, "two": false, "three": false} {
		m := Mutant{Name: "m", Edits: []Edit{{"a.go", old, "four"}}}
		if overlay, err := m.overlay(root, t.TempDir()); (err == nil) != ok {
			t.Errorf("%s: %s, %v", old, overlay, err)
		}
	}
}

func TestFailure(t *testing.T) {
	for out, want := range map[string]string{
		"--- FAIL: TestX (0.01s)\n    x_test.go:7: lost a member\nFAIL\n":                        "lost a member",
		"--- FAIL: TestX (0.01s)\n    x_test.go:7: repeat with -seed=7\n    x_test.go:9: lost\n": "lost",
		"panic: test timed out after 3m0s\n\ngoroutine 1":                                        "panic: test timed out after 3m0s",
		"# store\nstore/x.go:7:2: undefined: y\nFAIL store [build failed]\n":                     "",
		"ok  \tstore\t0.1s\n": "",
	} {
		if got := failure(out); got != want {
			t.Errorf("%q: %q", out, got)
		}
	}
}

// TestReportMutants: one that was not found is no success, one that was is not
// hidden by it.
func TestReportMutants(t *testing.T) {
	found := &mutantRow{Mutant: "a", Kind: "k", Runs: 2, Said: "x: lost", Took: time.Second}
	var out strings.Builder
	if err := (&harness{}).reportMutants(&out, []*mutantRow{found}); err != nil || !strings.Contains(out.String(), "x: lost") {
		t.Errorf("found: %v\n%s", err, &out)
	}
	missing := &mutantRow{Mutant: "b", Runs: 3, Missing: []string{"kinds k: no violation in 3 runs"}}
	out.Reset()
	if err := (&harness{}).reportMutants(&out, []*mutantRow{found, missing}); err == nil || !strings.Contains(out.String(), "NOT FOUND") {
		t.Errorf("not found: %v\n%s", err, &out)
	}
	m := Mutant{Says: mutants[1].Says}
	if m.found(check.Violation{Checker: "settle", Text: "busy"}) || !(Mutant{}).found(check.Violation{}) {
		t.Error("what a violation must say is not looked at")
	}
}
