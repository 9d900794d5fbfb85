package main

import (
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	if out := ok(t, "version"); !strings.HasPrefix(out, "registry "+release+" (") || !strings.Contains(out, "go1.") || !strings.HasSuffix(out, "), feature levels 1 to 2\n") {
		t.Error(out)
	}
	if out := ok(t, "version", "-json"); !strings.Contains(out, `"version": "`+release+`",`) || !strings.Contains(out, `"feature_level": 2`) || !strings.Contains(out, `"commit": "`) {
		t.Error(out)
	}
}

// TestReleaseIsInTheChangelog: the newest heading with a number is the release, unless
// this is a later version that is not released.
func TestReleaseIsInTheChangelog(t *testing.T) {
	text, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^## ([0-9.]+) - [0-9]{4}-[0-9]{2}-[0-9]{2}$`).FindSubmatch(text)
	next, unreleased := strings.CutSuffix(release, "-dev")
	if m == nil || (string(m[1]) == next) == unreleased {
		t.Errorf("the changelog's newest release is %q, the program's %s", m, release)
	}
}

// TestVersionNamesTheCommit: a checkout and an installed module tell it in
// different ways.
func TestVersionNamesTheCommit(t *testing.T) {
	vcs := func(settings ...debug.BuildSetting) *debug.BuildInfo { return &debug.BuildInfo{Settings: settings} }
	module := func(version string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for name, tt := range map[string]struct {
		info *debug.BuildInfo
		says string
	}{
		"no build info":      {nil, "registry " + release + " (go"},
		"no version control": {vcs(), "registry " + release + " (go"},
		"a checkout":         {vcs(revision), "(commit 0123456789ab, go"},
		"a changed one":      {vcs(revision, debug.BuildSetting{Key: "vcs.modified", Value: "true"}), "(commit 0123456789ab with changes, go"},
		"a release":          {module("v0.1.0"), "registry " + release + " (go"},
		"a commit":           {module("v0.0.0-20261128101112-0123456789ab"), "(commit 0123456789ab, go"},
		"one after a tag":    {module("v0.1.1-0.20261128101112-0123456789ab+dirty"), "(commit 0123456789ab, go"},
	} {
		if got := versionOf(tt.info).String(); !strings.Contains(got, tt.says) {
			t.Errorf("%s: %q has no %q", name, got, tt.says)
		}
	}
}
