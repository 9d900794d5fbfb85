package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeRefused: a node that cannot be what its flags say ends by itself
// with a clear message, and the cluster that it asked is none the worse.
func TestNodeRefused(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	first := c.nodes[0]
	keptMember(t, first.addr)
	before := c.quiet(1)

	t.Run("no id", func(t *testing.T) {
		start(t, command{name: "no-id", args: []string{"-bind", ":1"}}).refused(2, "-id is required")
	})
	t.Run("bind port in use", func(t *testing.T) {
		n := newNode(t, "other")
		n.bind = first.bind
		n.startRefused(t, 1, "-bind "+first.bind, "in use", "Choose other ports")
	})
	t.Run("client port in use", func(t *testing.T) {
		n := newNode(t, "other")
		n.addr = first.addr
		n.startRefused(t, 1, "-addr "+first.addr, "in use", "Choose other ports")
	})
	t.Run("data directory under a file", func(t *testing.T) {
		n := newNode(t, "other")
		file := filepath.Join(t.TempDir(), "file")
		write(t, file)
		n.dir = filepath.Join(file, "data")
		n.startRefused(t, 1, n.dir)
	})
	t.Run("unwritable data directory", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may write everywhere")
		}
		n := newNode(t, "other")
		if err := os.Mkdir(n.dir, 0o500); err != nil {
			t.Fatal(err)
		}
		n.startRefused(t, 1, n.dir, "permission denied")
	})
	t.Run("foreign data directory", func(t *testing.T) {
		n := newNode(t, "other")
		n.dir = t.TempDir()
		write(t, filepath.Join(n.dir, "precious.txt"))
		n.startRefused(t, 1, n.dir, "precious.txt", "-data-dir")
		if left, err := os.ReadDir(n.dir); err != nil || len(left) != 1 {
			t.Errorf("left in the foreign directory: %v, %v", left, err)
		}
	})
	t.Run("another node's data directory", func(t *testing.T) {
		n := newNode(t, "other")
		n.dir = first.dir
		n.startRefused(t, 1, first.dir, `belongs to node "node-1"`, "-id")
	})
	t.Run("data directory of another cluster", func(t *testing.T) {
		n := newNode(t, first.id)
		n.dir = first.dir
		start(t, command{name: "other", args: n.args("-cluster", "other")}).refused(1, `belongs to cluster "registry"`, "-cluster")
	})
	t.Run("data directory in use", func(t *testing.T) {
		n := newNode(t, first.id)
		n.dir = first.dir
		n.startRefused(t, 1, first.dir, "another process uses it")
	})
	t.Run("joining a dead address", func(t *testing.T) {
		n := newNode(t, "other")
		began := time.Now()
		start(t, command{name: "other", args: n.args("-registries", "127.0.0.1:1", "-join-timeout", "1s")}).refused(4, "127.0.0.1:1", "-join-timeout")
		t.Logf("gave up after %v", ms(time.Since(began)))
	})
	t.Run("joining another cluster", func(t *testing.T) {
		n := newNode(t, "other")
		start(t, command{name: "other", args: n.args("-registries", first.bind, "-cluster", "other", "-join-timeout", "3s")}).refused(4, "registry://registry/node/node-1", "registry://other/node/ID")
	})
	t.Run("joining without the secret", func(t *testing.T) {
		n := newNode(t, "other")
		start(t, command{name: "other", args: n.args("-registries", first.bind, "-join-timeout", "1s", "-secret-file=")}).refused(4, first.bind, "-join-timeout")
		first.says("reason=plain", patience)
	})
	t.Run("id is taken", func(t *testing.T) {
		n := newNode(t, first.id)
		start(t, command{name: "other", args: n.args("-registries", first.bind)}).refused(4, `"node-1" is taken`, "-id", "cluster remove node-1")
	})
	t.Run("advertised address without a host", func(t *testing.T) { advertiseWithoutHost(t) })

	after := c.quiet(1)
	checkNothingLogged(t, before, after)
	if memberOf(t, first.addr, "kept", "web-1") == nil {
		t.Error("the member is gone")
	}
}

// advertiseWithoutHost expects what this machine makes of it: the one private
// address that is not of Docker or another bridge, or an error that names the flag.
func advertiseWithoutHost(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var private []string
	for _, i := range interfaces {
		_, bridge := os.Stat("/sys/class/net/" + i.Name + "/bridge")
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if n, is := a.(*net.IPNet); is && bridge != nil && n.IP.IsPrivate() && n.IP.To4() != nil {
				private = append(private, n.IP.String())
			}
		}
	}
	n, p := newNode(t, "alone"), freePorts(t, 2)
	_, bind, _ := net.SplitHostPort(local(p[0]))
	_, addr, _ := net.SplitHostPort(local(p[1]))
	proc := start(t, command{name: n.id, args: []string{"-id", n.id, "-data-dir", n.dir, "-bind", ":" + bind, "-addr", ":" + addr}})
	t.Logf("private addresses: %d", len(private))
	if len(private) != 1 {
		proc.refused(2, "-bind-advertise", "HOST:PORT")
		return
	}
	proc.says("ready", patience)
	if want := net.JoinHostPort(private[0], bind); !strings.Contains(proc.log.text(), want) {
		t.Errorf("does not advertise %s:\n%s", want, proc.log.tail(10))
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("in the way\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
