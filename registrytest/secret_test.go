package registrytest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// secretFile writes secrets, one per line.
func secretFile(t testing.TB, path string, secrets ...string) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "secret")
	}
	if err := os.WriteFile(path+".new", []byte(strings.Join(secrets, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Three nodes get a new secret in three steps, one node after the other, without a
// change of the leader, and every write between is answered.
func TestSecretRollsThroughACluster(t *testing.T) {
	t.Parallel()
	oldSecret, newSecret := peertls.NewSecret(), peertls.NewSecret()
	files := make(map[string]string)
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithConfig(func(cfg *registry.Config) {
		if files[cfg.ID] == "" {
			files[cfg.ID] = secretFile(t, "", oldSecret)
		}
		cfg.SecretFile = files[cfg.ID]
	}))
	leader, members := c.Leader(), 0
	term := termOf(t, c)
	for _, secrets := range [][]string{{oldSecret, newSecret}, {newSecret, oldSecret}, {newSecret}} {
		for _, n := range c.Nodes() {
			secretFile(t, files[n.ID()], secrets...)
			n.Reload()
			members++
			r, err := c.Client().Register(t.Context(), sdk.Service{Group: "web", ID: fmt.Sprintf("web-%d", members), Addr: "127.0.0.1:8080"})
			if err != nil {
				t.Fatalf("%d secrets at %s: %v", len(secrets), n.ID(), err)
			}
			t.Cleanup(func() { _ = r.Close() })
			var receipt sdk.Receipt
			if _, err := c.Client().Members(t.Context(), "web", sdk.Linearizable(), sdk.WithReceipt(&receipt)); err != nil {
				t.Fatal(err)
			}
			c.WaitIndex(receipt.Index) // on all nodes
		}
	}
	if now := c.Leader(); now != leader || termOf(t, c) != term {
		t.Errorf("node %d led in term %d, now it is %d in term %d", leader, term, now, termOf(t, c))
	}
	for _, n := range c.Nodes() {
		for name, v := range samples(t, scrape(t, n)) {
			if strings.HasPrefix(name, "registry_peer_refused_total") && v != 0 {
				t.Errorf("%s: %s is %v", n.ID(), name, v)
			}
		}
	}
}

func termOf(t *testing.T, c *registrytest.Cluster) uint64 {
	t.Helper()
	st, err := c.Client().Status(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return st.Term
}

// identityOf is how a node with a secret calls others.
func identityOf(t *testing.T, id, secret string) credentials.TransportCredentials {
	t.Helper()
	i, err := peertls.Open(peertls.Config{Cluster: "registry", ID: id, SecretFile: secretFile(t, "", secret),
		Logger: slog.New(slog.DiscardHandler), Refused: func(peertls.Reason) {}, Unusable: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return i.Credentials()
}

// showing calls with a certificate of an authority of its own, and judges nobody.
func showing(t *testing.T, r certs.Request) credentials.TransportCredentials {
	t.Helper()
	files := certstest.NewCA(t).Issue("caller", r)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
}

// Nobody but a node of the cluster joins: each attempt is refused, counted, and has a
// line in the log.
func TestForgedJoin(t *testing.T) {
	t.Parallel()
	secret, log := peertls.NewSecret(), new(logbuffer.Buffer)
	c := registrytest.Start(t, registrytest.WithSecret(secretFile(t, "", secret)), registrytest.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	n := c.Nodes()[0]
	for _, tc := range []struct {
		name, reason string
		creds        credentials.TransportCredentials
	}{
		{"without TLS", "plain", insecure.NewCredentials()},
		{"without a certificate", "no_certificate", credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},
		{"by another authority", "authority", showing(t, certs.Request{URI: certs.NodeURI("registry", "node-2")})},
		{"of another cluster", "name", showing(t, certs.Request{URI: certs.NodeURI("other", "node-2")})},
		{"with a client's certificate", "name", showing(t, certs.Request{Client: true})},
		{"by another secret", "handshake", identityOf(t, "node-2", peertls.NewSecret())}, // it refuses this node itself
		{"under another id", "name", identityOf(t, "node-3", secret)},
	} {
		metric := fmt.Sprintf("registry_peer_refused_total{reason=%q}", tc.reason)
		before := samples(t, scrape(t, n))[metric]
		if err := forgeJoin(t, n.BindAddr(), tc.creds); err == nil {
			t.Errorf("%s: joined", tc.name)
		}
		// The caller may know of it before the node has counted it, which it does last.
		awaitSample(t, n, metric, atLeast(before+1))
		if line := "reason=" + tc.reason; !strings.Contains(log.String(), line) {
			t.Errorf("%s: no line with %s:\n%s", tc.name, line, log)
		}
	}
	st, err := c.Client().Status(t.Context(), "")
	if err != nil || len(st.Nodes) != 1 {
		t.Errorf("%d nodes, %v", len(st.Nodes), err)
	}
}

// Where one of two nodes has no secret, both are told why nothing comes of it.
func TestOneNodeWithoutASecret(t *testing.T) {
	t.Parallel()
	secret, log := peertls.NewSecret(), new(logbuffer.Buffer)
	c := registrytest.Start(t, registrytest.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	n := c.Nodes()[0]
	if err := forgeJoin(t, n.BindAddr(), identityOf(t, "node-2", secret)); err == nil || !strings.Contains(err.Error(), "as one without a secret does") {
		t.Errorf("a locked node is told %v", err)
	}
	awaitSample(t, n, `registry_peer_refused_total{reason="locked"}`, atLeast(1))
	if !strings.Contains(log.String(), "this one has no -secret-file") {
		t.Errorf("not logged:\n%s", log)
	}
	locked := registrytest.Start(t, registrytest.WithSecret(secretFile(t, "", secret))).Nodes()[0]
	peers := rpc.NewPeers(nil)
	defer func() { _ = peers.Close() }()
	if _, err := peers.Hello(t.Context(), locked.BindAddr()); err == nil || !strings.Contains(err.Error(), "the node speaks TLS") {
		t.Errorf("a node without a secret is told %v", err)
	}
}

func forgeJoin(t *testing.T, bind string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+bind, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = peerpb.NewPeerClient(conn).Join(ctx, &peerpb.JoinRequest{
		Cluster: "registry", Id: "node-2", Bind: "127.0.0.1:1", Addr: "127.0.0.1:2", Version: "dev", Incarnation: "x",
	})
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not refused: %v", err)
	}
	return err
}
