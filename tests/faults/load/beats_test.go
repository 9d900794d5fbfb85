package load

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/faults/check"
)

// TestSteadyMembersNeverStop: whatever stops, some members beat on.
func TestSteadyMembersNeverStop(t *testing.T) {
	b := &beater{load: &Load{start: time.Now()}, rand: rand.New(rand.NewPCG(1, 1)), alive: make(map[uint64]*check.Lease)}
	for id := range uint64(beatMembers) {
		b.alive[id] = &check.Lease{TTL: b.drawTTL()}
	}
	for range 2 * beatMembers {
		b.stopOne()
	}
	if len(b.alive) != steadyMembers {
		t.Errorf("%d members beat on, want %d", len(b.alive), steadyMembers)
	}
	delete(b.alive, 0) // it was lost: another takes its place
	if ttl := b.drawTTL(); len(b.alive) != steadyMembers-1 || ttl != steadyTTL {
		t.Errorf("after a loss the next of %d has a TTL of %v", len(b.alive), ttl)
	}
}
