package fsm

import "github.com/tidwall/btree"

// indexWaiters wait for applied indexes: a batch wakes only those whose index it
// reached.
type indexWaiters struct {
	btree.Map[uint64, *indexWaiter] // by index
}

// indexWaiter stands for all that wait for one index.
type indexWaiter struct {
	index uint64
	count int
	done  chan struct{} // closed when the index is applied
}

func (h *indexWaiters) add(index uint64) *indexWaiter {
	w, ok := h.Get(index)
	if !ok {
		w = &indexWaiter{index: index, done: make(chan struct{})}
		h.Set(index, w)
	}
	w.count++
	return w
}

// remove ends one wait. After the index was reached it has no effect.
func (h *indexWaiters) remove(w *indexWaiter) {
	w.count--
	if now, _ := h.Get(w.index); now == w && w.count == 0 {
		h.Delete(w.index)
	}
}

// reached wakes all waiters for indexes up to the given one.
func (h *indexWaiters) reached(index uint64) {
	for at, w, ok := h.Min(); ok && at <= index; at, w, ok = h.Min() {
		h.Delete(at)
		close(w.done)
	}
}
