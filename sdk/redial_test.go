package sdk

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A name that led to a node of another cluster for a while is resolved again: the
// connection there is healthy, and would stay.
func TestNameThatLedToAnotherCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		foreign, own := newFakeCluster(t, 1), newFakeCluster(t, 1)
		foreign.id = "cluster-9"
		var to atomic.Value
		to.Store(foreign.nodes[0].addr)
		c := own.client("registry:9800", WithCluster("fake/cluster-1"), WithRefreshInterval(0), WithDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialFake(ctx, to.Load().(string))
		}))
		if _, err := c.Members(testContext(t), "g"); !errors.Is(err, ErrWrongCluster) {
			t.Fatal(err)
		}
		to.Store(own.nodes[0].addr)
		eventually(t, "the name's new node is asked", func() bool {
			_, err := c.Members(testContext(t), "g")
			return !errors.Is(err, ErrWrongCluster)
		})
	})
}

// A connection that fails is told in words of the system, not of gRPC.
func TestFailedConnectionInWords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const addr = "127.0.0.1:1" // where nobody listens
		cl := newFakeCluster(t, 1)
		c := cl.client(addr, WithDialer(defaultDialer), WithRefreshInterval(0), WithCallTimeout(500*time.Millisecond))
		_, err := c.Members(t.Context(), "g")
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), addr+": connect: connection refused") || strings.Contains(err.Error(), "desc =") {
			t.Error(err)
		}
	})
}

// A copy that is too old to be used does not say to which cluster a client belongs.
func TestRefusedCopyBindsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, _ := copyOf(t, 48*time.Hour)
		cl := newFakeWatched(t, 1)
		cl.id = "cluster-2"
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress)
		if _, err := c.Ring(testContext(t), "g", WithDiskCopy(path), WithDiskCopyMaxAge(time.Hour)); err != nil {
			t.Errorf("ring: %v", err)
		}
		if _, err := c.Register(testContext(t), service("m", nil)); errors.Is(err, ErrWrongCluster) {
			t.Errorf("the client is bound to the copy's cluster: %v", err)
		}
	})
}
