package composetest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

var formations = flag.Int("formations", 1, "rounds of TestFormationInAnyOrder")

// TestFormationInAnyOrder starts empty nodes in random order, with pauses, and kills some
// of them during the first seconds: one cluster each time. A second one would have
// acknowledged registrations that the first does not have.
func TestFormationInAnyOrder(t *testing.T) {
	p := newProject(t, "docker-compose.yml")
	random := seed.Rand(t)
	for round := range *formations {
		logStep(t, fmt.Sprintf("round %d: one cluster", round+1), func() {
			p.mustCompose("up", "-d", "--no-build", "secret")
			writes := p.startWrites()
			for _, i := range random.Perm(len(allNodes)) {
				p.mustCompose("up", "-d", "--no-build", "--no-deps", allNodes[i])
				p.pause(random, 2*time.Second)
			}
			for range random.IntN(3) {
				node := p.container(allNodes[random.IntN(len(allNodes))])
				p.must("docker", "kill", node)
				p.pause(random, time.Second)
				p.must("docker", "start", node)
				p.pause(random, time.Second)
			}
			p.healthy(allNodes...)
			p.eventually("an acknowledged registration at each node", 30*time.Second, writes.everywhere)
			acknowledged := writes.stop()
			p.converged(allNodes...)
			members := p.createdIndexes("registry1")
			for id := range acknowledged {
				if _, ok := members[id]; !ok {
					t.Errorf("%s was acknowledged and is no member", id)
				}
			}
			p.mustCompose("down", "-v", "-t", "10")
		})
	}
}

// pause lets a part of max pass, so that what happens next meets another state of the nodes.
func (p *project) pause(random *rand.Rand, max time.Duration) {
	select {
	case <-time.After(time.Duration(random.Int64N(int64(max)))):
	case <-p.ctx.Done():
	}
}

// writes registers members at each node, all the time.
type writes struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu           sync.Mutex // guards what follows
	acknowledged map[string]bool
	nodes        map[string]bool // that acknowledged one
}

func (p *project) startWrites() *writes {
	ctx, cancel := context.WithCancel(p.ctx)
	w := &writes{cancel: cancel, acknowledged: map[string]bool{}, nodes: map[string]bool{}}
	for node, addr := range p.addrs {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			p.t.Fatal(err)
		}
		w.wg.Go(func() {
			defer conn.Close()
			w.run(ctx, node, registrypb.NewRegistryClient(conn))
		})
	}
	p.t.Cleanup(func() { w.stop() })
	return w
}

func (w *writes) run(ctx context.Context, node string, api registrypb.RegistryClient) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%s-%d", node, i)
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err := api.Register(call, &registrypb.RegisterRequest{Group: group, Id: id, Addr: "127.0.0.1:1", Ttl: durationpb.New(time.Hour)})
		cancel()
		if err == nil {
			w.mu.Lock()
			w.acknowledged[id], w.nodes[node] = true, true
			w.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// everywhere tells whether each node has acknowledged a registration.
func (w *writes) everywhere() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.nodes) < len(allNodes) {
		return fmt.Errorf("only by %v", w.nodes)
	}
	return nil
}

// stop ends the writes and returns those that were acknowledged.
func (w *writes) stop() map[string]bool {
	w.cancel()
	w.wg.Wait()
	return w.acknowledged
}
