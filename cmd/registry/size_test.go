package main

import "testing"

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "1": 1, "17B": 17, "4KiB": 4096, "128MiB": 128 << 20, "2 GiB": 2 << 30, "1TiB": 1 << 40,
	} {
		if got, err := parseSize("min-free-disk", text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "1MB", "5 bananas", "99999999TiB"} {
		if _, err := parseSize("min-free-disk", text); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
	for n, want := range map[uint64]string{0: "0", 5: "5", 4096: "4KiB", 128 << 20: "128MiB", 3 << 40: "3TiB", 1<<20 + 1: "1048577"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
