package storetest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is one direction of a connection. Writes never block; reads block while the
// network is cut.
type stream struct {
	net      *Network
	from, to string
	born     int // crashes of both ends before

	mu       sync.Mutex // guards the rest
	buf      []byte
	finished bool          // the writer closed
	broken   bool          // the reader closed
	wake     chan struct{} // closed and replaced by every change
}

func newStream(n *Network, from, to string, born int) *stream {
	return &stream{net: n, from: from, to: to, born: born, wake: make(chan struct{})}
}

func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.wake)
	s.wake = make(chan struct{})
}

// lost reports whether one end has crashed.
func (s *stream) lost() bool { return s.net.crashesOf(s.from, s.to) != s.born }

func (s *stream) write(p []byte) (n int, err error) {
	if s.lost() {
		return 0, io.ErrClosedPipe
	}
	s.change(func() {
		if s.finished || s.broken {
			err = io.ErrClosedPipe
			return
		}
		s.buf = append(s.buf, p...)
		n = len(p)
	})
	return n, err
}

// take reads what is available; it returns 0 and nil if the caller has to wait.
func (s *stream) take(p []byte, open bool) (n int, wake <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken:
		return 0, nil, net.ErrClosed
	case !open:
	case s.lost():
		return 0, nil, io.EOF
	case len(s.buf) > 0:
		n := copy(p, s.buf)
		s.buf = s.buf[n:]
		return n, nil, nil
	case s.finished:
		return 0, nil, io.EOF
	}
	return 0, s.wake, nil
}

func (s *stream) read(p []byte, d *deadline) (int, error) {
	for {
		open, changed := s.net.open(s.from, s.to)
		n, wake, err := s.take(p, open)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		passed, moved := d.wait()
		select {
		case <-wake:
		case <-changed:
		case <-moved:
		case <-passed:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// deadline is a time that may be changed while a reader waits for it.
type deadline struct {
	mu     sync.Mutex // guards the rest
	timer  *time.Timer
	passed chan struct{}
	moved  chan struct{}
}

func (d *deadline) wait() (passed, moved <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moved == nil {
		d.moved = make(chan struct{})
	}
	return d.passed, d.moved
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
	d.passed = nil
	if t.IsZero() {
		return
	}
	passed := make(chan struct{})
	d.passed = passed
	d.timer = time.AfterFunc(time.Until(t), func() { close(passed) })
}

// conn is one end of a connection.
type conn struct {
	in, out       *stream
	local, remote string
	readBy        deadline
	closeOnce     sync.Once
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p, &c.readBy) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close closes the connection; a cut delays it for the other end.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		c.readBy.set(time.Time{})
		c.out.change(func() { c.out.finished = true })
		c.in.change(func() { c.in.broken = true })
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.local) }
func (c *conn) RemoteAddr() net.Addr { return address(c.remote) }

func (c *conn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error { c.readBy.set(t); return nil }

// SetWriteDeadline does nothing: writes never block.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
