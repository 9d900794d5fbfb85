//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/werbenhu/registry/cmd/faults/cluster"
)

// Env is what all runs share.
type Env struct {
	// Binary is the registry that is tested.
	Binary string
	// Isolation says why there are no network namespaces; nil: there are.
	Isolation error

	mu  sync.Mutex // held while something more is built
	dir string     // of what was built
}

// newEnv builds the registry, unless a binary is given.
func newEnv(ctx context.Context, binary string) (_ *Env, err error) {
	e := &Env{Isolation: cluster.Isolation()}
	if e.dir, err = os.MkdirTemp("", "registry-faults-bin-"); err != nil {
		return nil, err
	}
	if binary == "" {
		e.Binary = filepath.Join(e.dir, "registry")
		err = e.build(ctx, e.Binary)
	} else {
		e.Binary, err = filepath.Abs(binary)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *Env) close() error { return os.RemoveAll(e.dir) }

// build builds the registry with more flags of go build.
func (e *Env) build(ctx context.Context, to string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", to}, flags...), "github.com/werbenhu/registry/cmd/registry")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the registry: %w\n%s", err, out)
	}
	return nil
}

// needsLinks is for kinds with faults of the network.
func needsLinks(e *Env) error {
	if e.Isolation != nil {
		return fmt.Errorf("no network namespaces: %w", e.Isolation)
	}
	return nil
}
