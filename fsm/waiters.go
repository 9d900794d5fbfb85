package fsm

import "container/heap"

// indexWaiters are those who wait for an index to be applied, the lowest first:
// an applied batch wakes whom it serves and nobody else, however many wait for
// an index that is far away.
type indexWaiters []*indexWaiter

type indexWaiter struct {
	index uint64
	done  chan struct{} // closed when the index is applied
	place int           // in the heap; -1 when it is not there
}

func (h *indexWaiters) add(index uint64) *indexWaiter {
	w := &indexWaiter{index: index, done: make(chan struct{})}
	heap.Push(h, w)
	return w
}

func (h *indexWaiters) remove(w *indexWaiter) {
	if w.place >= 0 {
		heap.Remove(h, w.place)
	}
}

// reached wakes all who wait for an index up to the given one.
func (h *indexWaiters) reached(index uint64) {
	for len(*h) > 0 && (*h)[0].index <= index {
		close(heap.Pop(h).(*indexWaiter).done)
	}
}

func (h indexWaiters) Len() int           { return len(h) }
func (h indexWaiters) Less(i, j int) bool { return h[i].index < h[j].index }
func (h indexWaiters) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push and Pop are heap.Interface's.
func (h *indexWaiters) Push(x any) {
	w := x.(*indexWaiter)
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *indexWaiters) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.place = -1
	return w
}
