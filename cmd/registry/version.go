package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion returns the linked version, or what the Go tool recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func versionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "version",
		Category: categoryProgram,
		Usage:    "print the version of this binary",
		Flags:    []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			if c.Bool(flagJSON) {
				return writeJSON(e.stdout, map[string]string{
					"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(e.stdout, "registry %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
