package rpc

import (
	"net"
	"sync"

	"github.com/werbenhu/registry/store/portmux"
)

// Limits of the watches over HTTP at one node. Each has a connection of its own, with
// buffers and goroutines, where many of gRPC share one.
const (
	maxHTTPWatches       = 10_000
	maxHTTPWatchesSource = maxHTTPWatches / 4
)

// httpWatches are the open watches over HTTP.
type httpWatches struct {
	mu       sync.Mutex // guards the rest
	all      int
	bySource map[string]int
	closed   bool
	open     sync.WaitGroup
}

// enter adds a watch until leave is called, unless there are too many of all or of the
// source. The node's own machine may have all.
func (h *httpWatches) enter(from net.Addr) (leave func(), err error) {
	source, local := portmux.Source(from)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, errStopping
	case h.all >= maxHTTPWatches:
		return nil, &fullError{"watches over HTTP", maxHTTPWatches}
	case !local && h.bySource[source] >= maxHTTPWatchesSource:
		return nil, &fullError{"watches over HTTP of one source", maxHTTPWatchesSource}
	case h.bySource == nil:
		h.bySource = make(map[string]int)
	}
	h.all++
	h.bySource[source]++
	h.open.Add(1)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all--
		if h.bySource[source]--; h.bySource[source] == 0 {
			delete(h.bySource, source)
		}
		h.open.Done()
	}, nil
}

// close refuses new watches and waits for the end of those that are open.
func (h *httpWatches) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.open.Wait()
}
