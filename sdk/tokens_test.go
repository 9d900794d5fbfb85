package sdk

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// fakeToken is the id of the token that fake nodes list.
var fakeToken = []byte("12345678")

func (n *fakeNode) Init(ctx context.Context, req *registrypb.InitTokensRequest) (*registrypb.InitTokensResponse, error) {
	return &registrypb.InitTokensResponse{}, n.enter(ctx, "Init", req)
}

func (n *fakeNode) Create(ctx context.Context, req *registrypb.CreateTokenRequest) (*registrypb.CreateTokenResponse, error) {
	return &registrypb.CreateTokenResponse{}, n.enter(ctx, "Create", req)
}

func (n *fakeNode) Rotate(ctx context.Context, req *registrypb.RotateTokenRequest) (*registrypb.RotateTokenResponse, error) {
	return &registrypb.RotateTokenResponse{Token: &registrypb.Token{Id: hex.EncodeToString(fakeToken)}}, n.enter(ctx, "Rotate", req)
}

func (n *fakeNode) Revoke(ctx context.Context, req *registrypb.RevokeTokenRequest) (*registrypb.RevokeTokenResponse, error) {
	return &registrypb.RevokeTokenResponse{Removed: true}, n.enter(ctx, "Revoke", req)
}

// List lists a token a page.
func (n *fakeNode) List(_ context.Context, req *registrypb.ListTokensRequest) (*registrypb.ListTokensResponse, error) {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	resp := &registrypb.ListTokensResponse{On: true, Receipt: n.receipt(), NextPageToken: "a", Tokens: []*registrypb.Token{{Id: "00", Name: "a"}}}
	if req.GetPageToken() != "" {
		resp.NextPageToken, resp.Tokens = "", []*registrypb.Token{{Id: hex.EncodeToString(fakeToken), Name: "web"}}
	}
	return resp, nil
}

// secretsOf collects the ids and hashes that nodes get. A request that is not a rotation
// has an id.
type secretsOf struct {
	mu  sync.Mutex
	all [][2][]byte
}

func (s *secretsOf) add(req any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := req.(type) {
	case *registrypb.RotateTokenRequest:
		s.all = append(s.all, [2][]byte{fakeToken, r.GetHash()})
	case interface {
		GetToken() *registrypb.NewToken
	}:
		s.all = append(s.all, [2][]byte{r.GetToken().GetId(), r.GetToken().GetHash()})
	}
}

// check wants that many attempts, all with the id and hash of the text.
func (s *secretsOf) check(t *testing.T, text string, least int) {
	t.Helper()
	id, hash, err := registrypb.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) < least {
		t.Errorf("%d attempts, want %d", len(s.all), least)
	}
	for _, got := range s.all {
		if string(got[0]) != id || !bytes.Equal(got[1], hash[:]) {
			t.Errorf("an attempt with the id %x and the hash %x", got[0], got[1])
		}
	}
}

// issuers are the calls that make tokens.
var issuers = map[string]func(context.Context, *Client) (string, error){
	"init":   func(ctx context.Context, c *Client) (string, error) { return c.InitTokens(ctx, "first") },
	"create": func(ctx context.Context, c *Client) (string, error) { return c.CreateToken(ctx, NewToken{Name: "web"}) },
	"rotate": func(ctx context.Context, c *Client) (string, error) { return c.RotateToken(ctx, "web", 0) },
}

// An answer that is lost: the next attempt makes the same token.
func TestTokenCallIsRepeatedWithItsSecret(t *testing.T) {
	t.Parallel()
	for name, issue := range issuers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, 2)
				var got secretsOf
				for i, n := range cl.nodes {
					n.script(func(_ context.Context, _ string, req any) error {
						got.add(req)
						if i == 0 {
							return status.Error(codes.Unavailable, "the answer is lost")
						}
						return nil
					})
				}
				text, err := issue(testContext(t), cl.client(cl.target(), WithAttemptTimeout(within))) // a slow attempt would not arrive
				if err != nil {
					t.Fatal(err)
				}
				got.check(t, text, 2)
			})
		})
	}
}

// The text is returned unless the token certainly does not exist.
func TestTokenOfAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, issue := range issuers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newFakeCluster(t, 1)
				c := cl.client(cl.target(), WithCallTimeout(2*time.Second))
				var got secretsOf
				cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
					got.add(req)
					return status.Error(codes.Unavailable, "the answer is lost")
				})
				text, err := issue(context.Background(), c)
				if !errors.Is(err, ErrOutcomeUnknown) {
					t.Fatal(err)
				}
				got.check(t, text, 1)
				cl.nodes[0].script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_CONFLICT) })
				if text, err := issue(testContext(t), c); text != "" || !errors.Is(err, ErrConflict) {
					t.Errorf("%q, %v", text, err)
				}
			})
		})
	}
}

// A revocation whose answer was lost has removed the token.
func TestRevocationWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		cl.nodes[0].script(func(context.Context, string, any) error { return status.Error(codes.Unavailable, "the answer is lost") })
		cl.nodes[1].script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_UNKNOWN_TOKEN) })
		if err := cl.client(cl.target(0, 1)).RevokeToken(testContext(t), "web"); err != nil {
			t.Error(err)
		}
		if err := cl.client(cl.target(1)).RevokeToken(testContext(t), "web"); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("without an attempt before: %v", err)
		}
	})
}

func TestRightsHaveNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Right{
		"discover": Discover, "discover,register": Discover | Register, "admin,operate": Admin | Operate,
	} {
		got, err := ParseRights(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseRights(got.String()); err != nil || again != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "read", "discover,", "Admin"} {
		if r, err := ParseRights(text); err == nil {
			t.Errorf("%q: %v", text, r)
		}
	}
	if g := (Grant{Discover | Register, "web-"}); g.String() != "discover,register:web-" {
		t.Error(g)
	}
}
