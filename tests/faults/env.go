//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/source"
)

// program is the one under test.
const program = "cmd/registry"

// Env is what all runs share.
type Env struct {
	// Binary is the registry that is tested.
	Binary string
	// Plain: clusters have no secret, no TLS and no tokens.
	Plain bool
	// Isolation says why there are no network namespaces; nil: there are.
	Isolation error
	// Forgets are files whose sync does nothing, as of disk.New.
	Forgets string

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
		err = source.Build(ctx, e.Binary, program)
	} else {
		e.Binary, err = filepath.Abs(binary)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *Env) close() error { return os.RemoveAll(e.dir) }

// needsLinks is for kinds with faults of the network.
func needsLinks(e *Env) error {
	if e.Isolation != nil {
		return fmt.Errorf("no network namespaces: %w", e.Isolation)
	}
	return nil
}
