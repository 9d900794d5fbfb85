package main

import (
	"strings"
	"testing"
	"time"
)

// The program runs, with etcd where it can be built.
func TestBenchmarkRuns(t *testing.T) {
	c := config{changes: 6, rate: 100, block: 3}
	if testing.Short() {
		c.etcd = "not built in short runs"
	}
	if err := c.parse("5,20"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(t.Context(), &out, c); err != nil {
		t.Fatal(err)
	}
	sides := 2
	if strings.Contains(out.String(), "without etcd") {
		t.Log(out.String())
		sides = 1
	}
	rows := strings.Count(out.String(), "registry ") + strings.Count(out.String(), "etcd 5") + strings.Count(out.String(), "etcd 20")
	if rows != 2*sides {
		t.Error(out.String())
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, sizes := range []string{"", "0", "10,x", "1000000"} {
		if err := (&config{changes: 1, block: 1, rate: 1}).parse(sizes); err == nil {
			t.Errorf("sizes %q are taken", sizes)
		}
	}
	if err := (&config{changes: 1, block: 1, rate: -1}).parse("1"); err == nil {
		t.Error("a negative rate is taken")
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := range 101 {
		all = append(all, time.Duration(100-i))
	}
	if at(all, 0) != 0 || at(all, 0.5) != 50 || at(all, 0.99) != 99 || mean(all) != 50 {
		t.Error(at(all, 0), at(all, 0.5), at(all, 0.99), mean(all))
	}
}
