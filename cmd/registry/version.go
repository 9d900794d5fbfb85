package main

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
)

// release is the version of this source: that of the newest release, or between releases
// the next one with -dev.
const release = "0.2.0-dev"

// version, if the linker sets it, stands in for release: -ldflags "-X main.version=v1.2.3".
var version string

func buildVersion() string { return cmp.Or(strings.TrimPrefix(version, "v"), release) }

type versionJSON struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`   // empty if the build does not know it
	Modified bool   `json:"modified"` // the source was not that of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// The newest feature level that it supports; it supports all earlier ones, too.
	FeatureLevel int `json:"feature_level"`
}

// pseudoVersion is what the Go tool calls a commit without a tag.
var pseudoVersion = regexp.MustCompile(`-(?:0\.)?[0-9]{14}-([0-9a-f]{12})(?:\+|$)`)

// versionOf adds what the Go tool recorded of the build.
func versionOf(info *debug.BuildInfo) versionJSON {
	out := versionJSON{Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, FeatureLevel: fsm.NewestLevel}
	if info == nil {
		return out
	}
	if m := pseudoVersion.FindStringSubmatch(info.Main.Version); m != nil {
		out.Commit = m[1]
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			out.Commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			out.Modified = s.Value == "true"
		}
	}
	return out
}

func (v versionJSON) String() string {
	commit := ""
	if v.Commit != "" {
		commit = "commit " + v.Commit
		if v.Modified {
			commit += " with changes"
		}
		commit += ", "
	}
	return fmt.Sprintf("registry %s (%s%s %s), feature levels 1 to %d", v.Version, commit, v.Go, v.Platform, v.FeatureLevel)
}

func versionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "version",
		Category: categoryProgram,
		Usage:    "print the version of this binary, and the feature levels that it supports",
		Flags:    []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			info, _ := debug.ReadBuildInfo() // nil without modules
			v := versionOf(info)
			if c.Bool(flagJSON) {
				return writeJSON(e.stdout, v)
			}
			_, err := fmt.Fprintln(e.stdout, v)
			return err
		},
	}
}
