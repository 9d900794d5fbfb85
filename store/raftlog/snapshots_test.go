package raftlog

import (
	"errors"
	"log/slog"
	"testing"
)

func TestVerifyBase(t *testing.T) {
	damage := []error{errors.New("damage")}
	for _, tc := range []struct {
		name       string
		found      Found
		from, last uint64
		ok         bool
	}{
		{"new", Found{}, 1, 0, true},
		{"log goes on", Found{intact: 50}, 40, 60, true},
		{"log ends before", Found{intact: 50}, 20, 30, true},
		{"log begins after", Found{intact: 50}, 52, 60, false},
		{"newest damaged, log has all", Found{intact: 50, damaged: damage, covered: 70}, 40, 80, true},
		{"newest damaged, log lacks its end", Found{intact: 50, damaged: damage, covered: 70}, 40, 60, false},
		{"newest damaged, log begins after", Found{intact: 50, damaged: damage, covered: 70}, 60, 80, false},
		{"all damaged, log has all", Found{damaged: damage, covered: 70}, 1, 80, true},
		// The node installed the intact one, so its log is empty.
		{"older damaged, empty log", Found{intact: 50, damaged: damage, covered: 30}, 1, 0, true},
	} {
		if err := tc.found.VerifyBase(tc.from, tc.last, slog.New(slog.DiscardHandler)); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
