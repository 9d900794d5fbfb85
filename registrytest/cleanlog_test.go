package registrytest_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry"
)

// capture keeps the log lines above INFO of several nodes.
type capture struct {
	mu    *sync.Mutex // guards lines
	lines *[]string
	attrs string
}

func newCapture() capture { return capture{mu: new(sync.Mutex), lines: new([]string)} }

func (capture) Enabled(_ context.Context, level slog.Level) bool { return level > slog.LevelInfo }

func (c capture) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + c.attrs + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.lines = append(*c.lines, line)
	return nil
}

func (c capture) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		c.attrs += " " + a.String()
	}
	return c
}

func (c capture) WithGroup(string) slog.Handler { return c }

func (c capture) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), *c.lines...)
}

// freeAddrs are addresses that nobody listens on, below the ports that the system gives to
// sockets of other tests.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range 1000 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)))
		if err != nil {
			continue
		}
		defer ln.Close()
		if addrs = append(addrs, ln.Addr().String()); len(addrs) == n {
			return addrs
		}
	}
	t.Fatal("no free ports")
	return nil
}

// What happens at every start and at every stop is no error and no warning.
func TestCleanStartAndStopLogNothingAboveInfo(t *testing.T) {
	for name, form := range map[string]func(c *registry.Config, i int, binds []string){
		"together": func(c *registry.Config, _ int, binds []string) { c.BootstrapExpect, c.Registries = len(binds), binds },
		"one after the other": func(c *registry.Config, i int, binds []string) {
			if i > 0 {
				c.Registries = binds[:1]
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := newCapture()
			nodes := startAll(t, log, form)
			waitReady(t, nodes...)
			stopAll(t, nodes)
			if lines := log.all(); len(lines) > 0 {
				t.Errorf("logged:\n%s", strings.Join(lines, "\n"))
			}
		})
	}
}

func startAll(t *testing.T, log slog.Handler, form func(c *registry.Config, i int, binds []string)) []*registry.Node {
	t.Helper()
	binds := freeAddrs(t, 3)
	nodes := make([]*registry.Node, len(binds))
	errs := make([]error, len(binds))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := func(i int) {
		cfg := registry.DefaultConfig()
		cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir = fmt.Sprintf("n%d", i+1), binds[i], "127.0.0.1:0", t.TempDir()
		cfg.Logger = slog.New(log).With("node", cfg.ID)
		cfg.ElectionTimeout = 2 * time.Second // a node that stops slowly is not missed, which is a warning
		form(&cfg, i, binds)
		nodes[i], errs[i] = registry.Start(ctx, cfg)
	}
	start0 := func() { start(0) }
	var all sync.WaitGroup
	all.Go(start0)
	for i := 1; i < len(binds); i++ {
		all.Go(func() { start(i) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("start n%d: %v", i+1, err)
		}
	}
	return nodes
}

// stopAll stops one node after the other, as an operator does.
func stopAll(t *testing.T, nodes []*registry.Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", n.ID(), err)
		}
	}
}
