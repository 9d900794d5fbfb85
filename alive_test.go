package registry_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/store"
)

func TestNodeIsAliveUntilItEndsOrLosesAPort(t *testing.T) {
	n := registrytest.Start(t, registrytest.WithNodes(1)).Nodes()[0]
	if err := n.Alive(); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Alive(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	n.ServeLost(ln)
	if err := n.Alive(); err == nil || !strings.HasPrefix(err.Error(), "-addr: accept") {
		t.Errorf("without a port: %v", err)
	}
}
