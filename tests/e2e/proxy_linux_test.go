package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enterNetwork moves the calling goroutine, and the thread that it keeps until leave,
// into a new network namespace. The thread goes back, because it may have started
// processes of other tests: the kernel kills those when it ends.
func enterNetwork() (leave func() error, err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, errors.Join(err, home.Close())
	}
	return func() error {
		err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		if err == nil { // else the thread ends with the goroutine
			runtime.UnlockOSThread()
		}
		return errors.Join(err, home.Close())
	}, nil
}

// network moves the test into a network namespace of its own, in which this
// machine has all addresses of 198.51.100.0/24. That holds for the processes and
// sockets that the test's own goroutine makes, and for no others.
func network(t *testing.T) {
	t.Helper()
	leave, err := enterNetwork()
	if err != nil {
		t.Skipf("no network namespace can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := leave(); err != nil {
			t.Errorf("leave the network namespace: %v", err)
		}
	})
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(s) }()
	lo, err1 := unix.NewIfreq("lo")
	alias, err2 := unix.NewIfreq("lo:1")
	if err := errors.Join(err1, err2, alias.SetInet4Addr(net.IPv4(198, 51, 100, 1).To4())); err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	err1 = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
	err2 = unix.IoctlIfreq(s, unix.SIOCSIFADDR, alias) // with the mask of its class, 24 bits
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("configure the namespace: %v", err)
	}
}

// forwardProxy takes connections as a proxy does, notes what is asked of it, and
// serves nothing.
type forwardProxy struct {
	t    *testing.T
	addr string

	mu    sync.Mutex // guards asked
	asked []string
}

func startProxy(t *testing.T, addr string) *forwardProxy {
	t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &forwardProxy{t: t, addr: addr}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			line, _ := bufio.NewReader(conn).ReadString('\n') // what is there says enough
			_ = conn.Close()
			p.mu.Lock()
			p.asked = append(p.asked, fmt.Sprintf("%q", line))
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = lis.Close(); <-done })
	return p
}

// env names the proxy by every variable that programs read.
func (p *forwardProxy) env() (env []string) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		env = append(env, name+"=http://"+p.addr, strings.ToLower(name)+"=http://"+p.addr)
	}
	return append(env, "NO_PROXY=", "no_proxy=")
}

// unasked fails the test if anything was asked of the proxy.
func (p *forwardProxy) unasked(by string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) > 0 {
		p.t.Fatalf("%s: %d connections to the proxy: %s", by, len(p.asked), slices.Compact(p.asked))
	}
}

// cli is the program's, and must succeed.
func (p *forwardProxy) cli(args ...string) string {
	p.t.Helper()
	a := cliWith(p.t, "", p.env(), args...)
	p.unasked(args[0])
	if a.code != 0 {
		p.t.Fatalf("registry %q: exit code %d:\n%s", args, a.code, a.stderr)
	}
	return a.stdout
}

// get asks a gateway for who serves a user. It connects on the test's goroutine.
func get(t *testing.T, addr, user string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
	req.Header.Set("X-User-ID", user)
	if err := req.Write(conn); err != nil {
		return 0, err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	line, _ := bufio.NewReader(resp.Body).ReadString('\n') // the status says enough
	return resp.StatusCode, line
}

// TestNetworkKeepsItsThread: a test in a namespace does not end the processes that
// other tests started on its thread.
func TestNetworkKeepsItsThread(t *testing.T) {
	t.Parallel()
	const threads = 2 // one may be the main thread, which never ends
	ended, skipped := make(chan error, threads), make(chan error, threads)
	var together, work sync.WaitGroup
	together.Add(threads)
	for range threads {
		work.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			together.Done()
			together.Wait()
			other := exec.Command("sleep", "60")
			ownGroup(other)
			if err := other.Start(); err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = other.Process.Kill() }) // it may have ended
			go func() { ended <- other.Wait() }()
			leave, err := enterNetwork()
			if err == nil {
				err = leave()
			}
			if err != nil {
				skipped <- err
			}
		})
	}
	work.Wait()
	select {
	case err := <-skipped:
		t.Skipf("no network namespace can be made: %v", err)
	default:
	}
	select {
	case err := <-ended:
		t.Errorf("a process ended with a namespace: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
}

// TestProxyIsNotAsked: with the proxy variables set, and on addresses that are
// not loopback, which is exempt, nodes form a cluster, and services, routers and
// every command reach it; the proxy gets no connection.
func TestProxyIsNotAsked(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	network(t)
	lock(t)
	proxy := startProxy(t, "198.51.100.200:3128")
	var nodes []*node
	var binds, clients []string
	for i := range 3 {
		host := fmt.Sprintf("198.51.100.%d", i+1)
		n := &node{t: t, id: fmt.Sprintf("node-%d", i+1), bind: host + ":7370", addr: host + ":9800", dir: filepath.Join(t.TempDir(), "data")}
		nodes, binds, clients = append(nodes, n), append(binds, n.bind), append(clients, n.addr)
	}
	for _, n := range nodes {
		args := n.args("-bootstrap-expect", "3", "-registries", strings.Join(binds, ","))
		n.process = start(t, command{name: n.id, args: args, env: proxy.env()})
	}
	to := []string{"-registries", strings.Join(clients, ",")}
	with := func(args ...string) []string { return append(args, to...) }
	eventually(t, patience, "three nodes are ready", func() error {
		proxy.unasked("forming the cluster")
		if a := cliWith(t, "", proxy.env(), with("health")...); a.code != 0 {
			return fmt.Errorf("health: exit code %d: %s", a.code, a.stderr)
		}
		return nil
	})
	proxy.cli(with("health")...)
	initTokens(t, proxy.env(), nodes[0].addr)
	proxy.unasked("token init")

	registered := start(t, command{name: "register", env: proxy.env(), args: with("register", "-group", "db", "-id", "db1", "-addr", "198.51.100.9:5432")})
	registered.says("registered at", patience)
	service := start(t, command{name: "webservice", program: "webservice", env: proxy.env(), args: with("-id", "web1", "-addr", "198.51.100.10:8080")})
	service.says("INFO registered", patience)
	gateway := start(t, command{name: "gateway", program: "gateway", env: proxy.env(), args: with("-addr", "198.51.100.11:8000")})
	eventually(t, patience, "a user is served by way of the gateway", func() error {
		proxy.unasked("gateway")
		if code, body := get(t, "198.51.100.11:8000", "alice"); code != http.StatusOK || !strings.Contains(body, "web1") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	for _, args := range [][]string{
		append(with("members", "-linearizable"), "db"), append(with("match", "-linearizable"), "webservice-group", "alice"), with("groups"),
		append(with("watch", "-n", "1"), "db"), append(with("ring", "digest"), "db"), with("cluster", "status"),
	} {
		proxy.cli(args...)
	}
	out := proxy.cli(with("bench", "register", "-groups", "1", "-callers", "3", "-conns", "1", "-duration", "100ms")...)
	if !strings.Contains(out, " 0 errors") {
		t.Errorf("bench: %s", out)
	}
	proxy.cli(with("cluster", "transfer")...)
	for _, p := range []*process{gateway, service, registered} {
		p.stop()
	}
	for _, n := range nodes {
		n.stop()
	}
	proxy.unasked("all of it")
}
