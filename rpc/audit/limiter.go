package audit

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/werbenhu/registry/store/portmux"
)

// Limits of the lines about what failed: at most MaxLines and one for each of maxSources
// a minute.
const (
	window = time.Minute
	// MaxLinesOfSource is how many lines a source has a minute.
	MaxLinesOfSource = 20
	// MaxLines is how many lines all sources have a minute.
	MaxLines = 300
	// maxSources bounds the sources that are told apart.
	maxSources = 100
)

// others are the sources beyond maxSources.
const others = "others"

// limiter counts in windows. A window begins with the first line after the one before.
type limiter struct {
	report func(source string, dropped int)
	count  func()

	mu      sync.Mutex // guards the rest
	written int
	sources map[string]*share
	timer   *time.Timer // nil: no window
	closed  bool
}

// share is what a source had in this window.
type share struct{ written, dropped int }

// pass reports whether a line may be written.
func (l *limiter) pass(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.timer == nil {
		l.sources, l.written = make(map[string]*share), 0
		l.timer = time.AfterFunc(window, func() { l.end(false) })
	}
	s := l.sources[source]
	if s == nil && len(l.sources) >= maxSources {
		source = others
		s = l.sources[source]
	}
	if s == nil {
		s = new(share)
		l.sources[source] = s
	}
	if s.written >= MaxLinesOfSource || l.written >= MaxLines {
		s.dropped++
		if l.count != nil {
			l.count()
		}
		return false
	}
	s.written++
	l.written++
	return true
}

func (l *limiter) close() { l.end(true) }

// end ends the window and reports what was left out.
func (l *limiter) end(closed bool) {
	l.mu.Lock()
	if l.timer != nil {
		l.timer.Stop()
	}
	sources := l.sources
	l.timer, l.sources, l.closed = nil, nil, l.closed || closed
	l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		if n := sources[name].dropped; n > 0 {
			l.report(name, n)
		}
	}
}

// source is whom the lines of an address count for.
func source(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return "unknown"
	}
	name, _ := portmux.Source(net.TCPAddrFromAddrPort(at))
	return name
}
