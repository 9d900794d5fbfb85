package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// logBuffer collects log output.
type logBuffer struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *logBuffer) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.all.String(), what)
}

// Calls from other clusters are logged once, whatever their cluster ids.
func TestForeignCallsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logged := &logBuffer{}
		c := storetest.New(t, func(cfg *store.Config) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
		c.Three()
		n := c.Node("n1")
		for i := range 1000 {
			n.ForeignCall(fmt.Sprintf("cluster-%d", i))
		}
		if n := logged.count("another cluster refused"); n != 1 {
			t.Errorf("1000 calls are logged %d times", n)
		}
	})
}
