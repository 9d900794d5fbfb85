package sdk

import (
	"context"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/test/bufconn"
)

// fakeNet has the listeners of fake nodes. Their connections are in memory, so that time
// in a bubble of testing/synctest stands still while something is on its way: no stall of
// the machine is one for a test.
var fakeNet = struct {
	mu    sync.Mutex // guards the rest
	last  int        // port that was given
	ports map[string]*bufconn.Listener
}{last: 1 << 16, ports: map[string]*bufconn.Listener{}}

// listenFake listens at an address that was used before, or at a new one if it is empty.
func listenFake(t *testing.T, addr string) (*bufconn.Listener, string) {
	t.Helper()
	lis := bufconn.Listen(256 << 10)
	fakeNet.mu.Lock()
	defer fakeNet.mu.Unlock()
	if addr == "" {
		fakeNet.last--
		addr = "192.0.2.1:" + strconv.Itoa(fakeNet.last)
	}
	fakeNet.ports[addr] = lis
	return lis, addr
}

// dialFake connects to a fake node. It refuses what no node listens at.
func dialFake(ctx context.Context, addr string) (net.Conn, error) {
	fakeNet.mu.Lock()
	lis := fakeNet.ports[addr]
	fakeNet.mu.Unlock()
	if lis != nil {
		if conn, err := lis.DialContext(ctx); err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}
