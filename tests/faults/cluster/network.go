//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// mtu is Ethernet's: what is lost is lost in packets of a usual size.
const mtu = 1500

// Link is what happens to packets in one direction between two endpoints.
type Link struct {
	Cut    bool
	Loss   float64       // 0 to 1, each packet by itself
	Delay  time.Duration // of every packet
	Jitter time.Duration // Delay varies by up to that, either way; packets overtake each other
}

// Network connects endpoints. It is safe for concurrent use.
type Network struct {
	isolated bool
	prefix   [3]byte // of addresses

	mu        sync.Mutex // guards the rest
	rand      *rand.Rand
	endpoints []*Endpoint
	byIP      map[[4]byte]*Endpoint
	links     map[[2]*Endpoint]Link
	wg        sync.WaitGroup
	closed    bool
}

// Isolation says why nodes cannot have network namespaces here; nil if they can.
func Isolation() error {
	n, err := newNamespace(true)
	if err != nil {
		return err
	}
	defer n.close()
	tun, err := n.openTUN(net.IPv4(10, 77, 0, 1), mtu)
	if err != nil {
		return err
	}
	return tun.Close()
}

// NewNetwork returns a network without endpoints. What is random in it follows
// the seed.
func NewNetwork(isolated bool, seed uint64) *Network {
	r := rand.New(rand.NewPCG(seed, 2))
	n := &Network{isolated: isolated, prefix: [3]byte{10, 77, 0}, rand: r, byIP: make(map[[4]byte]*Endpoint), links: make(map[[2]*Endpoint]Link)}
	if !isolated {
		// Another harness on this machine has other addresses, most likely.
		n.prefix = [3]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(250))}
	}
	return n
}

// Isolated says whether links can have faults.
func (n *Network) Isolated() bool { return n.isolated }

// Endpoint is one address, in a namespace of its own if the network is isolated.
type Endpoint struct {
	IP net.IP

	network *Network
	ns      *namespace
	tun     *os.File
	delayed *delayLine
}

// Attach adds an endpoint with an address that was not used before.
func (n *Network) Attach() (*Endpoint, error) {
	ns, err := newNamespace(n.isolated)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ip := [4]byte{n.prefix[0], n.prefix[1], n.prefix[2], byte(len(n.endpoints) + 1)}
	if n.closed || ip[3] == 255 {
		ns.close()
		return nil, errors.New("the network has no more addresses")
	}
	e := &Endpoint{IP: net.IP(ip[:]), network: n, ns: ns}
	if n.isolated {
		if e.tun, err = ns.openTUN(e.IP, mtu); err != nil {
			ns.close()
			return nil, err
		}
		e.delayed = newDelayLine(e.write)
		n.wg.Go(e.forward)
		n.wg.Go(e.delayed.loop)
	}
	n.endpoints = append(n.endpoints, e)
	n.byIP[ip] = e
	return e, nil
}

// Dial opens a connection from the endpoint.
func (e *Endpoint) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return e.ns.dial(ctx, addr)
}

// run calls f on the endpoint's thread.
func (e *Endpoint) run(f func() error) error { return e.ns.run(f) }

// forward passes on what the endpoint sends, until its device is closed.
func (e *Endpoint) forward() {
	buf := make([]byte, mtu+64)
	for {
		size, err := e.tun.Read(buf)
		if err != nil {
			return
		}
		packet := buf[:size]
		if size < 20 || packet[0]>>4 != 4 {
			continue // not IPv4: neighbours looking for each other
		}
		to, link, ok := e.network.route(e, [4]byte(packet[16:20]))
		switch {
		case !ok || link.Cut:
		case link.Delay > 0:
			to.delayed.add(append([]byte(nil), packet...), time.Now().Add(link.Delay))
		default:
			to.write(packet)
		}
	}
}

// write gives the endpoint a packet. A device that is full or closed loses it.
func (e *Endpoint) write(packet []byte) { _, _ = e.tun.Write(packet) }

// route finds the receiver, and what the link does to this one packet.
func (n *Network) route(from *Endpoint, ip [4]byte) (*Endpoint, Link, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.byIP[ip]
	if to == nil {
		return nil, Link{}, false
	}
	link := n.links[[2]*Endpoint{from, to}]
	if link.Loss > 0 && n.rand.Float64() < link.Loss {
		link.Cut = true
	}
	if link.Jitter > 0 {
		link.Delay += time.Duration((n.rand.Float64()*2 - 1) * float64(link.Jitter))
	}
	return to, link, true
}

// SetLink says what happens to packets from one endpoint to another.
func (n *Network) SetLink(from, to *Endpoint, link Link) error {
	if !n.isolated {
		return errors.New("links have faults only between network namespaces")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]*Endpoint{from, to}] = link
	return nil
}

// Heal takes all faults of links back.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
}

// Close ends the endpoints, and with them whatever was started in them.
func (n *Network) Close() error {
	n.mu.Lock()
	endpoints := n.endpoints
	n.closed = true
	n.mu.Unlock()
	var errs []error
	for _, e := range endpoints {
		if e.tun != nil {
			if err := e.tun.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				errs = append(errs, fmt.Errorf("close the device of %v: %w", e.IP, err))
			}
			e.delayed.close()
		}
		e.ns.close()
	}
	n.wg.Wait()
	return errors.Join(errs...)
}
