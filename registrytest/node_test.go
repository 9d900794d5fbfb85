package registrytest_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/store/storetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := runChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	storetest.Overlap()
	goleak.VerifyTestMain(m)
}

func testLogger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("test", t.Name())
}

// startNode starts a node on loopback and closes it with the test.
func startNode(t testing.TB, id string, change func(*registry.Config)) *registry.Node {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir = id, "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	cfg.ElectionTimeout = 2 * time.Second // a machine that stalls changes no leader
	cfg.Logger = testLogger(t).With("node", id)
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := registry.Start(ctx, cfg)
	if err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", id, err)
		}
	})
	return n
}

func waitReady(t testing.TB, nodes ...*registry.Node) {
	t.Helper()
	for _, n := range nodes {
		select {
		case <-n.Ready():
		case <-time.After(20 * time.Second):
			t.Fatalf("%s is not ready", n.ID())
		}
	}
}

func TestThreeNodesJoinOneAfterTheOther(t *testing.T) {
	t.Parallel()
	first := startNode(t, "n1", nil)
	join := func(c *registry.Config) { c.Registries = []string{first.BindAddr()} }
	nodes := []*registry.Node{first}
	for i := 2; i <= 3; i++ {
		nodes = append(nodes, startNode(t, fmt.Sprintf("n%d", i), join))
	}
	waitReady(t, nodes...)
}
