// Package logbuffer keeps what a program under test logs. It imports no other package of
// this module, so the tests of any may import it.
package logbuffer

import (
	"bytes"
	"sync"
)

// Buffer is an empty log, safe for concurrent use.
type Buffer struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

// String is all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
