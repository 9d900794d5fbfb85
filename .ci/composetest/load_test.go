package composetest

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// load matches keys all the time, as a gateway that knows all nodes does.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	client *sdk.Client

	// Written by the loop, read after wg.
	matches  int
	failures []error
	slowest  time.Duration
}

func (p *project) startLoad() *load {
	p.t.Helper()
	var addrs []string
	for _, node := range allNodes {
		addrs = append(addrs, p.addrs[node])
	}
	client, err := sdk.Dial(strings.Join(addrs, ","))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	l := &load{cancel: cancel, client: client}
	l.wg.Go(func() { l.run(ctx) })
	p.t.Cleanup(l.end)
	return l
}

func (l *load) run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		_, err := l.client.Match(ctx, group, "user-id-"+strconv.Itoa(l.matches))
		if ctx.Err() != nil {
			return
		}
		l.matches++
		l.slowest = max(l.slowest, time.Since(began))
		if err != nil {
			l.failures = append(l.failures, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (l *load) end() {
	l.cancel()
	l.wg.Wait()
	l.client.Close()
}

// stop ends the load. Not one match may have failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end()
	t.Logf("%d matches all the while, %d failed, the slowest took %v", l.matches, len(l.failures), l.slowest.Round(time.Millisecond))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d matches failed, the first with: %v", len(l.failures), l.matches, l.failures[0])
	}
}
