package sdk

import "context"

// Wait waits until the ring is at the revision or a later one: that of a
// receipt, for instance, or of an own write. While somebody waits for a revision
// that the watch has brought, the ring is built without the pauses that
// WithBuildShare asks for.
func (r *Ring) Wait(ctx context.Context, revision uint64) error {
	r.mu.Lock()
	r.waiting[revision]++
	r.expediteLocked()
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waiting[revision]--; r.waiting[revision] == 0 {
			delete(r.waiting, revision)
		}
	}()
	for {
		r.mu.Lock()
		wake, good, err := r.wake, r.good, r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return err
		case good != nil && good.revision >= revision:
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// expedited tells whether somebody waits for what is to be built.
func (r *Ring) expedited() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.expeditedLocked()
}

func (r *Ring) expeditedLocked() bool {
	if r.backlog.number == 0 {
		return false
	}
	for revision := range r.waiting {
		if r.backlog.revision >= revision && (r.good == nil || r.good.revision < revision) {
			return true
		}
	}
	return false
}

// expediteLocked ends the builder's pause if somebody waits for what it has to build.
func (r *Ring) expediteLocked() {
	if r.expeditedLocked() {
		poke(r.build.expedite)
	}
}
