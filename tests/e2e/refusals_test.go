package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// lockedNode is a node with a secret, TLS and tokens.
type lockedNode struct {
	*node
	ca    *x509.CertPool
	token string // the first
}

// startLocked starts it. Its certificates are made by the commands.
func startLocked(t *testing.T) *lockedNode {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	ok(t, "tls", "init", "-dir", dir)
	ok(t, "tls", "issue", "-dir", dir, "-server", "-host", "127.0.0.1", "-out", "node")
	n := &lockedNode{node: newNode(t, "node-1"), ca: x509.NewCertPool()}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !n.ca.AppendCertsFromPEM(pem) {
		t.Fatalf("no authority: %v", err)
	}
	n.start("-cert", filepath.Join(dir, "node.crt"), "-key", filepath.Join(dir, "node.key"))
	text, id, hash := registrypb.MakeToken()
	n.token = text
	conn := n.connect(t)
	eventually(t, patience, "a first token", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := registrypb.NewTokensClient(conn).Init(ctx, &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}})
		return err
	})
	return n
}

func (n *lockedNode) connect(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: n.ca})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestRefusedCallers makes handshakes that both ports of a locked node refuse, and
// calls with wrong tokens. An honest client beside them is served, and afterwards the
// node has as many goroutines, files and as much memory as before.
func TestRefusedCallers(t *testing.T) {
	handshakes, calls := *hostileFrames, *hostileFrames
	if testing.Short() {
		handshakes, calls = handshakes/10, calls/10
	}
	n := startLocked(t)
	client, err := sdk.Dial(n.addr, sdk.WithTLS(&tls.Config{RootCAs: n.ca}), sdk.WithToken(n.token))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	honest := startHonest(t, client)
	honest.serves(t)
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: n.ca}}, Timeout: 5 * time.Second}
	token := n.token
	measure := func() []footprint {
		return footprintsOf(t, func(n *node) (int, error) { return goroutinesOf(web, "https://"+n.addr, token) }, n.node)
	}
	before := measure()

	began := time.Now()
	n.refusedHandshakes(handshakes)
	honest.unharmed(t)
	t.Logf("%d refused handshakes in %v; an honest client meanwhile: %s", handshakes, ms(time.Since(began)), honest.figures())
	began = time.Now()
	n.wrongTokens(t, calls)
	honest.unharmed(t)
	t.Logf("%d wrong tokens in %v; an honest client meanwhile: %s", calls, ms(time.Since(began)), honest.figures())
	honest.serves(t)
	eventually(t, patience, "a node as it was", func() error { return recovered(before, measure()) })
	t.Logf("the node before: %v, after: %v", before, measure())
	honest.end()
}

// refusedHandshakes connects to both ports, some connections at a time, in ways that a
// handshake fails.
func (n *lockedNode) refusedHandshakes(count int) {
	ways := []struct {
		addr string
		tls  *tls.Config // nil: none
	}{
		{n.bind, nil},
		{n.bind, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"registry-raft"}}}, // shows no certificate
		{n.bind, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}},
		{n.addr, nil},
		{n.addr, &tls.Config{RootCAs: x509.NewCertPool()}}, // ends it itself
		{n.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"other"}}},
		{n.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}},
	}
	var all sync.WaitGroup
	places := make(chan struct{}, 32)
	for i := range count {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			way := ways[i%len(ways)]
			conn, err := net.DialTimeout("tcp", way.addr, time.Second)
			if err != nil {
				return // turned away
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			if way.tls == nil {
				_, _ = conn.Write([]byte(http2Preface))
				return
			}
			_ = tls.Client(conn, way.tls).Handshake() // what the server says comes later, or never
		})
	}
	all.Wait()
}

// wrongTokens calls with tokens that do not exist, and with what is none.
func (n *lockedNode) wrongTokens(t *testing.T, count int) {
	t.Helper()
	conns := []*grpc.ClientConn{n.connect(t), n.connect(t)}
	var limited atomic.Int64
	var all sync.WaitGroup
	places := make(chan struct{}, 32)
	for i := range count {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			text, _, _ := registrypb.MakeToken()
			if i%2 == 0 {
				text = fmt.Sprint("guess-", i)
			}
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), registrypb.AuthorizationHeader, "Bearer "+text), patience)
			defer cancel()
			_, err := registrypb.NewRegistryClient(conns[i%2]).Index(ctx, &registrypb.IndexRequest{})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("a wrong token: %v", err)
			}
			if strings.Contains(fmt.Sprint(err), "wrong tokens within") {
				limited.Add(1)
			}
		})
	}
	all.Wait()
	if limited.Load() < int64(count)-100 {
		t.Errorf("%d of %d wrong tokens were told that there are too many", limited.Load(), count)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// unharmed expects that no call of the client failed since its last figures.
func (h *honest) unharmed(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failed) > 0 {
		t.Errorf("%d calls of an honest client failed: %v", len(h.failed), h.failed[0])
	}
}
