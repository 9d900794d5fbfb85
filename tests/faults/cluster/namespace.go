//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a thread of this process, in a network namespace of its own
// unless there are none. Processes are started from it: they are in its
// namespace, and die with it.
type namespace struct {
	work chan func()
	done chan struct{}
	once sync.Once
	net  *os.File // the namespace, to open sockets in; nil: the machine's own
}

func newNamespace(isolated bool) (*namespace, error) {
	n := &namespace{work: make(chan func()), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(n.done)
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		started <- n.enter(isolated)
		for f := range n.work {
			f()
		}
	}()
	if err := <-started; err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *namespace) enter(isolated bool) (err error) {
	if !isolated {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	return configure("lo", func(s int, r *unix.Ifreq) error { return up(s, r) })
}

// run calls f on the namespace's thread.
func (n *namespace) run(f func() error) error {
	var err error
	finished := make(chan struct{})
	select {
	case n.work <- func() { defer close(finished); err = f() }:
		<-finished
		return err
	case <-n.done:
		return net.ErrClosed
	}
}

// close ends the thread; the kernel kills the processes that it started.
func (n *namespace) close() {
	n.once.Do(func() { close(n.work) })
	<-n.done
	if n.net != nil {
		_ = n.net.Close() // only read from
	}
}

// userTimeout is how long a client's data may stay unacknowledged. Without it
// a connection that was cut for a while waits for TCP's next retransmission.
const userTimeout = 2 * time.Second

// dial opens a connection from the namespace. A socket belongs to the
// namespace of the thread that made it, wherever it is used.
func (n *namespace) dial(ctx context.Context, addr string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	if n.net == nil {
		return dialer.DialContext(ctx, "tcp4", addr)
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }() // only read from
	type result struct {
		conn net.Conn
		err  error
	}
	answer := make(chan result, 1)
	go func() { // a thread that cannot go home ends with this goroutine
		runtime.LockOSThread()
		if err := unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET); err != nil {
			answer <- result{nil, fmt.Errorf("enter a network namespace: %w", err)}
			return
		}
		conn, err := dialer.DialContext(ctx, "tcp4", addr)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		answer <- result{conn, err}
	}()
	r := <-answer
	return r.conn, r.err
}

// openTUN makes the namespace's one interface; what it sends is read from the file.
func (n *namespace) openTUN(ip net.IP, mtu uint32) (tun *os.File, err error) {
	err = n.run(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq("tun0")
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
		}
		tun = os.NewFile(uintptr(fd), "tun0")
		return configure("tun0", func(s int, r *unix.Ifreq) error { return address(s, r, ip, mtu) })
	})
	if err != nil && tun != nil {
		return nil, errors.Join(err, tun.Close())
	}
	return tun, err
}

// configure calls f with a socket and a request for the interface.
func configure(name string, f func(socket int, r *unix.Ifreq) error) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = f(s, r)
	}
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	return nil
}

func up(s int, r *unix.Ifreq) error {
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

func address(s int, r *unix.Ifreq, ip net.IP, mtu uint32) error {
	if err := r.SetInet4Addr(ip.To4()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCSIFADDR, r); err != nil {
		return err
	}
	if err := r.SetInet4Addr(net.IPv4(255, 255, 255, 0).To4()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCSIFNETMASK, r); err != nil {
		return err
	}
	r.SetUint32(mtu)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, r); err != nil {
		return err
	}
	return up(s, r)
}
