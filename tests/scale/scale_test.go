package main

import (
	"strings"
	"testing"

	"github.com/werbenhu/registry/tests/systems"
)

func TestMeasure(t *testing.T) {
	program, err := systems.BuildRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	row, err := measure(t.Context(), program, t.TempDir(), size{members: 2_000, groups: 10})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(row, "\t"); len(got) != 11 || got[0] != "2000" || got[4] == "0.0 MB" {
		t.Errorf("%q", row)
	}
}
