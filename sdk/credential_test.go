package sdk

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// tokenGate makes fake nodes demand a token.
type tokenGate struct {
	mu   sync.Mutex
	want string // the token; empty: none is valid
}

func (g *tokenGate) accept(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.want = token
}

func (g *tokenGate) hook(ctx context.Context, _ string, _ any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	sent := metadata.ValueFromIncomingContext(ctx, "authorization")
	if g.want != "" && len(sent) == 1 && sent[0] == "Bearer "+g.want {
		return nil
	}
	return failing(codes.Unauthenticated, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_UNAUTHENTICATED})
}

func guarded(cl *fakeCluster, token string) *tokenGate {
	g := &tokenGate{want: token}
	for _, n := range cl.nodes {
		n.script(g.hook)
	}
	return g
}

func newToken() string {
	text, _, _ := registrypb.MakeToken()
	return text
}

func writeToken(t *testing.T, path, content string) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "token")
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// logTo makes a client log all to l.
func logTo(l *logbuffer.Buffer) Option {
	return WithLogger(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// Calls and streams have the token of the file, also after a change.
func TestTokenFileIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		cl.write("g", memberIDs(2)...)
		one, two := newToken(), newToken()
		gate := guarded(cl, one)
		var log logbuffer.Buffer
		file := writeToken(t, "", one+"\n")
		c := cl.client(cl.target(), fastProgress, WithTokenFile(file), logTo(&log))
		r := openRing(t, c)
		rec := newRecorder()
		register(t, c, Service{Group: "h", ID: "a", Addr: "a:80", TTL: testTTL, OnEvent: rec.on})

		writeToken(t, file, two[:30]) // a write that is not complete
		c.token.refused()
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "token file cannot be used") {
			t.Errorf("the log: %s", &log)
		}
		writeToken(t, file, two)
		gate.accept(two)
		for _, n := range cl.nodes {
			n.breakStreams()
		}
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Error(err)
		}
		wait(t, r, cl.write("g", memberIDs(5)...))
		before := cl.beatsOf("h", "a")
		eventually(t, "heartbeats go on", func() bool { return cl.beatsOf("h", "a") > before+1 })
		select {
		case e := <-rec:
			if e.Kind != EventRegistered {
				t.Errorf("event %v, %v", e.Kind, e.Err)
			}
		default:
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		c.token.refused()
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Error(err)
		}
	})
}

// A node that has not applied the token yet is passed over; a token that is not valid
// ends a call after few attempts.
func TestUnauthenticatedCalls(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		nodes    int
		refusals int // of the whole cluster, before the token is valid
		opts     []Option
		want     error
		attempts int
	}{
		"fresh token, at the next node":      {3, 1, []Option{WithToken(newToken())}, nil, 2},
		"fresh token, at the third node":     {3, 2, []Option{WithToken(newToken())}, nil, 3},
		"fresh token, at the same node":      {1, 2, []Option{WithToken(newToken())}, nil, 3},
		"invalid token, at several nodes":    {5, 99, []Option{WithToken(newToken())}, ErrUnauthenticated, 3},
		"invalid token, at the only node":    {1, 99, []Option{WithToken(newToken())}, ErrUnauthenticated, 3},
		"no token":                           {3, 99, nil, ErrUnauthenticated, 1},
		"no token, as an empty text is none": {3, 99, []Option{WithToken("")}, ErrUnauthenticated, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, tt.nodes)
				registerMember(t, cl, "a")
				var mu sync.Mutex
				left := tt.refusals
				for _, n := range cl.nodes {
					n.script(func(context.Context, string, any) error {
						mu.Lock()
						defer mu.Unlock()
						if left--; left >= 0 {
							return failing(codes.Unauthenticated, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_UNAUTHENTICATED})
						}
						return nil
					})
				}
				c := cl.client(cl.target(), append(tt.opts, WithAttemptTimeout(within))...)
				if _, err := c.Match(testContext(t), "g", "k"); !errors.Is(err, tt.want) {
					t.Errorf("match: %v, want %v", err, tt.want)
				}
				attempts := 0
				for _, n := range cl.nodes {
					attempts += n.count("Match")
				}
				if attempts != tt.attempts {
					t.Errorf("%d attempts, want %d", attempts, tt.attempts)
				}
			})
		})
	}
}

// What is denied, or belongs to another token, is not asked of other nodes.
func TestDeniedCallsAreNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for reason, want := range map[registrypb.ErrorDetail_Reason]error{
			registrypb.ErrorDetail_PERMISSION_DENIED: ErrPermissionDenied, registrypb.ErrorDetail_NOT_OWNER: ErrNotOwner,
		} {
			cl := newFakeCluster(t, 3)
			for _, n := range cl.nodes {
				n.script(func(context.Context, string, any) error {
					return failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: reason, Field: "group", Limit: "discover:web"})
				})
			}
			c := cl.client(cl.target(), WithToken(newToken()), WithAttemptTimeout(within))
			_, err := c.Deregister(testContext(t), "g", "a")
			if e, ok := errors.AsType[*Error](err); !errors.Is(err, want) || !ok || e.Field != "group" || e.Limit != "discover:web" {
				t.Errorf("%v, want %v", err, want)
			}
			attempts := 0
			for _, n := range cl.nodes {
				attempts += n.count("Deregister")
			}
			if attempts != 1 {
				t.Errorf("%v: %d attempts", want, attempts)
			}
		}
	})
}

// A refusal says nothing of an earlier attempt without an answer.
func TestRefusalAfterAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, reason := range []registrypb.ErrorDetail_Reason{registrypb.ErrorDetail_PERMISSION_DENIED, registrypb.ErrorDetail_UNAUTHENTICATED} {
			cl := newFakeCluster(t, 2)
			cl.nodes[0].script(func(context.Context, string, any) error {
				return failing(codes.Unknown, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_OUTCOME_UNKNOWN})
			})
			cl.nodes[1].script(func(context.Context, string, any) error {
				return failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: reason})
			})
			_, err := cl.client(cl.target(), WithToken(newToken())).Deregister(testContext(t), "g", "a")
			if !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("%v: %v", reason, err)
			}
		}
	})
}

// A registration says that its token is refused, and goes on when it no longer is.
func TestRegistrationWhoseTokenEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		one, two := newToken(), newToken()
		gate := guarded(cl, one)
		file := writeToken(t, "", one)
		c := cl.client(cl.target(), WithTokenFile(file))
		rec := newRecorder()
		s := service("a", rec.on)
		s.TTL = time.Minute
		r := register(t, c, s)
		rec.next(t, EventRegistered, nil)
		c.keeper.post(func() { c.keeper.beats.put(r.lease, time.Now()) }) // a heartbeat now
		eventually(t, "a stream is open", func() bool { return cl.beatsOf("g", "a") > 0 })
		gate.accept("")
		c.keeper.post(func() { c.keeper.beats.put(r.lease, time.Now()) })
		rec.next(t, EventUnreachable, ErrUnauthenticated) // long before the TTL is over
		writeToken(t, file, two)
		gate.accept(two)
		rec.next(t, EventRenewed, nil)
	})
}

// One lease that belongs to another token does not end the others of its heartbeat.
func TestLeaseOfAnotherToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		mine, other := newRecorder(), newRecorder()
		register(t, c, service("mine", mine.on))
		register(t, c, service("other", other.on))
		mine.next(t, EventRegistered, nil)
		other.next(t, EventRegistered, nil)
		refuse := func(_ context.Context, method string, req any) error {
			switch r := req.(type) {
			case *registrypb.HeartbeatRequest:
				cl.mu.Lock()
				defer cl.mu.Unlock()
				for _, id := range r.GetLeaseIds() {
					if l := cl.leases[id]; l != nil && l.member.GetId() == "other" {
						return failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_NOT_OWNER, LeaseIds: []uint64{id}})
					}
				}
			case *registrypb.RegisterRequest:
				return failing(codes.PermissionDenied, &registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_NOT_OWNER})
			}
			return nil
		}
		for _, n := range cl.nodes {
			n.script(refuse)
		}
		other.next(t, EventUnreachable, ErrNotOwner)
		tries := func() int { return cl.nodes[0].count("Register") + cl.nodes[1].count("Register") }
		before, beats := tries(), cl.beatsOf("g", "mine")
		eventually(t, "it is tried again", func() bool { return tries() > before+1 })
		eventually(t, "the other is renewed", func() bool { return cl.beatsOf("g", "mine") > beats+2 })
		for _, n := range cl.nodes {
			n.script(nil)
		}
		other.next(t, EventReregistered, nil)
		for len(mine) > 0 { // a beat may be late on a busy machine
			if e := <-mine; errors.Is(e.Err, ErrNotOwner) || e.Kind != EventUnreachable && e.Kind != EventRenewed {
				t.Errorf("event %v, %v of a lease that is renewed", e.Kind, e.Err)
			}
		}
	})
}

// Streams that are refused are opened again in growing intervals.
func TestRefusedStreamsBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(2)...)
		const most = 80 * time.Millisecond
		c := cl.client(cl.target(), WithToken(newToken()), func(c *config) { c.backoffMax, c.refusedMax = c.backoffBase, most })
		guarded(cl, "")
		began := time.Now()
		w, err := c.Watch(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		const opened = 12
		eventually(t, "streams are opened", func() bool { return cl.nodes[0].count("Watch") >= opened })
		least := time.Duration(0)
		for i := range opened - 1 {
			least += min(c.cfg.backoffBase<<i, most) / 2
		}
		if took := time.Since(began); took < least {
			t.Errorf("%d streams in %v, want at least %v", opened, took, least)
		}
	})
}

// A ring goes on from what it has when its token ends, and starts from the copy on disk;
// without one it says soon why.
func TestRingWhoseTokenEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		revision := cl.write("g", memberIDs(4)...)
		one, two := newToken(), newToken()
		gate := guarded(cl, one)
		file, path := writeToken(t, "", one), filepath.Join(t.TempDir(), "copy")
		soon := func(c *config) { outageSoon(c); fastProgress(c) }
		c := cl.client(cl.target(), soon, WithTokenFile(file))
		r := openRing(t, c, WithDiskCopy(path))
		gate.accept("")
		for _, n := range cl.nodes {
			n.breakStreams()
		}
		eventually(t, "the outage is known", func() bool { return errors.Is(r.Stats().Outage, ErrUnauthenticated) })
		if m, err := r.Match("k"); err != nil || m == nil || r.Err() != nil {
			t.Errorf("%v, %v, %v", m, err, r.Err())
		}
		if err := cl.client(cl.target(), soon, WithToken(one)).ringError(t); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("without a copy: %v", err)
		}
		eventually(t, "there is a copy", func() bool { _, err := os.Stat(path); return err == nil })
		again, err := cl.client(cl.target(), soon, WithToken(one)).Ring(testContext(t), "g", WithDiskCopy(path))
		if err != nil || again.Revision() != revision {
			t.Errorf("from the copy: %v", err)
		}
		gate.accept(two)
		writeToken(t, file, two)
		wait(t, r, cl.write("g", memberIDs(5)...))
	})
}

// ringError opens a ring that must fail before the call's time is over.
func (c *Client) ringError(t *testing.T) error {
	t.Helper()
	_, err := c.Ring(testContext(t), "g")
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("it waited for the whole time")
	}
	return err
}

// Whatever goes wrong, the token is in no error and in no line of the log.
func TestTokenIsNotTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeWatched(t, 2)
		planted := newToken()
		secret := strings.TrimPrefix(planted, "rgt_")
		var log logbuffer.Buffer
		var texts []string
		note := func(err error) {
			if err == nil {
				t.Error("no error")
				return
			}
			texts = append(texts, err.Error())
		}
		for _, bad := range []string{planted + "x", planted[1:], planted + "\n" + planted, strings.ToUpper(planted)} {
			_, err := Dial("127.0.0.1:1", WithToken(bad))
			note(err)
			_, err = Dial("127.0.0.1:1", WithTokenFile(writeToken(t, "", bad)))
			note(err)
		}
		file := writeToken(t, "", planted)
		rec := newRecorder()
		gate := guarded(cl, planted)
		c := cl.client(cl.target(), WithTokenFile(file), logTo(&log))
		register(t, c, service("a", rec.on))
		gate.accept("")
		writeToken(t, file, planted+"x")
		_, err := c.Match(testContext(t), "g", "k")
		note(err)
		_, err = c.Register(testContext(t), service("b", nil))
		note(err)
		_, err = c.Ring(testContext(t), "g")
		note(err)
		note(rec.want(t, EventUnreachable).Err)
		note(c.Close())
		if !strings.Contains(log.String(), "token file cannot be used") {
			t.Errorf("the log: %s", &log)
		}
		for _, text := range append(texts, log.String()) {
			if strings.Contains(text, secret[:12]) || strings.Contains(strings.ToLower(text), strings.ToLower(secret[20:32])) {
				t.Errorf("it has the token: %s", text)
			}
		}
	})
}

func TestDialChecksTheToken(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Option{
		"a text that is no token": WithToken("x"), "no such file": WithTokenFile(filepath.Join(t.TempDir(), "none")),
		"an empty file": WithTokenFile(writeToken(t, "", "")), "a large file": WithTokenFile(writeToken(t, "", newToken()+strings.Repeat("\n", maxTokenFile))),
	} {
		if _, err := Dial("127.0.0.1:1", opt); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A token in the place of its file's name is not shown.
func TestTokenAsAFileName(t *testing.T) {
	token, _, _ := registrypb.MakeToken()
	_, err := Dial("127.0.0.1:1", WithTokenFile(token))
	if !errors.Is(err, ErrInvalidArgument) || strings.Contains(err.Error(), token) {
		t.Error(err)
	}
}
