package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// logBuffer keeps what is logged.
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

// Callers of other clusters are told of once, whatever they call themselves.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	logged := &logBuffer{}
	c := storetest.New(t, func(cfg *store.Config) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
	c.Three()
	n := c.Node("n1")
	for i := range 1000 {
		n.CalledFromOutside(fmt.Sprintf("stranger-%d", i))
	}
	if said := logged.count("another cluster refused"); said != 1 {
		t.Errorf("1000 calls are logged %d times", said)
	}
}
