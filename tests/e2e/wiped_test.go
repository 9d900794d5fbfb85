package e2e

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// wipe brings a cluster into this state: an acknowledged registration is on
// two of three nodes, of which the leader is down and the other was wiped; the
// third, which runs alone, never saw the registration.
func wipe(t *testing.T) (c *cluster, leader, behind, wiped *node) {
	t.Helper()
	c = startCluster(t, 3)
	leader, others := c.leader()
	behind, wiped = others[0], others[1]
	behind.kill()
	keptMember(t, leader.addr)
	leader.kill()
	wiped.kill()
	if err := os.RemoveAll(wiped.dir); err != nil {
		t.Fatal(err)
	}
	behind.start()
	return c, leader, behind, wiped
}

// keptIsThere waits for the node to be part of a majority, and expects the
// acknowledged registration.
func keptIsThere(t *testing.T, n *node) {
	t.Helper()
	client := registrypb.NewRegistryClient(connect(t, n.addr))
	eventually(t, patience, "the acknowledged registration", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		resp, err := client.Members(ctx, &registrypb.MembersRequest{Group: "kept", Read: &registrypb.ReadOptions{Linearizable: true}})
		if status.Code(err) == codes.NotFound || err == nil && len(resp.Members) != 1 {
			t.Fatalf("it is lost: %v, %v", resp, err)
		}
		return err
	})
}

// TestWipedNodeHasNoVote: a node that lost its directory forgot its votes and
// what it acknowledged. With the node that is behind it must not make a majority.
func TestWipedNodeHasNoVote(t *testing.T) {
	t.Parallel()
	_, leader, behind, wiped := wipe(t)
	wiped.start("-registries", behind.bind+","+leader.bind, "-join-timeout", "3s")
	code := wiped.ends(patience)
	t.Logf("the wiped node ended with exit code %d: %s", code, wiped.log.tail(1))
	leader.start()
	keptIsThere(t, leader)
}

// TestWipedNodeIsNoCluster: a node that lost its directory and restarts as it
// was first started, without -registries, takes itself for a new cluster of
// the same name. Its old fellows must not take its word.
func TestWipedNodeIsNoCluster(t *testing.T) {
	t.Parallel()
	_, leader, behind, wiped := wipe(t)
	wiped.start()
	throughout(t, 5*time.Second, "the node that has its data", func() error {
		if behind.hasEnded() {
			return errors.New(behind.log.tail(1))
		}
		return nil
	})
	leader.start()
	keptIsThere(t, leader)
	if code := wiped.ends(patience); code != 4 {
		t.Errorf("the wiped node ended with exit code %d", code)
	}
}
