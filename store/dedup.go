package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// Request identifies the attempts of one request. A request is retried, here or on
// another leader, when the outcome of an attempt is unknown. Between two attempts
// another request may have changed the same member, and a second effect would undo
// that change. So a request takes effect once, and a later attempt returns the
// first one's result.
type Request struct {
	// ID is RequestIDSize random bytes; empty: the write is not deduplicated.
	ID []byte
	// Hash covers the method and the values: an id that is reused with others is
	// refused.
	Hash uint64
	// Since is an index that was applied on some node before the first attempt: the
	// request's entry, if there is one, has a higher index.
	Since uint64
	// Again says that the outcome of an earlier attempt is unknown.
	Again bool
}

// RequestIDSize is the size of a request id, in bytes.
const RequestIDSize = 16

type requestID [RequestIDSize]byte

// key is the part of the request that is in the log entry.
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
	// dedupWindow is the minimum time that a request is remembered, as long as there
	// is room. It is longer than the SDK's default timeout of a call, 10 s.
	dedupWindow = 15 * time.Second
	// dedupGenerations of dedupRoom requests, at about 100 bytes a request, bound the
	// memory to 13 MB. The oldest generation is dropped as a whole, so at least 98,304
	// requests are remembered: 10 s at 9,800 writes/s.
	dedupGenerations = 4
	dedupRoom        = 32 << 10
)

// dedup remembers applied requests with their results, and requests in flight. It
// is not part of the replicated state: only the leader uses it, after it has applied
// an entry of its own term, and with it all committed entries of earlier terms. A
// request that failed is not remembered: it changed nothing.
type dedup struct {
	mu       sync.Mutex // guards the rest
	from     uint64     // all requests above this index that succeeded are remembered
	applied  [dedupGenerations]dedupGeneration
	newest   int // index in applied
	inFlight map[requestID]*proposal
}

// dedupGeneration holds consecutive requests. The records have no pointers, so that
// the garbage collector does not scan them.
type dedupGeneration struct {
	began   time.Time
	last    uint64 // index
	records map[requestID]dedupRecord
}

// dedupRecord is what a later attempt returns.
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
	d := &dedup{inFlight: make(map[requestID]*proposal)}
	d.applied[0] = dedupGeneration{began: time.Now(), records: make(map[requestID]dedupRecord)}
	return d
}

// note remembers applied entries, before their results are returned.
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

// generationLocked returns the newest generation, and starts another one when due.
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

// restored notes that the state was replaced: its entries up to the index were not
// applied one by one here, and what was remembered may be of a wrong state.
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
	errReused = &fsm.FieldError{Field: "request_id", Limit: "unique to one request", Got: "one of a request with another method or other values"}
)

// begin returns the request's result, or its attempt that is in flight, or neither:
// then p is in flight until completed. applied is this node's applied index.
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
	if other = d.inFlight[id]; other != nil {
		if other.hash != r.Hash {
			return nil, nil, errReused
		}
		return nil, other, nil
	}
	switch forgotten := r.Since < d.from; {
	case r.Again && forgotten:
		return nil, nil, ErrForgotten
	case r.Again && r.Since > applied: // observed in another cluster, or this node is catching up
		return nil, nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, errAhead)
	case r.Since > 0 && forgotten: // a later attempt may have been applied first and forgotten
		return nil, nil, &fsm.FieldError{Field: "since", Limit: fmt.Sprintf("at least %d", d.from), Got: fmt.Sprint(r.Since)}
	}
	p.request, p.hash, p.tracked = id, r.Hash, true
	d.inFlight[id] = p
	return nil, nil, nil
}

// completed ends the proposal's time in flight.
func (d *dedup) completed(p *proposal) {
	if !p.tracked {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inFlight, p.request)
}
