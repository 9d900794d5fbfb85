package store

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress
		p.waits()
		after(time.Second)
		p.answered(fmt.Errorf("%w: %w", ErrBusy, raft.ErrLeadershipTransferInProgress))
		after(time.Second)
		p.waits()
		if d := time.Since(p.waiting()); d != 2*time.Second {
			t.Errorf("stuck for %s, want 2s: a refusal is no progress", d)
		}
		p.begins()
		if d := time.Since(p.waiting()); d != 0 {
			t.Errorf("stuck for %s in a new term: what raft left unanswered waits on, from now", d)
		}
		for _, err := range []error{nil, raft.ErrLeadershipLost} {
			p.waits()
			p.answered(err)
			if since := p.waiting(); !since.IsZero() {
				t.Errorf("after %v: stuck since %s", err, since)
			}
		}
	})
}

// A leader whose process stood still while an entry waited is not stuck: it has
// looked once, however late that was.
func TestStandingStillIsNotStuck(t *testing.T) {
	p := progress{since: time.Now().Add(-time.Hour)} // it stood still meanwhile
	var count stuckCount
	for range stuckSteps {
		if count.look(p.waiting()) {
			t.Fatal("stuck after standing still")
		}
	}
	p.moves() // its peers' answers were read
	p.waits() // something else waits
	for i := range stuckSteps + 1 {
		if got := count.look(p.waiting()); got != (i == stuckSteps) {
			t.Errorf("look %d: %t", i, got)
		}
	}
}
