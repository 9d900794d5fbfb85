package store

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// numbered returns the request with that number.
func numbered(i int) Request {
	return Request{ID: binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)), Hash: 7, Since: uint64(i)}
}

func TestDedup(t *testing.T) {
	d := newDedup()
	a, p := numbered(1), &proposal{}
	if known, other, err := d.begin(a, 9, p); known != nil || other != nil || err != nil {
		t.Fatalf("a first attempt: %v, %v, %v", known, other, err)
	}
	if _, other, _ := d.begin(a, 9, &proposal{}); other != p {
		t.Error("a second attempt does not wait for the first, which is in flight")
	}
	differs := a
	differs.Hash++
	wantReused := func(what string) {
		t.Helper()
		var field *fsm.FieldError
		if _, _, err := d.begin(differs, 9, &proposal{}); !errors.As(err, &field) || field.Field != "request_id" {
			t.Errorf("an id with other values, %s: %v", what, err)
		}
	}
	wantReused("while the first is in flight")
	want := fsm.Result{Index: 9, Revision: 8, LeaseID: 5, TTL: time.Minute, Removed: true}
	result := want
	result.Request = a.key()
	d.note([]fsm.Result{{Index: 7}, result})
	d.completed(p)
	if known, _, err := d.begin(a, 9, &proposal{}); known == nil || known.Index != want.Index || known.Revision != want.Revision ||
		known.LeaseID != want.LeaseID || known.TTL != want.TTL || known.Removed != want.Removed || err != nil {
		t.Errorf("an attempt after the first took effect: %+v, %v, want %+v", known, err, want)
	}
	wantReused("after the first took effect")

	failed := numbered(2)
	d.note([]fsm.Result{{Index: 10, Request: failed.key(), Err: fsm.ErrConflict}})
	if known, other, err := d.begin(failed, 10, &proposal{}); known != nil || other != nil || err != nil {
		t.Errorf("an attempt after one that changed nothing: %v, %v, %v", known, other, err)
	}
}

// A retry after an unknown outcome is accepted only if the leader can tell that the
// request had no effect.
func TestDedupRefusesWhatItCannotTell(t *testing.T) {
	for name, test := range map[string]struct {
		restored, since, applied uint64
		again, unknown           bool
	}{
		"all is remembered":             {0, 7, 9, true, false},
		"a snapshot may hold it":        {8, 7, 9, true, true},
		"a snapshot of before":          {7, 7, 9, true, false},
		"a first attempt":               {7, 7, 9, false, false},
		"observed in another cluster":   {0, 10, 9, true, true},
		"a first attempt from there":    {0, 10, 9, false, false},
		"observed what is applied last": {0, 9, 9, true, false},
		"a first attempt, no index":     {8, 0, 9, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDedup()
			if test.restored > 0 {
				d.restored(test.restored)
			}
			r := numbered(1)
			r.Since, r.Again = test.since, test.again
			_, _, err := d.begin(r, test.applied, &proposal{})
			if errors.Is(err, ErrOutcomeUnknown) != test.unknown || err != nil && !test.unknown {
				t.Errorf("%v, want unknown: %v", err, test.unknown)
			}
		})
	}
}

// A forgotten request is not taken for a new one.
func TestDedupIsBounded(t *testing.T) {
	d := newDedup()
	const n = dedupRoom*(dedupGenerations+1) + 10
	for i := 1; i <= n; i++ {
		d.note([]fsm.Result{{Index: uint64(i + 1), Request: numbered(i).key()}})
	}
	held := 0
	for _, g := range d.applied {
		held += len(g.records)
	}
	if held > dedupRoom*dedupGenerations || held < dedupRoom*(dedupGenerations-1) {
		t.Errorf("%d requests are remembered", held)
	}
	oldest := n - held + 1
	for i, want := range map[int]error{oldest - 1: ErrOutcomeUnknown, oldest: nil, n: nil} {
		r := numbered(i)
		r.Again = true
		if known, _, err := d.begin(r, n+1, &proposal{}); !errors.Is(err, want) || want == nil && (known == nil || known.Index != uint64(i+1)) {
			t.Errorf("request %d of %d, %d remembered: %v, %v, want %v", i, n, held, known, err, want)
		}
	}
	r := numbered(n + 1)
	r.Since, r.Again = n+1, true
	if _, _, err := d.begin(r, n+1, &proposal{}); err != nil {
		t.Errorf("a retry of a request that was never applied: %v", err)
	}
}

// A first attempt that arrives so late that a retry of the same request may have
// been forgotten is refused.
func TestLateFirstAttemptIsRefused(t *testing.T) {
	d := newDedup()
	d.restored(8)
	r := numbered(7)
	var field *fsm.FieldError
	if _, _, err := d.begin(r, 9, &proposal{}); !errors.As(err, &field) || field.Field != "since" {
		t.Errorf("%v", err)
	}
	r.Again = true
	if _, _, err := d.begin(r, 9, &proposal{}); !errors.Is(err, ErrForgotten) {
		t.Errorf("with again: %v", err)
	}
}

// Requests of a replaced state are forgotten.
func TestDedupForgetsAReplacedState(t *testing.T) {
	d := newDedup()
	d.note([]fsm.Result{{Index: 5, Request: numbered(1).key()}})
	d.restored(4)
	r := numbered(1)
	r.Since, r.Again = 4, true
	if known, _, err := d.begin(r, 9, &proposal{}); known != nil || err != nil {
		t.Errorf("%+v, %v", known, err)
	}
}

// With few writes requests are forgotten by time.
func TestDedupForgetsByTime(t *testing.T) {
	d := newDedup()
	for i := 1; i <= dedupGenerations+1; i++ {
		d.note([]fsm.Result{{Index: uint64(i), Request: numbered(i).key()}})
		d.applied[d.newest].began = time.Now().Add(-dedupWindow)
	}
	r := numbered(0)
	for i, want := range map[int]error{1: ErrOutcomeUnknown, 2: nil} {
		r = numbered(i)
		r.Since, r.Again = uint64(i-1), true
		if known, _, err := d.begin(r, 9, &proposal{}); !errors.Is(err, want) || want == nil && known == nil {
			t.Errorf("request %d: %v, %v, want %v", i, known, err, want)
		}
	}
}

// BenchmarkDedup reports the bytes per remembered request.
func BenchmarkDedup(b *testing.B) {
	b.ReportAllocs()
	d := newDedup()
	results := make([]fsm.Result, 1)
	for i := 0; b.Loop(); i++ {
		results[0] = fsm.Result{Index: uint64(i), Request: numbered(i).key()}
		d.note(results)
	}
}
