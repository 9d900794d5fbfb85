package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// free is an address where nobody listens.
func free(t *testing.T) string { return local(freePorts(t, 1)) }

// TestRefusedByAll: a command gives up as soon as every address has refused,
// with one line for each.
func TestRefusedByAll(t *testing.T) {
	f := withWeb(t)
	a, b := free(t), free(t)
	for _, args := range []string{
		"members web", "groups", "match web user-1", "ring stats web", "cluster status", "member drain -group web -id web-1",
		"deregister -group web -id web-1", "group set web -virtual-nodes 128", "cluster remove n1", "watch web", "watch -prefix",
		"bench register", "bench heartbeat", "bench match",
	} {
		began := time.Now()
		r := execute(t, t.Context(), "", append(strings.Fields(args), "-registries", a+","+b, "-timeout", "30s")...)
		took := time.Since(began)
		want := "registry: no node can be reached\n  " + a + ": connection refused\n  " + b + ": connection refused\n"
		if r.code != exitUnavailable || r.stderr != want || took > 5*time.Second {
			t.Errorf("%s: after %v: %+v", args, took, r)
		}
	}
	ok(t, "members", "web", "-registries", a+","+f.addr)
}

// TestNoClusterRuns: a command that was given no address says how to get a cluster;
// none prints what gRPC says.
func TestNoClusterRuns(t *testing.T) {
	l, err := net.Listen("tcp", defaultClientAddr)
	if err != nil {
		t.Skipf("a cluster may be running here: %v", err)
	}
	l.Close()
	for args, says := range map[string]string{
		"members web": "", "cluster status": "", "deregister -group web -id web-1": "", "group delete -force web": "", "watch web": "",
		"register -group web -id web-1 -addr h:1 -timeout 2s": "", "bench register": "", "bench match": "",
		"health": "registry: " + defaultClientAddr + ": connection refused\n",
	} {
		if says == "" {
			says = "registry: no node can be reached\n  " + defaultClientAddr + ": connection refused\n"
		}
		r := execute(t, t.Context(), "", strings.Fields(args)...)
		if r.code != exitUnavailable || !strings.HasSuffix(r.stderr, says+"  "+startHint+"\n") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	t.Setenv("REGISTRY_ADDRS", free(t))
	for _, args := range []string{"members web", "bench register", "health"} {
		r := execute(t, t.Context(), "", strings.Fields(args)...)
		if r.code != exitUnavailable || strings.Contains(r.stderr, "registry dev") || strings.Contains(r.stderr, "rpc error") {
			t.Errorf("%s, with an address: %+v", args, r)
		}
	}
}

// silentListener takes connections and never answers.
func silentListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestSaysWhatIsTried: an address that refuses and one that is silent.
func TestSaysWhatIsTried(t *testing.T) {
	refuses, silent := free(t), silentListener(t)
	for _, args := range [][]string{{"members", "web"}, {"watch", "web"}, {"health"}, registerArgs()} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			r := start(t, append(args, "-timeout", "60s", "-registries", refuses+","+silent)...)
			began := time.Now()
			r.stderrUntil("no answer yet, trying for 1m0s: ")
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v to say something", took)
			}
			r.cancel(signalCause{syscall.SIGINT})
			r.wait(exitInterrupted)
			if says := r.stderr.String(); !strings.Contains(says, refuses) || !strings.Contains(says, silent) || !strings.HasSuffix(says, "\nregistry: interrupted\n") {
				t.Error(says)
			}
		})
	}
}

// TestRegisterWaitsForACluster: services may start before the nodes do.
func TestRegisterWaitsForACluster(t *testing.T) {
	r := start(t, registerArgs("-timeout", "60s", "-registries", free(t))...)
	r.stderrUntil("connection refused")
	r.cancel(signalCause{syscall.SIGINT})
	r.wait(exitInterrupted)
}

// TestInterruptWithoutCluster: a registered service whose cluster is gone ends
// soon, and says at once what it does.
func TestInterruptWithoutCluster(t *testing.T) {
	for _, more := range [][]string{nil, {"-hold-on-exit", "30s"}} {
		f := startFake(t)
		r := start(t, registerArgs(append(more, "-log-level", "debug")...)...)
		f.expect(t, "register web/w1")
		r.stderrUntil("registered at")
		f.stop()
		r.stderrUntil("connection refused") // it has noticed
		began := time.Now()
		r.cancel(signalCause{syscall.SIGINT})
		r.wait(exitUnavailable)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%q: it took %v to end", more, took)
		}
		says := r.stderr.String()
		if !strings.Contains(says, "w1 not deregistered") || !strings.Contains(says, f.addr+": connection refused") {
			t.Error(says)
		}
		if n := strings.Count(says, "could not be held"); n != len(more)/2 {
			t.Errorf("%d times that it could not be held:\n%s", n, says)
		}
	}
}

// TestReach: one address that may answer is enough to go on.
func TestReach(t *testing.T) {
	r := newReach([]string{"a", "b"})
	refused := func() bool { since, _ := r.state(); return !since.IsZero() }
	for i, step := range []struct {
		addr string
		err  error
		want bool
	}{
		{"a", syscall.ECONNREFUSED, false}, {"b", syscall.ECONNREFUSED, true}, {"b", nil, false},
		{"b", syscall.ECONNREFUSED, true}, {"learnt", nil, false}, {"learnt", syscall.ECONNREFUSED, true},
	} {
		if r.note(step.addr, step.err); refused() != step.want {
			t.Errorf("step %d: refused by all is %v", i, refused())
		}
	}
	var out lockedBuffer
	r.sayAfter(time.Hour, &out, time.Second)()
	if out.String() != "" {
		t.Errorf("said %q", out.String())
	}
}
