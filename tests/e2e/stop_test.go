package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// TestStopLeader: a signal hands leadership over. The election timeout is long,
// so that a leader who only went away would be missed.
func TestStopLeader(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm, sigHup)
	for _, s := range []os.Signal{sigTerm, sigHup} {
		t.Run(s.String(), func(t *testing.T) { t.Parallel(); stopLeader(t, s) })
	}
}

func stopLeader(t *testing.T, stop os.Signal) {
	const election = 5 * time.Second
	flags, begin := []string{"-election-timeout", election.String()}, startCluster
	if stop == sigHup { // it reads secrets and certificates again, and ends a node that has none
		flags, begin = append(flags, "-secret-file="), startNodes
	}
	c := begin(t, 3, flags...)
	leader, others := c.leader()
	client := dial(t, others[0].addr+","+others[1].addr)
	if _, err := client.Register(t.Context(), sdk.Service{Group: "web", ID: "before", Addr: "127.0.0.1:8080"}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	leader.send(stop)
	registered := make(chan error, 1)
	go func() {
		_, err := client.Register(t.Context(), sdk.Service{Group: "web", ID: "after", Addr: "127.0.0.1:8081"})
		registered <- err
	}()
	if err := <-registered; err != nil { // bounded by the client's call timeout
		t.Fatal(err)
	}
	acked := time.Since(began)
	if code := leader.ends(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("signal %v to the leader: next registration acknowledged after %v, process ended after %v", stop, ms(acked), ms(time.Since(began)))
	leader.says("stopping id="+leader.id, time.Second)
	if acked >= election/2+noise {
		t.Errorf("registration after %v: that is an election, no handover", acked)
	}
	newLeader(t, others[0], leader.id)
	leader.start(flags...)
	c.settled(3)
	if m := memberOf(t, leader.addr, "web", "after"); m == nil {
		t.Error("the new registration is not there")
	}
}

// TestStopService: who registers a service deregisters it when it ends.
func TestStopService(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm, sigInt, sigHup)
	c := startCluster(t, 1)
	addr := c.nodes[0].addr
	registration := func(id string, more ...string) command {
		args := []string{"register", "-group", "web", "-id", id, "-addr", "127.0.0.1:8080", "-ttl", "1h", "-registries", addr}
		return command{name: id, args: append(args, more...)}
	}
	gone := func(t *testing.T, id string) {
		t.Helper()
		if m := memberOf(t, addr, "web", id); m != nil {
			t.Errorf("still registered: %v", m)
		}
	}
	for _, tt := range []struct {
		name   string
		args   []string
		signal os.Signal
		code   int
	}{
		{"SIGTERM", nil, sigTerm, 0},
		{"SIGINT", nil, sigInt, 0},
		{"SIGHUP", nil, sigHup, 0},
		{"SIGTERM is passed on", []string{"--", "sh", "-c", "echo started; exec sleep 60"}, sigTerm, 128 + 15},
		{"the command handles SIGTERM", []string{"--", "sh", "-c", `trap "exit 9" TERM; echo started; while :; do sleep 0.1; done`}, sigTerm, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := strings.ReplaceAll(tt.name, " ", "-")
			p := start(t, registration(id, tt.args...))
			p.says("registered at", patience)
			if tt.args != nil {
				p.says("started", patience)
			}
			if memberOf(t, addr, "web", id) == nil {
				t.Fatal("not registered")
			}
			began := time.Now()
			p.send(tt.signal)
			if code := p.ends(patience); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			t.Logf("ended after %v", ms(time.Since(began)))
			gone(t, id)
		})
	}
	for _, tt := range []struct {
		name    string
		command []string
		code    int
	}{
		{"the command succeeds", []string{"true"}, 0},
		{"the command fails", []string{"sh", "-c", "exit 7"}, 7},
		{"the command is killed", []string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		{"no such command", []string{"no-such-command-here"}, 127},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := strings.ReplaceAll(tt.name, " ", "-")
			p := start(t, registration(id, append([]string{"--"}, tt.command...)...))
			if code := p.ends(patience); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			gone(t, id)
		})
	}
	t.Run("webservice", func(t *testing.T) {
		w := newWebservice(t, "example", addr, time.Hour)
		w.registered(addr)
		w.stop()
		gone(t, "example")
	})
	t.Run("the node is stopped first", func(t *testing.T) {
		p := start(t, registration("last"))
		p.says("registered at", patience)
		took := c.nodes[0].stop()
		t.Logf("a node with a heartbeat stream open ended after %v", ms(took))
		p.send(sigTerm)
		code := p.ends(patience)
		if code != 5 && code != 6 || !strings.Contains(p.log.text(), "not deregistered") {
			t.Errorf("exit code %d: %s", code, p.log.tail(3))
		}
	})
}

// newWebservice starts the example of a service.
func newWebservice(t *testing.T, id, registry string, ttl time.Duration) *webservice {
	t.Helper()
	w := &webservice{id: id, addr: local(freePorts(t, 1)[0])}
	w.process = start(t, command{name: id, program: "webservice", args: []string{
		"-registries", registry, "-id", id, "-group", "web", "-addr", w.addr, "-ttl", ttl.String(),
	}})
	return w
}

type webservice struct {
	id, addr string
	*process
}

// registered waits until a node shows the service.
func (w *webservice) registered(addr string) {
	w.t.Helper()
	client := dial(w.t, addr)
	eventually(w.t, patience, w.id+" in its group", func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		members, err := client.Members(ctx, "web", sdk.Linearizable())
		for _, m := range members {
			if m.ID == w.id {
				return nil
			}
		}
		return fmt.Errorf("%v, %w", members, err)
	})
}
