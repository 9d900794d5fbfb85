package sdk

import "context"

// Wait waits until the ring has the revision or a later one: that of a receipt or of
// a write, for instance. While a call waits for a revision that the watch has
// received, the ring is built without the pauses of WithBuildShare.
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
		wake, latest, err := r.wake, r.latest, r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return err
		case latest != nil && latest.revision >= revision:
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// expedited reports whether a Wait needs the backlog built.
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
		if r.backlog.revision >= revision && (r.latest == nil || r.latest.revision < revision) {
			return true
		}
	}
	return false
}

// expediteLocked ends the builder's pause if a Wait needs the backlog built.
func (r *Ring) expediteLocked() {
	if r.expeditedLocked() {
		signal(r.build.expedite)
	}
}
