package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

// Every load runs on both systems.
func TestCompareRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("etcd takes a minute to build")
	}
	etcd, err := systems.BuildEtcd(t.Context(), t.TempDir())
	if err != nil {
		t.Skipf("etcd cannot be built: %v", err)
	}
	var out strings.Builder
	c := config{rounds: 1, duration: 300 * time.Millisecond, only: regexp.MustCompile(""), etcd: etcd}
	if err := run(t.Context(), &out, c); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	for _, l := range loads {
		if !strings.Contains(out.String(), "| "+l.name+" | ") {
			t.Errorf("no row of %q", l.name)
		}
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	all, none := regexp.MustCompile(""), regexp.MustCompile("no such load")
	for _, c := range []config{{0, time.Second, all, "", ""}, {1, 0, all, "", ""}, {1, time.Hour, all, "", ""}, {1, time.Second, none, "", ""}} {
		if err := c.validate(); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
