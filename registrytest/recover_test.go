package registrytest_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store"
)

// peersBy call nodes as the holder of a secret or a certificate does; an empty config is
// of one that has neither.
func peersBy(t *testing.T, cfg peertls.Config) *rpc.Peers {
	t.Helper()
	var identity *peertls.Identity
	if cfg.SecretFile != "" || cfg.Files.Cert != "" {
		cfg.Cluster = registry.DefaultConfig().Cluster
		cfg.Logger, cfg.Refused, cfg.Unusable = slog.New(slog.DiscardHandler), func(peertls.Reason) {}, func() {}
		var err error
		if identity, err = peertls.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	p := rpc.NewPeers(identity)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// recovers asks nodes for an administrator's token.
func recovers(t *testing.T, p *rpc.Peers, name string, nodes ...*registry.Node) (text string, err error) {
	t.Helper()
	var binds []string
	for _, n := range nodes {
		binds = append(binds, n.BindAddr())
	}
	text, id, hash := registrypb.MakeToken()
	return text, p.RecoverTokens(t.Context(), binds, &registrypb.NewToken{Name: name, Id: id, Hash: hash})
}

// Who has the nodes' secret gets an administrator's token from the leader, where the last
// one is lost. Nobody else does, whatever the port asks for.
func TestTokensAreRecoveredByTheSecret(t *testing.T) {
	t.Parallel()
	secret := secretFile(t, "", peertls.NewSecret())
	c := registrytest.Start(t, registrytest.WithNodes(3), registrytest.WithSecret(secret), registrytest.WithTokens())
	leader := c.Nodes()[c.Leader()]
	holder := peersBy(t, peertls.Config{ID: "operator", SecretFile: secret})
	for _, n := range c.Nodes() {
		if n.ID() != leader.ID() {
			if _, err := recovers(t, holder, "follower", n); !errors.Is(err, store.ErrNotLeader) {
				t.Errorf("a follower: %v", err)
			}
		}
	}
	text, err := recovers(t, holder, "recovered", c.Nodes()...)
	if err != nil {
		t.Fatal(err)
	}
	client := dialSDK(t, c.Addrs(), sdk.WithToken(text))
	if _, err := client.CreateToken(t.Context(), sdk.NewToken{Name: "next", Grants: []sdk.Grant{{Rights: sdk.Admin}}}); err != nil {
		t.Errorf("the token does not administrate: %v", err)
	}
	if _, err := c.Client().Tokens(t.Context()); err != nil {
		t.Errorf("the token of before: %v", err)
	}
	if _, err := recovers(t, holder, "recovered", leader); err == nil || !strings.Contains(err.Error(), "has the name") {
		t.Errorf("another one of that name: %v", err)
	}
	for name, p := range map[string]*rpc.Peers{
		"another secret": peersBy(t, peertls.Config{ID: "operator", SecretFile: secretFile(t, "", peertls.NewSecret())}), "no secret": peersBy(t, peertls.Config{}),
	} {
		if _, err := recovers(t, p, "stolen", c.Nodes()...); err == nil {
			t.Errorf("%s: recovered", name)
		}
	}
	tokens, err := client.Tokens(t.Context(), sdk.Linearizable())
	if err != nil || len(tokens) != 3 {
		t.Errorf("%v, %v, want three tokens", tokens, err)
	}
}

// A certificate of a node does as the secret does.
func TestTokensAreRecoveredByACertificate(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	own := ca.Issue("node-1", certs.Request{URI: certs.NodeURI(registry.DefaultConfig().Cluster, "node-1")})
	c := registrytest.Start(t, registrytest.WithTokens(), registrytest.WithConfig(func(cfg *registry.Config) {
		cfg.PeerCert, cfg.PeerKey, cfg.PeerCA = own.Cert, own.Key, ca.Path
	}))
	own.CA = ca.Path
	if _, err := recovers(t, peersBy(t, peertls.Config{ID: "node-1", Files: own}), "recovered", c.Nodes()...); err != nil {
		t.Error(err)
	}
}

// On a bind port without TLS anybody could be the caller, so nothing is recovered.
func TestTokensAreNotRecoveredWithoutTLS(t *testing.T) {
	t.Parallel()
	c := registrytest.Start(t, registrytest.WithTokens())
	_, err := recovers(t, peersBy(t, peertls.Config{}), "stolen", c.Nodes()...)
	if err == nil || !strings.Contains(err.Error(), "has no TLS") || status.Code(err) == codes.Unavailable {
		t.Errorf("%v", err)
	}
	if tokens, err := c.Client().Tokens(t.Context()); err != nil || len(tokens) != 1 {
		t.Errorf("%v, %v, want the first token alone", tokens, err)
	}
}

// While tokens are off there is nothing to recover: token init makes the first.
func TestNoTokensToRecover(t *testing.T) {
	t.Parallel()
	secret := secretFile(t, "", peertls.NewSecret())
	c := registrytest.Start(t, registrytest.WithSecret(secret))
	if _, err := recovers(t, peersBy(t, peertls.Config{ID: "operator", SecretFile: secret}), "early", c.Nodes()...); err == nil || !strings.Contains(err.Error(), "tokens are off") {
		t.Errorf("%v", err)
	}
}
