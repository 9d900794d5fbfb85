package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	child := os.Getenv(processEnv) != ""
	for _, v := range os.Environ() { // flags read the environment
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "REGISTRY_") {
			os.Unsetenv(name)
		}
	}
	if child {
		main()
	}
	// A proxy that refuses connections: what asks it, fails. Addresses of
	// loopback are exempt.
	os.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	os.Setenv("NO_PROXY", "none.example")
	completeWait = patience // names are asked of nodes that a busy machine may stall
	goleak.VerifyTestMain(m)
}

// result is what a run of the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

// exec runs a command line with text on stdin.
func execute(t *testing.T, ctx context.Context, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr lockedBuffer
	e := &env{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr}
	code := run(ctx, e, args)
	return result{code, stdout.String(), withoutPatience(stderr.String())}
}

// withoutPatience drops what a command says on a busy machine, and when it waits for long.
func withoutPatience(stderr string) string {
	return regexp.MustCompile(`(?m)^registry: no answer yet, .*\n`).ReplaceAllString(stderr, "")
}

// ok runs a command line that must succeed and returns its stdout.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := execute(t, t.Context(), "", args...)
	if r.code != exitOK {
		t.Fatalf("registry %s: exit code %d, stderr:\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout
}

// golden compares text with testdata/name, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update to accept):\n%s", path, diff)
	}
}
