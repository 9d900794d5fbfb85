package sdk

import "context"

// waiter waits for a ring of a revision, of a cluster if that is known.
type waiter struct {
	cluster  string
	revision uint64
}

func (w *waiter) reached(s state) bool {
	return sameCluster(w.cluster, s.cluster) && s.revision >= w.revision
}

// Wait waits until the ring is at the revision or a later one: that of a
// receipt, for instance, or of an own write. While somebody waits for a revision
// that the watch has brought, the ring is built without the pauses that
// WithBuildShare asks for.
func (r *Ring) Wait(ctx context.Context, revision uint64) error {
	return r.await(ctx, &waiter{revision: revision})
}

func (r *Ring) await(ctx context.Context, w *waiter) error {
	r.mu.Lock()
	r.waiting[w] = true
	r.expediteLocked()
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, w)
	}()
	for {
		r.mu.Lock()
		wake, good, err := r.wake, r.good, r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return err
		case good != nil && w.reached(good.state):
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
	for w := range r.waiting {
		if w.reached(r.backlog.state) && (r.good == nil || !w.reached(r.good.state)) {
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
