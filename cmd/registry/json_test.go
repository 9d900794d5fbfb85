package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// fingerprintKeys are the keys whose values are 16 hex digits, or empty.
var fingerprintKeys = regexp.MustCompile(`"(?:fingerprint[a-z_]*|digest|ring_digest)": (.*[^,\n]),?\n`)

// TestJSONForm: all commands indent alike, and spell fingerprints and bounds as
// the tables do.
func TestJSONForm(t *testing.T) {
	f := withWeb(t)
	f.nodes = []*registrypb.NodeStatus{{Id: "n1", Role: "leader", Digest: 1, Fingerprint: 2, RingDigest: 3}, {Id: "n2", Error: "down"}}
	f.groups["web"].config.Bound = 1100
	saved := filepath.Join(t.TempDir(), "web.json")
	write(t, saved, ok(t, "ring", "show", "web", "-json"))
	for _, args := range []string{
		"members web", "groups", "group get web", "match web a b", "match -n 2 web a", "cluster status", "health", "version",
		"ring show web", "ring stats web", "ring locate web a", "ring digest web", "ring plan web -join d", "ring plot web",
		"ring diff web " + saved, "ring plot " + saved, "deregister -yes -group web -id nobody", "member resume -group web -id web-1",
	} {
		out := ok(t, append(strings.Fields(args), "-json")...)
		var want bytes.Buffer
		if err := json.Indent(&want, []byte(out), "", "  "); err != nil || want.String() != out {
			t.Errorf("%s: %v, want\n%.300s\ngot\n%.300s", args, err, want.String(), out)
		}
		for _, m := range fingerprintKeys.FindAllStringSubmatch(out, -1) {
			if v := m[1]; v != `""` && !regexp.MustCompile(`^"[0-9a-f]{16}"$`).MatchString(v) {
				t.Errorf("%s: fingerprint %s", args, v)
			}
		}
		if strings.Contains(out, `"bound`) && !strings.Contains(out, `"bound": "1.100"`) && !strings.Contains(out, `"bound_after": "1.100"`) {
			t.Errorf("%s: no bound of 1.100 in %.300s", args, out)
		}
	}
	if out := ok(t, "cluster", "status", "-json"); !strings.Contains(out, `"role": "unreachable"`) || strings.Contains(out, "null") {
		t.Error(out)
	}
}

// nextEvent reads a line of "register -json".
func (r *running) nextEvent(want string) (ev registrationEvent) {
	r.t.Helper()
	line := r.lines(1)
	if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Event != want || ev.Group != "web" || ev.ID != "w1" || ev.Time.IsZero() {
		r.t.Fatalf("%v in %q, want event %s", err, line, want)
	}
	return ev
}

func TestRegisterJSON(t *testing.T) {
	f := startFake(t)
	r := start(t, registerArgs("-json")...)
	if ev := r.nextEvent(eventRegistered); ev.Addr != "127.0.0.1:8080" || ev.Hold != "0s" || ev.Error != "" {
		t.Errorf("%+v", ev)
	}
	r.cancel(signalCause{syscall.SIGTERM})
	r.nextEvent(eventDeregistering)
	r.nextEvent(eventDeregistered)
	r.wait(exitOK)
	if says := r.stderr.String(); strings.Contains(says, "registered") {
		t.Errorf("stderr: %s", says)
	}

	r = start(t, registerArgs("-json", "-hold-on-exit", "30s")...)
	r.nextEvent(eventRegistered)
	r.cancel(signalCause{syscall.SIGTERM})
	if ev := r.nextEvent(eventHeld); ev.Hold != "30s" {
		t.Errorf("%+v", ev)
	}
	r.wait(exitOK)

	r = start(t, registerArgs("-json")...)
	r.nextEvent(eventRegistered)
	f.failWith("Register", codes.FailedPrecondition, registrypb.ErrorDetail_FENCED, "deregistered by an operator")
	f.mu.Lock()
	f.lost = true
	f.mu.Unlock()
	r.nextEvent("lost")
	if ev := r.nextEvent("ended"); !strings.Contains(ev.Error, "deregistered by an operator") {
		t.Errorf("%+v", ev)
	}
	r.wait(exitConflict)
}

// TestRegisterJSONWithCommand: stdout is the command's.
func TestRegisterJSONWithCommand(t *testing.T) {
	startFake(t)
	r := execute(t, t.Context(), "", registerArgs("-json", "--", "echo", "own output")...)
	if r.code != exitOK || r.stdout != "own output\n" || strings.Count(r.stderr, `"event":"`) != 3 {
		t.Errorf("%+v", r)
	}
}
