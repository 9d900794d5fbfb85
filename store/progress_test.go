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
		p.entryWaits()
		after(time.Second)
		p.entryDone(fmt.Errorf("%w: %w", ErrBusy, raft.ErrLeadershipTransferInProgress))
		after(time.Second)
		p.entryWaits()
		if d := time.Since(p.waiting()); d != 2*time.Second {
			t.Errorf("stuck for %s, want 2s: a refusal is no progress", d)
		}
		p.termBegins()
		if d := time.Since(p.waiting()); d != 0 {
			t.Errorf("stuck for %s in a new term: the wait restarts with the term", d)
		}
		for _, err := range []error{nil, raft.ErrLeadershipLost} {
			p.entryWaits()
			p.entryDone(err)
			if since := p.waiting(); !since.IsZero() {
				t.Errorf("after %v: stuck since %s", err, since)
			}
		}
	})
}

// A leader whose process was paused while an entry waited is not stuck: it has
// checked once, however late.
func TestPausedLeaderIsNotStuck(t *testing.T) {
	p := progress{since: time.Now().Add(-time.Hour)} // the process was paused
	var count stuckCount
	for range stuckSteps {
		if count.check(p.waiting()) {
			t.Fatal("stuck after a pause")
		}
	}
	p.advanced()   // its peers have answered
	p.entryWaits() // another entry waits
	for i := range stuckSteps + 1 {
		if got := count.check(p.waiting()); got != (i == stuckSteps) {
			t.Errorf("check %d: %t", i, got)
		}
	}
}
