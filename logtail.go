package registry

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// Limits of the log lines that a node keeps in memory.
const (
	tailLines = 1000
	tailBytes = 256 << 10
	tailLine  = 4 << 10 // a longer line is cut off
)

// logTail keeps the newest lines of a node's log, for a diagnosis.
type logTail struct {
	mu    sync.Mutex // guards the rest
	lines [][]byte
	size  int
}

// Write takes one line.
func (t *logTail) Write(line []byte) (int, error) {
	kept := slices.Clone(line[:min(len(line), tailLine)])
	if len(kept) < len(line) {
		kept[len(kept)-1] = '\n'
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines, t.size = append(t.lines, kept), t.size+len(kept)
	for len(t.lines) > tailLines || t.size > tailBytes {
		t.size -= len(t.lines[0])
		t.lines[0], t.lines = nil, t.lines[1:]
	}
	return len(line), nil
}

// text is all of it, oldest first.
func (t *logTail) text() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Concat(t.lines...)
}

// with returns a logger that writes to the tail, too, what own takes.
func (t *logTail) with(own *slog.Logger) *slog.Logger {
	text := slog.NewTextHandler(t, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(slog.NewMultiHandler(own.Handler(), tailHandler{text, own.Handler()}))
}

// tailHandler is enabled while the node's own handler is.
type tailHandler struct {
	slog.Handler
	own slog.Handler
}

func (h tailHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.own.Enabled(ctx, level)
}

func (h tailHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tailHandler{h.Handler.WithAttrs(attrs), h.own}
}

func (h tailHandler) WithGroup(name string) slog.Handler {
	return tailHandler{h.Handler.WithGroup(name), h.own}
}
