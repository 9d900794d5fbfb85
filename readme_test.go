package registry_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The SDK's lines in the README are those of the example that is compiled.
func TestReadmeShowsTheCompiledExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("sdk/example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	compiled := make(map[string]bool)
	for line := range strings.Lines(string(example)) {
		compiled[strings.TrimSpace(line)] = true
	}
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("README.md has no Go block")
	}
	for line := range strings.Lines(string(block[1])) {
		if !compiled[strings.TrimSpace(line)] {
			t.Errorf("not in sdk/example_test.go: %s", line)
		}
	}
	if !strings.Contains(string(readme), "\ngo test ./... ") {
		t.Error("README.md does not name the test command")
	}
}
