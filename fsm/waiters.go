package fsm

import "container/heap"

// indexWaiters is a heap of waiters for applied indexes, the lowest index first: a
// batch wakes only the waiters whose index it reached.
type indexWaiters []*indexWaiter

type indexWaiter struct {
	index uint64
	done  chan struct{} // closed when the index is applied
	pos   int           // in the heap; -1 outside
}

func (h *indexWaiters) add(index uint64) *indexWaiter {
	w := &indexWaiter{index: index, done: make(chan struct{})}
	heap.Push(h, w)
	return w
}

func (h *indexWaiters) remove(w *indexWaiter) {
	if w.pos >= 0 {
		heap.Remove(h, w.pos)
	}
}

// reached wakes all waiters for indexes up to the given one.
func (h *indexWaiters) reached(index uint64) {
	for len(*h) > 0 && (*h)[0].index <= index {
		close(heap.Pop(h).(*indexWaiter).done)
	}
}

func (h indexWaiters) Len() int           { return len(h) }
func (h indexWaiters) Less(i, j int) bool { return h[i].index < h[j].index }
func (h indexWaiters) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push and Pop are heap.Interface's.
func (h *indexWaiters) Push(x any) {
	w := x.(*indexWaiter)
	w.pos = len(*h)
	*h = append(*h, w)
}

func (h *indexWaiters) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	w.pos = -1
	return w
}
