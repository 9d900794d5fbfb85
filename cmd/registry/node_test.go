package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// These tests run real nodes in this process.

// firstPort is where freePorts begins, and takenPorts is how many it returned: no two
// of its calls return the same one.
var (
	firstPort  = rand.IntN(10_000)
	takenPorts atomic.Int64
)

// freePorts returns the first of n free ports in a row.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		// Below the ports that the system gives to sockets of other tests, and those of
		// the tests with real processes.
		base := 10_000 + (firstPort+int(takenPorts.Add(int64(n)))-n)%(10_000-n)
		var open []net.Listener
		for i := range n {
			if l, err := net.Listen("tcp", local(base+i)); err == nil {
				open = append(open, l)
			}
		}
		for _, l := range open {
			l.Close()
		}
		if len(open) == n {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func TestDev(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	bind, addr := freePorts(t, devNodes), freePorts(t, devNodes)
	ports := []string{"-bind-port", strconv.Itoa(bind), "-addr-port", strconv.Itoa(addr)}
	r := start(t, append([]string{"dev", "-json"}, ports...)...)
	var d devJSON
	if err := json.NewDecoder(r.stdout).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if len(d.Nodes) != devNodes || d.Nodes[2].Addr != local(addr+2) || d.Nodes[2].Bind != local(bind+2) || d.Cluster != devName || d.Page != "http://"+local(addr)+"/" || filepath.Dir(d.DataDir) != tmp {
		t.Errorf("%+v", d)
	}
	if last := d.Commands[len(d.Commands)-1]; !strings.HasSuffix(last, " ring stats -registries "+local(addr)+","+local(addr+1)+","+local(addr+2)+" web") {
		t.Error(last)
	}

	all := local(addr) + "," + local(addr+1) + "," + local(addr+2)
	for _, load := range [][]string{{"register", "-batch", "10"}, {"members", "-members", "5"}, {"mixed", "-members", "5"}, {"watch", "-members", "5", "-rate", "50"}} {
		bench(t, append(load, "-groups", "2", "-callers", "4", "-duration", "200ms", "-registries", all)...)
	}
	bench(t, "failover", "-duration", "200ms", "-registries", all)
	t.Setenv("REGISTRY_ADDRS", local(addr))
	if out := ok(t, "groups", "-linearizable"); strings.Contains(out, "bench-") {
		t.Errorf("groups are left: %s", out)
	}
	service := start(t, "register", "-group", "web", "-id", "w1", "-addr", "127.0.0.1:8080", "--", "sh", "-c", "echo up; exec sleep 60")
	service.until("up")
	if st := led(t, local(addr)); len(st.Nodes) != devNodes {
		t.Errorf("%+v", st)
	}
	for i := range devNodes {
		out := ok(t, "match", "-linearizable", "-registries", local(addr+i), "web", "user-1")
		if !strings.Contains(out, "w1     127.0.0.1:8080") {
			t.Errorf("node %d: %s", i, out)
		}
		untilServing(t, addr+i)
		ok(t, "ring", "show", "-registries", local(addr+i), "web")
	}
	ok(t, "ring", "digest", "web")
	if r := execute(t, t.Context(), "", append([]string{"dev"}, ports...)...); r.code != exitFailure || !strings.Contains(r.stderr, "-bind-port and -addr-port") ||
		!strings.Contains(r.stderr, strconv.Itoa(bind)) || !strings.Contains(r.stderr, strconv.Itoa(addr+2)) {
		t.Errorf("ports in use: %+v", r)
	}
	service.cancel(nil)
	service.wait(128 + 15)
	if out := ok(t, "members", "-linearizable", "web"); strings.Contains(out, "w1") {
		t.Errorf("still there: %s", out)
	}
	r.cancel(nil)
	r.wait(exitOK)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// lostLeader is what a machine that stalls all nodes makes of a call.
var lostLeader = regexp.MustCompile(`outcome unknown|leadership lost|not the leader|no leader`)

// bench measures calls of which none may fail, but by the loss of the leader.
func bench(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"bench"}, args...)
	r := execute(t, t.Context(), "", args...)
	for again := 0; again < 5 && lostLeader.MatchString(r.stdout+r.stderr); again++ {
		r = execute(t, t.Context(), "", args...)
	}
	if r.code != exitOK || !strings.Contains(r.stdout, " 0 errors") || strings.Contains(r.stdout, " 0/s") {
		t.Errorf("%q: %+v", args, r)
	}
}

// led is the status of a cluster that has a leader: while one is elected, the command fails.
func led(t *testing.T, addr string) (st statusJSON) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		r := execute(t, t.Context(), "", "cluster", "status", "-json", "-registries", addr)
		if r.code == exitOK {
			if err := json.Unmarshal([]byte(r.stdout), &st); err != nil || st.Leader == "" {
				t.Errorf("%+v, %v", st, err)
			}
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("no leader within %v: %+v", patience, r)
		}
	}
}

// A locked cluster: only clients with the authority and the token that dev names get an
// answer, and its files go with the data.
func TestDevSecure(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ports := []string{"-bind-port", strconv.Itoa(freePorts(t, devNodes)), "-addr-port", strconv.Itoa(freePorts(t, devNodes))}
	r := start(t, append([]string{"dev", "-secure", "-json"}, ports...)...)
	var d devJSON
	if err := json.NewDecoder(r.stdout).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if len(d.Env) != 2 || d.Env[0].Name != "REGISTRY_CA" || d.Env[1].Name != "REGISTRY_TOKEN_FILE" {
		t.Fatalf("%+v", d.Env)
	}
	if d.Page != "https://"+d.Nodes[0].Addr+"/" {
		t.Error(d.Page)
	}
	at := d.Nodes[devNodes-1]
	if r := execute(t, t.Context(), "", "cluster", "status", "-registries", at.Addr); r.code != exitUnavailable || !strings.Contains(r.stderr, "speaks TLS") {
		t.Errorf("without the authority: %+v", r)
	}
	t.Setenv(d.Env[0].Name, d.Env[0].Value)
	if r := execute(t, t.Context(), "", "cluster", "status", "-registries", at.Addr); r.code != exitDenied || !strings.Contains(r.stderr, "REGISTRY_TOKEN_FILE") {
		t.Errorf("without a token: %+v", r)
	}
	t.Setenv(d.Env[1].Name, d.Env[1].Value)
	if info, err := os.Stat(d.Env[1].Value); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info, err)
	}
	if st := led(t, at.Addr); len(st.Nodes) != devNodes {
		t.Errorf("%+v", st)
	}
	conn, err := tls.Dial("tcp", at.Bind, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the bind port takes an unknown caller: %v", err)
	}
	r.cancel(nil)
	r.wait(exitOK)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// serveNode starts a node with the flags of the first version of this program.
func serveNode(t *testing.T, dir, id string, bind, addr int, more ...string) *running {
	t.Helper()
	args := []string{
		fmt.Sprintf("-bind=:%d", bind), fmt.Sprintf("-bind-advertise=%s", local(bind)), "-id=" + id,
		fmt.Sprintf("-addr=:%d", addr), fmt.Sprintf("-advertise=%s", local(addr)), "-data-dir", filepath.Join(dir, id),
	}
	return start(t, append(args, more...)...)
}

// untilServing waits until a node answers: a command gives up when it refuses.
func untilServing(t *testing.T, port int) {
	t.Helper()
	untilHealthy(t, local(port))
}

func untilHealthy(t *testing.T, addr string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		r := execute(t, t.Context(), "", "health", "-addr", addr)
		if r.code == exitOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not serving within %v: %+v", patience, r)
		}
	}
}

// TestServe: a node forms a cluster, a second one joins it, and a restart needs
// to know neither.
func TestServe(t *testing.T) {
	dir, port := t.TempDir(), freePorts(t, 4)
	t.Setenv("REGISTRY_ADDRS", local(port+1))
	first := serveNode(t, dir, "service-1", port, port+1)
	untilServing(t, port+1)
	ok(t, "groups", "-linearizable")
	second := serveNode(t, dir, "service-2", port+2, port+3, "-registries="+local(port))
	untilServing(t, port+3)
	ok(t, "group", "set", "web", "-virtual-nodes", "128")
	ok(t, "group", "get", "web", "-linearizable", "-registries", local(port+3))
	// The environment names a proxy that refuses connections, from which this
	// address of the machine is not exempt.
	beyond := net.JoinHostPort("0.0.0.0", strconv.Itoa(port+1))
	untilHealthy(t, beyond)
	bench(t, "register", "-groups", "1", "-callers", "1", "-duration", "50ms", "-registries", beyond)

	t.Run("port in use", func(t *testing.T) {
		r := serveNode(t, dir, "service-3", port, port+1)
		r.wait(exitFailure)
		if says := r.stderr.String(); !strings.Contains(says, "-bind") || !strings.Contains(says, "Choose other ports") {
			t.Error(says)
		}
	})
	t.Run("id taken", func(t *testing.T) {
		free := freePorts(t, 2)
		r := serveNode(t, t.TempDir(), "service-2", free, free+1, "-registries="+local(port), "-join-timeout=5s")
		r.wait(exitConflict)
	})
	second.cancel(nil)
	second.wait(exitOK)
	second = serveNode(t, dir, "service-2", port+2, port+3)
	untilServing(t, port+3)
	ok(t, "group", "get", "web", "-linearizable", "-registries", local(port+3))
	for _, r := range []*running{second, first} {
		r.cancel(nil)
		r.wait(exitOK)
	}
}

func TestServeByEnvironment(t *testing.T) {
	port := freePorts(t, 2)
	for name, value := range map[string]string{
		"ID": "env-1", "BIND": local(port), "ADDR": local(port + 1), "DATA_DIR": t.TempDir(),
		"LOG_FORMAT": "json", "CLUSTER": "by-env", "ADDRS": local(port + 1),
	} {
		t.Setenv("REGISTRY_"+name, value)
	}
	r := start(t)
	untilServing(t, port+1)
	ok(t, "groups", "-linearizable")
	if out := ok(t, "cluster", "status"); !strings.Contains(out, "cluster by-env") || !strings.Contains(out, "env-1") {
		t.Error(out)
	}
	ok(t, "health") // REGISTRY_ADDR is this container's own node
	r.cancel(nil)
	r.wait(exitOK)
	for line := range strings.Lines(r.stderr.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "in the way")
	port := freePorts(t, 2)
	base := fmt.Sprintf("-id a -bind %s -addr %s ", local(port), local(port+1))
	tests := []struct {
		name, args string
		code       int
		says       string
	}{
		{"bad bind", "-id a -bind nowhere", exitUsage, "-bind"},
		{"bad advertise", "-id a -advertise nowhere", exitUsage, "-advertise"},
		{"bad registries", base + "-registries nowhere", exitUsage, "-registries"},
		{"id with a slash", base + "-id a/b -data-dir d", exitUsage, "-id"},
		{"election timeout", base + "-election-timeout 1ms", exitUsage, "-election-timeout"},
		{"ring memory", base + "-ring-memory 1MiB", exitUsage, "-ring-memory"},
		{"cert without key", base + "-cert a", exitUsage, "-cert: needs -key"},
		{"key without cert", base + "-key a", exitUsage, "-key: needs -cert"},
		{"client CA without TLS", base + "-client-ca a", exitUsage, "-client-ca: needs -cert and -key"},
		{"client auth without CA", base + "-cert a -key b -client-auth require", exitUsage, "-client-auth: needs -client-ca"},
		{"client auth", base + "-cert a -key b -client-ca c -client-auth maybe", exitUsage, "-client-auth: must be require or verify-if-given"},
		{"TLS 1.2 without TLS", base + "-tls12", exitUsage, "-tls12: needs -cert and -key"},
		{"no such cert", base + "-cert /none -key /none -data-dir " + t.TempDir(), exitUsage, "/none"},
		{"data directory is a file", base + "-data-dir " + file, exitFailure, file},
		{"joining a dead address", base + "-join-timeout 300ms -registries 127.0.0.1:1 -data-dir " + t.TempDir(), exitConflict, "127.0.0.1:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := execute(t, t.Context(), "", append([]string{"serve"}, strings.Fields(tt.args)...)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || r.stdout != "" {
				t.Errorf("want exit code %d, got %+v", tt.code, r)
			}
		})
	}
}

// The log of a node that stopped moves both ways; that of one that runs does not.
func TestMigrateLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	bind, addr := freePorts(t, 1), freePorts(t, 1)
	node := []string{"serve", "-id", "n1", "-bind", local(bind), "-addr", local(addr), "-data-dir", dir}
	t.Setenv("REGISTRY_ADDRS", local(addr))
	n := start(t, append(node, "-log-store", "boltdb")...)
	untilServing(t, addr)
	ok(t, "group", "set", "-virtual-nodes", "128", "web")
	if r := execute(t, t.Context(), "", "migrate-log", "-data-dir", dir, "-to", "wal"); r.code != exitFailure || !strings.Contains(r.stderr, "stop the node first") {
		t.Errorf("while it runs: %+v", r)
	}
	n.cancel(nil)
	n.wait(exitOK)
	if r := execute(t, t.Context(), "", append(node, "-log-store", "wal")...); r.code != exitFailure || !strings.Contains(r.stderr, "registry migrate-log -data-dir "+dir+" -to wal") {
		t.Errorf("another -log-store: %+v", r)
	}
	for _, to := range []string{"wal", "boltdb", "wal"} {
		if out := ok(t, "migrate-log", "-data-dir", dir, "-to", to); !strings.Contains(out, "moved entries 1 to") {
			t.Errorf("to %s: %s", to, out)
		}
		if out := ok(t, "migrate-log", "-data-dir", dir, "-to", to); !strings.Contains(out, "already") {
			t.Errorf("to %s again: %s", to, out)
		}
		if out := ok(t, "migrate-log", "-data-dir", dir, "-to", to, "-json"); !strings.Contains(out, `"moved": false,`) || !strings.Contains(out, `"to": "`+to+`"`) {
			t.Errorf("to %s again: %s", to, out)
		}
		n := start(t, append(node, "-log-store", to)...)
		untilServing(t, addr)
		if out := ok(t, "group", "get", "-linearizable", "web"); !strings.Contains(out, "128") {
			t.Errorf("in %s: %s", to, out)
		}
		n.cancel(nil)
		n.wait(exitOK)
	}
	if r := execute(t, t.Context(), "", "compact", "-data-dir", dir); r.code != exitFailure || !strings.Contains(r.stderr, "in segments") {
		t.Errorf("compact: %+v", r)
	}
	ok(t, "migrate-log", "-data-dir", dir, "-to", "boltdb")
	if out := ok(t, "compact", "-data-dir", dir); !strings.Contains(out, "raft.db in "+dir) {
		t.Errorf("compact: %s", out)
	}
	if out := ok(t, "compact", "-data-dir", dir, "-json"); !strings.Contains(out, `"bytes_before": `) {
		t.Errorf("compact: %s", out)
	}
	for _, args := range [][]string{{"-to", "wal"}, {"-data-dir", dir}, {"-data-dir", dir, "-to", "disk"}} {
		if r := execute(t, t.Context(), "", append([]string{"migrate-log"}, args...)...); r.code != exitUsage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
