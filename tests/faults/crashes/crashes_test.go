// Package crashes checks with porcupine what the callers of the store's crash tests saw.
// Those tests need parts of package store that are not exported, and the module under test
// does not depend on porcupine; so they write their histories down for this test.
package crashes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/faults/check"
	"github.com/werbenhu/registry/tests/source"
)

func TestCrashHistories(t *testing.T) {
	dir := t.TempDir()
	least := 20 // histories
	if testing.Short() {
		least = 5
	}
	cmd, err := source.Go(t.Context(), "test", "-count=1", "-timeout=5m", "-run", "^(TestCrashPoints|TestRandomCrashes)$", "./store", "-crash-histories="+dir, fmt.Sprintf("-short=%t", testing.Short()))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(paths) < least {
		t.Fatalf("%d histories, %v", len(paths), err)
	}
	operations := 0
	for _, path := range paths {
		history := read(t, path)
		operations += len(history)
		violations, _ := check.Linearizable(history, time.Minute)
		for _, v := range violations {
			t.Errorf("%s: %v", filepath.Base(path), v)
		}
	}
	t.Logf("%d histories with %d operations", len(paths), operations)
}

func read(t *testing.T, path string) (history []check.Op) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for d := json.NewDecoder(f); ; {
		var op check.Op
		err := d.Decode(&op)
		if errors.Is(err, io.EOF) {
			return history
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		history = append(history, op)
	}
}
