package auth

import (
	"context"
	"sync"
	"time"
)

// Sessions are the open streams. A stream ends when its check fails: Recheck repeats
// the checks of all after a change of the tokens, and each is repeated when the secret
// that its caller presented ends.
type Sessions struct {
	mu   sync.Mutex // guards the rest
	open map[*session]struct{}
}

// session is one stream.
type session struct {
	check  func() (Caller, error)
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: the secret does not end
	done   bool        // ended
}

// NewSessions returns Sessions without streams.
func NewSessions() *Sessions { return &Sessions{open: make(map[*session]struct{})} }

// Add adds a stream until end is called. The context that it returns ends with the
// check's error as its cause. The check is safe for concurrent use.
func (s *Sessions) Add(ctx context.Context, check func() (Caller, error)) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	one := &session{check: check, cancel: cancel}
	s.mu.Lock()
	s.open[one] = struct{}{}
	s.recheckLocked(one) // tokens may have changed since the caller's check
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		s.endLocked(one)
		s.mu.Unlock()
		cancel(nil)
	}
}

// Recheck ends the streams that are no longer allowed.
func (s *Sessions) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open {
		s.recheckLocked(one)
	}
}

func (s *Sessions) recheckLocked(one *session) {
	caller, err := one.check()
	if err != nil {
		s.endLocked(one)
		one.cancel(err)
		return
	}
	if one.timer != nil {
		one.timer.Stop()
		one.timer = nil
	}
	if !caller.Until.IsZero() {
		one.timer = time.AfterFunc(min(time.Until(caller.Until), maxWait), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !one.done {
				s.recheckLocked(one)
			}
		})
	}
}

// maxWait bounds the wait for the end of a secret: the wall clock may be set meanwhile.
const maxWait = 500 * time.Millisecond

func (s *Sessions) endLocked(one *session) {
	one.done = true
	delete(s.open, one)
	if one.timer != nil {
		one.timer.Stop()
	}
}

// Len is the number of open streams.
func (s *Sessions) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}
