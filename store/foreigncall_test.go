package store_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// Calls from other clusters are logged once, whatever their cluster ids.
func TestForeignCallsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logged := new(logbuffer.Buffer)
		c := storetest.New(t, func(cfg *store.Config) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
		c.Three()
		n := c.Node("n1")
		for i := range 1000 {
			n.ForeignCall(fmt.Sprintf("cluster-%d", i))
		}
		if n := strings.Count(logged.String(), "another cluster refused"); n != 1 {
			t.Errorf("1000 calls are logged %d times", n)
		}
	})
}
