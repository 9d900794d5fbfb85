package auth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// stream is a session whose check the test sets.
type stream struct {
	ctx    context.Context
	end    func()
	caller Caller
	err    error
	checks int
}

// open must not run at the same time as a check.
func open(s *Sessions, st *stream) *stream {
	st.ctx, st.end = s.Add(context.Background(), func() (Caller, error) {
		st.checks++
		return st.caller, st.err
	})
	return st
}

var errGone = errors.New("gone")

// A change ends the streams that it forbids, and no other.
func TestRecheckEndsStreams(t *testing.T) {
	s := NewSessions()
	a, b := open(s, &stream{}), open(s, &stream{})
	s.Recheck()
	if a.ctx.Err() != nil || b.ctx.Err() != nil || a.checks != 2 {
		t.Fatalf("ended: %v, %v after %d checks", a.ctx.Err(), b.ctx.Err(), a.checks)
	}
	a.err = errGone
	s.Recheck()
	if context.Cause(a.ctx) != errGone || b.ctx.Err() != nil || s.Len() != 1 {
		t.Errorf("ended: %v, %v; %d are open", context.Cause(a.ctx), b.ctx.Err(), s.Len())
	}
	checks := a.checks
	s.Recheck()
	if a.checks != checks {
		t.Error("a stream that has ended is checked")
	}
	a.end() // as its handler does
	b.end()
	if b.ctx.Err() == nil || s.Len() != 0 {
		t.Errorf("%d are open", s.Len())
	}
}

// Tokens may change between the check of a call and its Add.
func TestAddChecks(t *testing.T) {
	s := NewSessions()
	st := open(s, &stream{err: errGone})
	if context.Cause(st.ctx) != errGone || s.Len() != 0 {
		t.Errorf("%v; %d are open", context.Cause(st.ctx), s.Len())
	}
	st.end()
}

// A stream ends when its secret does, although no token changes.
func TestStreamEndsWithItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begin := NewSessions(), time.Now()
		st := &stream{caller: Caller{Until: begin.Add(10 * time.Second)}}
		st.ctx, st.end = s.Add(context.Background(), func() (Caller, error) {
			if !time.Now().Before(st.caller.Until) {
				return Caller{}, errGone
			}
			return st.caller, nil
		})
		<-st.ctx.Done()
		if took := time.Since(begin); context.Cause(st.ctx) != errGone || took != 10*time.Second {
			t.Errorf("%v after %v", context.Cause(st.ctx), took)
		}
		st.end()
	})
}

// A wall clock that is set forward ends a secret before the timer that was set for it.
func TestEndOfASecretFollowsTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begin := NewSessions(), time.Now()
		st := open(s, &stream{caller: Caller{Until: begin.Add(time.Hour)}})
		synctest.Wait()
		s.mu.Lock() // guards the check
		st.err = errGone
		s.mu.Unlock()
		<-st.ctx.Done()
		if took := time.Since(begin); took > maxWait {
			t.Errorf("it ended after %v", took)
		}
		st.end()
	})
}

// A rotation may give a stream's secret an end, another end, or none.
func TestRecheckMovesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions()
		st := open(s, &stream{caller: Caller{Until: time.Now().Add(time.Second)}})
		s.mu.Lock()
		st.caller.Until = time.Time{}
		s.mu.Unlock()
		s.Recheck()
		time.Sleep(time.Minute) // in the bubble
		s.mu.Lock()
		if st.checks != 2 || st.ctx.Err() != nil {
			t.Errorf("%d checks of a secret without an end", st.checks)
		}
		st.caller.Until = time.Now().Add(10 * maxWait)
		s.mu.Unlock()
		s.Recheck()
		time.Sleep(maxWait + time.Millisecond)
		s.mu.Lock()
		if st.checks != 4 {
			t.Errorf("%d checks, want one by the timer of the new end", st.checks)
		}
		s.mu.Unlock()
		st.end()
	})
}

// A stream that ended is not checked any more.
func TestEndStopsTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions()
		st := open(s, &stream{caller: Caller{Until: time.Now().Add(time.Second)}})
		st.end()
		time.Sleep(time.Minute)
		if st.checks != 1 || s.Len() != 0 {
			t.Errorf("%d checks, %d are open", st.checks, s.Len())
		}
	})
}
