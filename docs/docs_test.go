package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/werbenhu/registry/docs"
)

// root is the root of the module.
const root = ".."

func documents(t *testing.T) []string {
	t.Helper()
	files, err := docs.Files(root)
	if err != nil || len(files) < 10 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	return files
}

// read reads a file by its path from the root.
func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A newcomer reads it to the end.
func TestReadmeIsShort(t *testing.T) {
	const limit = 200
	readme := read(t, "README.md")
	if n := strings.Count(readme, "\n"); n > limit {
		t.Errorf("README.md has %d lines, want at most %d", n, limit)
	}
	if !strings.Contains(readme, "\ngo test -p 4 ./...\n") {
		t.Error("README.md does not name the test command")
	}
}

// The lines of Go are those of examples that are compiled.
func TestDocumentedGoIsCompiled(t *testing.T) {
	compiled := make(map[string]bool)
	for _, path := range []string{"sdk/example_test.go", "sdk/grpcring/example_test.go", "sdk/routing/example_test.go", "registrytest/example_test.go"} {
		for line := range strings.Lines(read(t, path)) {
			compiled[strings.TrimSpace(line)] = true
		}
	}
	found := 0
	for _, file := range documents(t) {
		blocks, err := docs.Blocks(root, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Lang != "go" {
				continue
			}
			found++
			for line := range strings.Lines(b.Text) {
				if !compiled[strings.TrimSpace(line)] {
					t.Errorf("%v: in no example: %s", b, line)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("%d blocks of Go", found)
	}
}

var (
	link    = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]+)\)`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are those that GitHub makes of a document's headings.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all[strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

// Links within the repository lead to a file, a heading, or a test that is there.
func TestDocumentedLinksLead(t *testing.T) {
	tests := 0
	for _, file := range documents(t) {
		text := fenced.ReplaceAllString(read(t, file), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			name, target := strings.Trim(m[1], "`"), m[2]
			if strings.Contains(target, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			if path = filepath.Join(filepath.Dir(file), path); strings.HasPrefix(target, "#") {
				path = file
			}
			info, err := os.Stat(filepath.Join(root, path))
			if err != nil {
				t.Errorf("%s: %s: %v", file, m[0], err)
				continue
			}
			if anchor != "" && !anchors(read(t, path))[anchor] {
				t.Errorf("%s: %s has no heading #%s", file, path, anchor)
			}
			if strings.HasPrefix(name, "Test") && !info.IsDir() {
				tests++
				if !strings.Contains(read(t, path), "\nfunc "+name+"(t *testing.T)") {
					t.Errorf("%s: %s has no %s", file, path, name)
				}
			}
		}
	}
	if tests < 30 {
		t.Errorf("%d tests are named", tests)
	}
}

// Operators have a page a task, and find each in the index.
func TestOperationsHaveAPageATask(t *testing.T) {
	index := read(t, "docs/operations/README.md")
	pages, err := filepath.Glob(filepath.Join(root, "docs/operations/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"start", "secure", "backup", "restore", "recover", "replace", "resize", "upgrade", "monitor", "size", "troubleshoot"}
	for _, page := range pages {
		names = append(names, strings.TrimSuffix(filepath.Base(page), ".md"))
	}
	for _, name := range names {
		if name != "README" && !strings.Contains(index, "| ["+name+"]("+name+".md) |") {
			t.Errorf("docs/operations/README.md has no row of %s.md", name)
		}
	}
}

// Every promise names a test that shows it.
func TestEveryPromiseNamesATest(t *testing.T) {
	table, _, _ := strings.Cut(read(t, "docs/guarantees.md"), "## What is not promised")
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| promise ") {
			continue
		}
		if rows++; !strings.Contains(line, "[`Test") {
			t.Errorf("no test shows: %s", line)
		}
	}
	if rows < 15 {
		t.Errorf("%d promises", rows)
	}
}

// Each case of another registry is named at a test that its row links.
func TestEveryCaseIsNamedAtItsTest(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "docs/security.md"), "## Mistakes of others")
	id := regexp.MustCompile(`CVE-\d{4}-\d+|GHSA(-[a-z0-9]{4}){3}|#\d{4,}`)
	cases := make(map[string]bool)
	for line := range strings.Lines(table) {
		var comments strings.Builder
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			comment := regexp.MustCompile(`((?:// .*\n)+)func ` + strings.Trim(m[1], "`") + `\(`)
			if c := comment.FindStringSubmatch(read(t, filepath.Join("docs", m[2]))); c != nil {
				comments.WriteString(c[1])
			}
		}
		for _, name := range id.FindAllString(line, -1) {
			if cases[name] = true; !strings.Contains(comments.String(), name) {
				t.Errorf("%s is named at no test of its row", name)
			}
		}
	}
	if len(cases) < 25 {
		t.Errorf("%d cases", len(cases))
	}
}

// ARCHITECTURE.md leads to files, declarations, packages and tests that exist. It
// writes a declaration as path/file.go:name or path/file.go:name,name.
func TestArchitectureNamesWhatExists(t *testing.T) {
	text := fenced.ReplaceAllString(read(t, "ARCHITECTURE.md"), "")
	files, names := 0, 0
	for _, m := range regexp.MustCompile("`([\\w/]+\\.go)(?::([\\w,]+))?`").FindAllStringSubmatch(text, -1) {
		source, err := os.ReadFile(filepath.Join(root, m[1]))
		if err != nil {
			t.Errorf("%s: %v", m[0], err)
			continue
		}
		files++
		for name := range strings.FieldsFuncSeq(m[2], func(r rune) bool { return r == ',' }) {
			// A function, method, type, constant or variable; the last two may be in a group.
			declared := regexp.MustCompile(`(?m)^((func (\([^)]*\) )?|type |const |var )` + name + `\b|\t` + name + ` +=)`)
			if names++; !declared.Match(source) {
				t.Errorf("%s: %s does not declare %s", m[0], m[1], name)
			}
		}
	}
	packages := 0
	for _, m := range regexp.MustCompile("`((?:cmd|docs|examples|fsm|registrytest|ring|rpc|sdk|store|tests)(?:/[a-z]+)*)`").FindAllStringSubmatch(text, -1) {
		packages++
		if info, err := os.Stat(filepath.Join(root, m[1])); err != nil || !info.IsDir() {
			t.Errorf("no package %s", m[1])
		}
	}
	tests := testFunctions(t)
	for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
		if !tests[name[1]] {
			t.Errorf("no test %s", name[1])
		}
	}
	if files < 80 || names < 80 || packages < 20 {
		t.Errorf("%d files, %d names and %d packages were found", files, names, packages)
	}
}

// testFunctions are the names of the tests of all modules.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	tests, function := make(map[string]bool), regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range function.FindAllSubmatch(source, -1) {
				tests[string(m[1])] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
