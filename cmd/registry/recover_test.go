package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/werbenhu/registry/store/storetest"
)

// A recovery says what it would do, and does nothing without a yes; as JSON, too.
func TestRecoverAsks(t *testing.T) {
	c := storetest.New(t)
	c.Together(2)
	c.AwaitKnown()
	for _, n := range c.Nodes() {
		n.Stop()
	}
	dir := c.DirOf("n1")
	before, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	const effect = "node n1 would be a new cluster of one voter, and n2 given up for good, with what only it has acknowledged"
	recovering := func(args ...string) (got recoveryJSON, r result) {
		t.Helper()
		r = execute(t, t.Context(), "y\n", append([]string{"recover", "-data-dir", dir}, args...)...)
		if len(args) > 0 {
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
				t.Errorf("%v: %+v", err, r)
			}
		}
		return got, r
	}
	_, r := recovering()
	if r.code != exitCheck || !strings.Contains(r.stderr, effect) || !strings.Contains(r.stderr, "-yes") || !strings.Contains(r.stdout, "given up") {
		t.Errorf("%+v", r)
	}
	got, r := recovering("-json")
	if r.code != exitCheck || got.Recovered || got.Node != "n1" || len(got.Nodes) != 2 {
		t.Errorf("%+v, %+v", got, r)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "node.json")); err != nil || string(after) != string(before) {
		t.Errorf("%s, %v", after, err)
	}
	old := got.ClusterID
	if got, r = recovering("-json", "-yes"); r.code != exitOK || !got.Recovered || got.NewClusterID == "" || got.NewClusterID == old {
		t.Errorf("%+v, %+v", got, r)
	}
}
