package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// benchCleanup bounds the time that deleting a run's groups takes.
const benchCleanup = 15 * time.Second

// benchGroups are the groups of a run, which no other run has.
type benchGroups struct {
	run   string
	count int
}

func newBenchGroups(c *cli.Context) benchGroups {
	run := time.Now().UTC().Format("150405.000")
	return benchGroups{run: strings.ToLower(run), count: max(1, c.Int("groups"))}
}

// group is that of the n-th member or call.
func (g benchGroups) group(n int) string { return fmt.Sprintf("bench-%s-%d", g.run, n%g.count) }

// clean deletes the groups twice: a registration that was broken off may still be
// on its way the first time, and a node may have failed.
func (g benchGroups) clean(ctx context.Context, clients []registrypb.RegistryClient) error {
	_ = g.delete(ctx, clients) // the second says what is left
	return g.delete(ctx, clients)
}

// delete deletes the groups with their members, 16 at a time, and returns the
// first error. Those that never came to be are not missed.
func (g benchGroups) delete(ctx context.Context, clients []registrypb.RegistryClient) error {
	var next atomic.Int64
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < g.count; n = int(next.Add(1)) - 1 {
				req := &registrypb.DeleteGroupRequest{Group: g.group(n), Force: true, NoFences: true}
				_, err := clients[w%len(clients)].DeleteGroup(ctx, req)
				if err != nil && !errors.Is(err, sdk.ErrUnknownGroup) {
					once.Do(func() { first = fmt.Errorf("group %s: %w", req.Group, err) })
				}
			}
		})
	}
	wg.Wait()
	return first
}
