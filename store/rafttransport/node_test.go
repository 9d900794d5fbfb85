package rafttransport

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is a node with fixed values.
type fakeNode struct {
	term    uint64
	state   raft.RaftState
	commit  atomic.Uint64
	members []raft.Server
	// The last entries of the log and the snapshot.
	last, snapshot EntryID
	termAt         func(index uint64) (uint64, bool)
}

func (n *fakeNode) State() raft.RaftState  { return n.state }
func (n *fakeNode) CurrentTerm() uint64    { return n.term }
func (n *fakeNode) CommitIndex() uint64    { return n.commit.Load() }
func (n *fakeNode) LastIndex() uint64      { return n.last.Index }
func (n *fakeNode) LastEntry() EntryID     { return n.last }
func (n *fakeNode) LastSnapshot() EntryID  { return n.snapshot }
func (n *fakeNode) Members() []raft.Server { return n.members }
func (n *fakeNode) TermAt(index uint64) (uint64, bool) {
	if n.termAt == nil {
		return 0, false
	}
	return n.termAt(index)
}

// after lets virtual time pass.
func after(d time.Duration) { <-time.After(d) }
