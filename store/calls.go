package store

import (
	"errors"
	"fmt"
	"sync"

	"github.com/werbenhu/registry/fsm"
)

// Attempt names the call that a write is an attempt of. A call is attempted
// again when nobody knows what became of the attempt before; between the two
// another call may have undone what the first did, and a second effect would
// undo that again. So an attempt whose call took effect gets that result.
type Attempt struct {
	// Call is a random token; empty: the write is attempted once.
	Call []byte
	// Since is an index that was applied somewhere before the first attempt:
	// the call's entry, if there is one, has a higher index.
	Since uint64
	// Again: the outcome of an earlier attempt is not known.
	Again bool
}

// maxCalls is how many calls a node remembers: some seconds of writing.
const maxCalls = 32 << 10

// calls remembers the calls that the log holds, with their results, and those
// on their way to it. It is no part of the state: only the leader asks it,
// after it applied an entry of its own term, and so it has seen every entry of
// earlier terms that there will ever be.
type calls struct {
	mu       sync.Mutex // guards the rest
	from     uint64     // all calls above this index are remembered
	done     map[string]fsm.Result
	order    []string // of done, oldest first; a ring once it is full
	next     int      // place in order
	underWay map[string]*proposal
}

func newCalls() *calls {
	return &calls{done: make(map[string]fsm.Result), underWay: make(map[string]*proposal)}
}

// applied notes entries that were applied, before anyone is told of their results.
func (c *calls) applied(results []fsm.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range results {
		if r.Call == "" {
			continue
		}
		if _, known := c.done[r.Call]; known {
			continue // an earlier version's leader attempted it twice: the first counts
		}
		if len(c.order) < maxCalls {
			c.order = append(c.order, r.Call)
		} else {
			oldest := &c.order[c.next]
			c.from = max(c.from, c.done[*oldest].Index)
			delete(c.done, *oldest)
			*oldest = r.Call
			c.next = (c.next + 1) % maxCalls
		}
		c.done[r.Call] = r
	}
}

// restored notes that the entries up to the index were not seen one by one.
func (c *calls) restored(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = max(c.from, index)
}

var errForgotten = errors.New("it is not known whether an earlier attempt took effect")

// begin returns the result of the call, or its attempt that is on its way, or
// neither: then p is on its way until settled.
func (c *calls) begin(a Attempt, p *proposal) (known *fsm.Result, other *proposal, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.done[string(a.Call)]; ok {
		return &r, nil, nil
	}
	if other = c.underWay[string(a.Call)]; other != nil {
		return nil, other, nil
	}
	if a.Again && a.Since < c.from {
		return nil, nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, errForgotten)
	}
	c.underWay[string(a.Call)] = p
	return nil, nil, nil
}

// settled notes that raft has answered, or was not asked.
func (c *calls) settled(p *proposal) {
	if p.call == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.underWay, p.call)
}
