// Package source finds the module under test and runs go there, so that its
// programs are built with the versions of its own go.mod.
package source

import (
	"context"
	"fmt"
	"os/exec"
	"path"
	"strings"
)

// Module is the import path of the module under test.
const Module = "github.com/werbenhu/registry"

// Dir is its folder. The working directory must be in the module of this package.
func Dir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", Module).Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of %s: %w", Module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Go is a go command that runs in Dir.
func Go(ctx context.Context, args ...string) (*exec.Cmd, error) {
	dir, err := Dir(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	return cmd, nil
}

// Build builds a program, named by its path in the module, with more flags of
// go build. A relative path to write to is seen from Dir.
func Build(ctx context.Context, to, program string, flags ...string) error {
	args := append([]string{"build", "-o", to}, flags...)
	cmd, err := Go(ctx, append(args, path.Join(Module, program))...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	return nil
}
