package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Network connects addresses in memory. A cut loses no data: as with TCP, data arrives
// after the heal, unless a timeout comes first.
// All methods are safe for concurrent use.
type Network struct {
	mu        sync.Mutex // guards the rest
	listeners map[string]*Listener
	cut       map[direction]bool
	isolated  map[string]bool
	crashes   map[string]int // of an address
	changed   chan struct{}  // closed and replaced by every cut and heal
}

type direction struct{ from, to string }

// NewNetwork returns a network without cuts.
func NewNetwork() *Network {
	return &Network{
		listeners: make(map[string]*Listener),
		cut:       make(map[direction]bool),
		isolated:  make(map[string]bool),
		crashes:   make(map[string]int),
		changed:   make(chan struct{}),
	}
}

// Cut cuts the direction from one address to another.
func (n *Network) Cut(from, to string) {
	n.change(func() { n.cut[direction{from, to}] = true })
}

// Isolate cuts all directions to and from an address.
func (n *Network) Isolate(addr string) { n.change(func() { n.isolated[addr] = true }) }

// Crash isolates an address and breaks its connections, as the end of its machine does:
// what is on the way is lost. The other ends see it after Join, or at their next write.
func (n *Network) Crash(addr string) {
	n.change(func() {
		n.isolated[addr] = true
		n.crashes[addr]++
	})
}

// crashesOf counts the crashes of two addresses.
func (n *Network) crashesOf(a, b string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crashes[a] + n.crashes[b]
}

// Join ends the isolation of an address.
func (n *Network) Join(addr string) { n.change(func() { delete(n.isolated, addr) }) }

// Heal ends all cuts and isolations, but isolations of the named addresses.
func (n *Network) Heal(but ...string) {
	n.change(func() {
		clear(n.cut)
		maps.DeleteFunc(n.isolated, func(addr string, _ bool) bool { return !slices.Contains(but, addr) })
	})
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// open reports whether a direction is open, and returns a channel that is closed when
// that may have changed.
func (n *Network) open(from, to string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	apart := from != to && (n.isolated[from] || n.isolated[to] || n.cut[direction{from, to}])
	return !apart, n.changed
}

// await waits until a direction is open.
func (n *Network) await(ctx context.Context, from, to string) error {
	for {
		open, changed := n.open(from, to)
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s does not reach %s: %w", from, to, context.Cause(ctx))
		}
	}
}

// ErrRefused: nothing listens at an address.
var ErrRefused error = syscall.ECONNREFUSED

// Listen opens a listener at an address.
func (n *Network) Listen(addr string) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("listen %s: address in use", addr)
	}
	l := &Listener{net: n, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial is DialContext with a timeout.
func (n *Network) Dial(from, to string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return n.DialContext(ctx, from, to)
}

// DialContext connects two addresses. Across a cut it waits for the heal, as a TCP
// handshake that is retransmitted.
func (n *Network) DialContext(ctx context.Context, from, to string) (net.Conn, error) {
	born := n.crashesOf(from, to)
	if err := errors.Join(n.await(ctx, from, to), n.await(ctx, to, from)); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.listeners[to]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
	}
	there, back := newStream(n, from, to, born), newStream(n, to, from, born)
	select {
	case l.conns <- &conn{in: there, out: back, local: to, remote: from}:
		return &conn{in: back, out: there, local: from, remote: to}, nil
	case <-l.closed:
		return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
	}
}

// Listener is a net.Listener at an address of the network.
type Listener struct {
	net       *Network
	addr      string
	conns     chan net.Conn
	closeOnce sync.Once
	closed    chan struct{}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close frees the address. Connections stay open.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.addr] == l {
			delete(l.net.listeners, l.addr)
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return address(l.addr) }

type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }
