package peertls

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/store/portmux"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secrets of the tests.
var (
	oldSecret = NewSecret()
	newSecret = NewSecret()
)

// writeSecrets writes a secret file, and returns its path.
func writeSecrets(t *testing.T, path string, secrets ...string) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "secret")
	}
	if err := os.WriteFile(path, []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// end is a node's end: its identity and a bind port that echoes raft connections.
type end struct {
	*Identity
	addr     string
	log      *logbuffer.Buffer
	refused  chan Reason
	unusable chan struct{}
}

// open opens an identity that tells what it refuses.
func open(t *testing.T, cfg Config) (*end, error) {
	t.Helper()
	e := &end{log: new(logbuffer.Buffer), refused: make(chan Reason, 100), unusable: make(chan struct{}, 100)}
	cfg.Protocols = []string{protocolGRPC, "registry-raft"}
	cfg.Logger = slog.New(slog.NewTextHandler(e.log, nil))
	cfg.Refused = func(why Reason) { e.refused <- why }
	cfg.Unusable = func() { e.unusable <- struct{}{} }
	var err error
	e.Identity, err = Open(cfg)
	return e, err
}

// node opens an identity and serves its bind port until the test ends.
func node(t *testing.T, cfg Config) *end {
	t.Helper()
	e, err := open(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = ln.Addr().String()
	mux := portmux.New(e.Listen(ln), 1000)
	mux.TLS(e.Server())
	raft := mux.Route(portmux.Protocol{ALPN: "registry-raft"})
	var all sync.WaitGroup
	all.Go(func() { _ = mux.Serve() })
	all.Go(func() { echo(raft, &all) })
	t.Cleanup(func() {
		_ = mux.Close()
		all.Wait()
	})
	return e
}

func echo(ln net.Listener, all *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer func() { _ = c.Close() }()
			var one [1]byte
			for {
				if _, err := c.Read(one[:]); err != nil {
					return
				}
				if _, err := c.Write(one[:]); err != nil {
					return
				}
			}
		})
	}
}

// dial connects to another node by raft's protocol.
func (e *end) dial(t *testing.T, to *end) (*tls.Conn, error) {
	t.Helper()
	raw, err := net.Dial("tcp", to.addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Client(t.Context(), raw, "registry-raft")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, alive(c)
}

// alive sends a byte back and forth. What refuses a client comes with the answer.
func alive(c net.Conn) error {
	one := []byte{1}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(one); err != nil {
		return err
	}
	_, err := c.Read(one)
	return err
}

// kept is the number of connections that a reload may close.
func (e *end) kept() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

// wantRefused waits for the reason of a refusal.
func (e *end) wantRefused(t *testing.T, want Reason) {
	t.Helper()
	select {
	case got := <-e.refused:
		if got != want {
			t.Errorf("refused as %q, want %q\n%s", got, want, e.log)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("nothing was refused\n%s", e.log)
	}
	if !strings.Contains(e.log.String(), "reason="+string(want)) {
		t.Errorf("no line with reason %q:\n%s", want, e.log)
	}
}
