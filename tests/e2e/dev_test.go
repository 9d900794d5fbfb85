package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDev: three nodes by one command, which all answer; a clear error when
// the ports are taken; Ctrl-C leaves nothing behind. It is plain, as dev is
// without -secure.
func TestDev(t *testing.T) {
	t.Parallel()
	needSignal(t, sigInt)
	tmp, p := t.TempDir(), freePorts(t, 9)
	flags := func(bind, addr int) []string {
		return []string{"dev", "-bind-port", strconv.Itoa(bind), "-addr-port", strconv.Itoa(addr)}
	}
	addrs := []string{local(p[3]), local(p[4]), local(p[5])}
	began := time.Now()
	dev := start(t, command{name: "dev", args: flags(p[0], p[3]), env: []string{"TMPDIR=" + tmp}})
	service := start(t, command{name: "register", args: []string{
		"register", "-group", "web", "-id", "web-1", "-addr", "127.0.0.1:8080", "-registries", addrs[0],
	}})
	answers := func(addr string) error {
		a := cli(t, "match", "-registries", addr, "web", "user-1")
		if a.code != 0 || !strings.Contains(a.stdout, "web-1") {
			return fmt.Errorf("%s: exit code %d: %s%s", addr, a.code, a.stdout, a.stderr)
		}
		return nil
	}
	for _, addr := range addrs {
		eventually(t, patience, "match on each address", func() error { return answers(addr) })
	}
	t.Logf("match answers on all three addresses %v after the start", ms(time.Since(began)))
	dev.says("registry cluster status", patience)
	dev.says("\nWeb page: http://"+addrs[0]+"/\n", patience)
	for _, addr := range addrs {
		dev.says(addr, patience)
	}

	for _, taken := range []struct {
		flags      string
		bind, addr int
		ports      []int
	}{{"-bind-port and -addr-port", p[0], p[3], p[:6]}, {"-addr-port", p[6], p[3], p[3:6]}, {"-bind-port", p[2], p[6], p[2:5]}} {
		a := cli(t, flags(taken.bind, taken.addr)...)
		ports := fmt.Sprint(taken.ports[0])
		for i, port := range taken.ports[1:] {
			ports += []string{", ", " and "}[(i+2)/len(taken.ports)] + fmt.Sprint(port)
		}
		want := "registry: ports " + ports + " are not free: address already in use\n  is another registry running? Choose another first port with " + taken.flags + "\n"
		if a.code != 1 || a.stderr != want {
			t.Errorf("second dev: exit code %d, says %q, want %q", a.code, a.stderr, want)
		}
		t.Logf("second dev: %s", strings.ReplaceAll(strings.TrimSpace(a.stderr), "\n", " | "))
	}
	if err := answers(addrs[2]); err != nil {
		t.Errorf("after the second dev: %v", err)
	}

	// With a heartbeat stream open: the nodes must not wait for its end.
	began = time.Now()
	dev.send(sigInt)
	if code := dev.ends(patience); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
	t.Logf("SIGINT ended it in %v", ms(time.Since(began)))
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	if service.hasEnded() {
		t.Errorf("the service ended with its registry: exit code %d", service.code)
	}
}

// TestDevKilledWhileItStops: a second signal ends it at once, and its data goes all
// the same. timeout(1) sends two.
func TestDevKilledWhileItStops(t *testing.T) {
	t.Parallel()
	needSignal(t, sigInt, sigTerm)
	for _, says := range []string{"starting 3 nodes", "In another terminal"} {
		tmp, p := t.TempDir(), freePorts(t, 6)
		dev := start(t, command{
			name: "dev", args: []string{"dev", "-bind-port", strconv.Itoa(p[0]), "-addr-port", strconv.Itoa(p[3])}, env: []string{"TMPDIR=" + tmp},
		})
		dev.says(says, 2*patience)
		dev.send(sigInt)
		more := time.NewTicker(time.Millisecond) // until one comes after the first was taken
		for !dev.hasEnded() {
			select {
			case <-more.C:
				_ = dev.cmd.Process.Signal(sigTerm) // it fails when it has ended
			case <-dev.exited:
			}
		}
		more.Stop()
		t.Logf("exit code %d", dev.code) // 0 when the nodes had stopped before
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left in the temporary folder: %v, %v", left, err)
		}
	}
}
