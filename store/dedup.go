package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// Request identifies a write among the attempts of one call. A call is
// attempted again, here or on another leader, when the outcome of an attempt is
// unknown. Between the two another call may have undone what the first did, and
// a second effect would undo that again: so a call takes effect once, and a
// later attempt gets the first one's result.
type Request struct {
	// ID is random, RequestIDSize bytes; empty: the write is attempted once.
	ID []byte
	// Hash covers the method and the values, so that an id that comes back with
	// others is refused.
	Hash uint64
	// Since is an index that was applied somewhere before the first attempt: the
	// call's entry, if there is one, has a higher index.
	Since uint64
	// Again says that the outcome of an earlier attempt is unknown.
	Again bool
}

// RequestIDSize is the size of a request id, in bytes.
const RequestIDSize = 16

type requestID [RequestIDSize]byte

// key is what the log holds of the request.
func (r Request) key() []byte {
	if len(r.ID) == 0 {
		return nil
	}
	return binary.LittleEndian.AppendUint64(append([]byte(nil), r.ID...), r.Hash)
}

// parseRequest is the inverse of key; ok is false for an entry without one.
func parseRequest(key []byte) (id requestID, hash uint64, ok bool) {
	if len(key) != RequestIDSize+8 {
		return id, 0, false
	}
	return requestID(key), binary.LittleEndian.Uint64(key[RequestIDSize:]), true
}

const (
	// dedupWindow is how long a request is remembered at least, if no more come
	// than there is room for: longer than the SDK's default time for a call, 10 s.
	dedupWindow = 15 * time.Second
	// dedupGenerations, each of dedupRoom requests and about 100 bytes for each,
	// bound the memory at 13 MB. The oldest is forgotten as a whole, so that at
	// least 98,304 requests are remembered: 10 s at 9,800 writes/s.
	dedupGenerations = 4
	dedupRoom        = 32 << 10
)

// dedup remembers the requests that the log holds, with their results, and
// those on their way to it. It is no part of the state: only the leader asks
// it, after it applied an entry of its own term, and so it has seen every entry
// of earlier terms that there will ever be. A request that failed is not
// remembered: it changed nothing.
type dedup struct {
	mu       sync.Mutex // guards the rest
	from     uint64     // all requests above this index that succeeded are remembered
	applied  [dedupGenerations]dedupGeneration
	newest   int // of applied
	underWay map[requestID]*proposal
}

// dedupGeneration is a stretch of requests. Its records hold no pointers, so
// that the garbage collector does not walk them.
type dedupGeneration struct {
	began   time.Time
	last    uint64 // index
	records map[requestID]dedupRecord
}

// dedupRecord is what the answer to a further attempt needs.
type dedupRecord struct {
	hash, index, revision, lease uint64
	ttl                          time.Duration
	removed                      bool
	members                      int // of a deleted group
}

func (r dedupRecord) result() fsm.Result {
	return fsm.Result{Index: r.index, Revision: r.revision, LeaseID: r.lease, TTL: r.ttl, Removed: r.removed, Members: r.members}
}

func newDedup() *dedup {
	d := &dedup{underWay: make(map[requestID]*proposal)}
	d.applied[0] = dedupGeneration{began: time.Now(), records: make(map[requestID]dedupRecord)}
	return d
}

// note remembers entries that were applied, before anyone is told of their results.
func (d *dedup) note(results []fsm.Result) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range results {
		id, hash, ok := parseRequest(r.Request)
		if !ok || r.Err != nil {
			continue
		}
		g := d.generationLocked(now)
		g.last = r.Index
		g.records[id] = dedupRecord{hash: hash, index: r.Index, revision: r.Revision, lease: r.LeaseID, ttl: r.TTL, removed: r.Removed, members: r.Members}
	}
}

// generationLocked returns the newest, after it began another if that is due.
func (d *dedup) generationLocked(now time.Time) *dedupGeneration {
	g := &d.applied[d.newest]
	if len(g.records) < dedupRoom && now.Sub(g.began) < dedupWindow/(dedupGenerations-1) {
		return g
	}
	d.newest = (d.newest + 1) % dedupGenerations
	g = &d.applied[d.newest]
	d.from = max(d.from, g.last)
	*g = dedupGeneration{began: now, records: make(map[requestID]dedupRecord)}
	return g
}

// restored notes that another state took over: the entries up to the index were
// not seen one by one, and what was seen may have been of a wrong state.
func (d *dedup) restored(index uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.from = index
	d.applied = [dedupGenerations]dedupGeneration{}
	d.newest = 0
	d.applied[0] = dedupGeneration{began: time.Now(), records: make(map[requestID]dedupRecord)}
}

var (
	errAhead  = errors.New("the leader has not applied the index that the caller observed before")
	errReused = &fsm.FieldError{Field: "request_id", Limit: "that of one call", Got: "one that a call with another method or other values has"}
)

// begin returns the result of the request, or its attempt that is on its way,
// or neither: then p is on its way until settled. applied is the index that this
// node has applied.
func (d *dedup) begin(r Request, applied uint64, p *proposal) (known *fsm.Result, other *proposal, err error) {
	id := requestID(r.ID)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.applied {
		if record, ok := d.applied[i].records[id]; ok {
			if record.hash != r.Hash {
				return nil, nil, errReused
			}
			result := record.result()
			return &result, nil, nil
		}
	}
	if other = d.underWay[id]; other != nil {
		if other.hash != r.Hash {
			return nil, nil, errReused
		}
		return nil, other, nil
	}
	switch forgotten := r.Since < d.from; {
	case r.Again && forgotten:
		return nil, nil, ErrForgotten
	case r.Again && r.Since > applied: // observed in a cluster that this one replaced, or this node catches up
		return nil, nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, errAhead)
	case r.Since > 0 && forgotten: // another attempt may have overtaken this one, and is not remembered
		return nil, nil, &fsm.FieldError{Field: "since", Limit: fmt.Sprintf("at least %d", d.from), Got: fmt.Sprint(r.Since)}
	}
	p.request, p.hash, p.tracked = id, r.Hash, true
	d.underWay[id] = p
	return nil, nil, nil
}

// settled notes that raft has answered, or was not asked.
func (d *dedup) settled(p *proposal) {
	if !p.tracked {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.underWay, p.request)
}
