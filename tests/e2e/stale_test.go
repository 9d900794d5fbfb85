package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// TestResumedNodeIsNotFresh stops a node while others write, and lets readers
// ask it for answers that are at most a second old from the moment it goes on.
// Words of a leader that waited in its sockets are no fresh words, and a leader
// that slept through an election leads nobody.
func TestResumedNodeIsNotFresh(t *testing.T) {
	t.Parallel()
	needSignal(t, sigStop, sigCont)
	c := startCluster(t, 3)
	for round := range shorterRounds(3) {
		leader, others := c.leader()
		t.Run(fmt.Sprintf("follower %d", round), func(t *testing.T) { resumes(t, c, others[round%2], leader) })
		t.Run(fmt.Sprintf("leader %d", round), func(t *testing.T) { resumes(t, c, leader, others[0]) })
	}
}

func shorterRounds(n int) int {
	if testing.Short() {
		return 1
	}
	return n
}

// resumes has victim stand still for longer than an answer may be old.
func resumes(t *testing.T, c *cluster, victim, other *node) {
	const allowed, asleep, readers = time.Second, 3 * time.Second, 16
	group := fmt.Sprintf("fresh-%s", victim.id)
	write := func(id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := registrypb.NewRegistryClient(connect(t, other.addr)).Register(ctx, &registrypb.RegisterRequest{
			Group: group, Id: id, Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour), Instance: []byte(id),
		})
		return err
	}
	eventually(t, patience, "write", func() error { return write("before") })
	apis := make([]registrypb.RegistryClient, readers)
	for i := range apis { // connected before
		apis[i] = registrypb.NewRegistryClient(connect(t, victim.addr))
		eventually(t, patience, "read", func() error {
			_, err := apis[i].Members(t.Context(), &registrypb.MembersRequest{Group: group}, grpc.WaitForReady(true))
			return err
		})
	}
	victim.send(sigStop)
	resume := sync.OnceFunc(func() { victim.send(sigCont) })
	defer resume()
	stopped := time.Now()
	eventually(t, patience, "write", func() error { return write("after") })
	written := time.Now()

	ctx, cancel := context.WithTimeout(t.Context(), max(asleep, time.Since(stopped)+allowed+500*time.Millisecond)+4*time.Second)
	defer cancel()
	var answers, refused atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	fresh := make(chan struct{})
	for _, api := range apis { // they wait for the node from now on
		wg.Go(func() {
			for ctx.Err() == nil {
				asked := time.Now()
				resp, err := api.Members(ctx, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{MaxStaleness: durationpb.New(allowed)}})
				switch {
				case status.Code(err) == codes.Unavailable:
					refused.Add(1)
				case err != nil:
				case len(resp.Members) == 2:
					answers.Add(1)
					once.Do(func() { close(fresh) })
					return
				case time.Now().Add(-allowed).After(written.Add(noise)):
					t.Errorf("asked %v after the write, answered without it and a lag of %v (receipt %v)", ms(asked.Sub(written)), resp.Receipt.Lag.AsDuration(), resp.Receipt)
					return
				}
			}
		})
	}
	timer := time.NewTimer(time.Until(maxTime(stopped.Add(asleep), written.Add(allowed+noise+100*time.Millisecond))))
	defer timer.Stop()
	<-timer.C
	resumed := time.Now()
	resume()
	select {
	case <-fresh:
		t.Logf("fresh %v after it went on; %d answers were refused", ms(time.Since(resumed)), refused.Load())
	case <-ctx.Done():
		t.Errorf("not fresh: %v", errors.Join(context.Cause(ctx)))
	}
	wg.Wait()
	c.settled(3)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
