package sdk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Right is what a token may do, as a set of bits. No right includes another.
type Right uint8

const (
	// Discover: read groups, match keys, watch.
	Discover Right = 1 << iota
	// Register: register members, and change and deregister those of this token.
	Register
	// Operate: create, change and delete groups, and change and deregister every member.
	Operate
	// Admin: manage the nodes and the tokens. Its prefix is empty.
	Admin
)

// rights are the names of the rights, in the order of their bits.
var rights = []string{"discover", "register", "operate", "admin"}

// String returns the names of the rights, separated by commas.
func (r Right) String() string {
	var names []string
	for i, name := range rights {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// ParseRights returns the rights with those names, separated by commas.
func ParseRights(s string) (Right, error) {
	var r Right
	for name := range strings.SplitSeq(s, ",") {
		bit := Right(0)
		for i, known := range rights {
			if name == known {
				bit = 1 << i
			}
		}
		if bit == 0 {
			return 0, fmt.Errorf("right %q, want discover, register, operate or admin", name)
		}
		r |= bit
	}
	return r, nil
}

// Grant gives rights on all groups whose names begin with a prefix.
type Grant struct {
	Rights Right
	Prefix string // at most 255 bytes; empty: all groups
}

// String returns RIGHTS or RIGHTS:PREFIX.
func (g Grant) String() string {
	if g.Prefix == "" {
		return g.Rights.String()
	}
	return g.Rights.String() + ":" + g.Prefix
}

// NewToken is a token to be created.
type NewToken struct {
	Name   string  // unique; 1–255 bytes of printable UTF-8 without "/"
	Grants []Grant // 1–64
	// ExpiresAt is when the token ends; zero: when it is revoked.
	ExpiresAt time.Time
}

// Token is what the cluster knows of a token, which cannot be used as one.
type Token struct {
	ID        string // 16 hex digits
	Name      string
	Grants    []Grant
	ExpiresAt time.Time // zero: it does not expire
	CreatedAt time.Time // by the leader's clock, for display
	// PreviousUntil is until when the secret before the last rotation is valid; zero:
	// it is not.
	PreviousUntil time.Time
}

// InitTokens creates the first token of the cluster, which has all rights and does not
// expire, and returns its text. From then on every call needs a token: one of a client
// that has it by WithToken or WithTokenFile. If tokens are on already, it is
// ErrConflict.
//
// The text exists nowhere else. After ErrOutcomeUnknown it is returned too, since it
// may be valid.
func (c *Client) InitTokens(ctx context.Context, name string) (text string, err error) {
	text, token := makeToken(NewToken{Name: name})
	req := &registrypb.InitTokensRequest{Token: token}
	return c.tokenCall(ctx, "init tokens", text, func(ctx context.Context, a *attempt) error {
		resp, err := a.tokens().Init(ctx, req, a.opts...)
		c.observe(resp.GetIndex())
		return err
	})
}

// CreateToken creates a token and returns its text, which exists nowhere else. After
// ErrOutcomeUnknown the text is returned too, since it may be valid. If another token
// has the name, it is ErrConflict.
func (c *Client) CreateToken(ctx context.Context, n NewToken) (text string, err error) {
	text, token := makeToken(n)
	req := &registrypb.CreateTokenRequest{Token: token}
	return c.tokenCall(ctx, "create token", text, func(ctx context.Context, a *attempt) error {
		resp, err := a.tokens().Create(ctx, req, a.opts...)
		c.observe(resp.GetIndex())
		return err
	})
}

// RotateToken gives a token another secret, and returns the new text. The old one stays
// valid for the overlap, 0–24 h. Grants and registrations stay. After ErrOutcomeUnknown
// the text is returned too, since it may be valid.
func (c *Client) RotateToken(ctx context.Context, name string, overlap time.Duration) (text string, err error) {
	if err := checkText("rotate token", "name", name); err != nil {
		return "", err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	id, err := c.tokenID(ctx, name)
	if err != nil {
		return "", err
	}
	text, hash := registrypb.MakeTokenSecret(id)
	req := &registrypb.RotateTokenRequest{Name: name, Hash: hash, Overlap: durationpb.New(overlap)}
	return c.tokenCall(ctx, "rotate token", text, func(ctx context.Context, a *attempt) error {
		resp, err := a.tokens().Rotate(ctx, req, a.opts...)
		c.observe(resp.GetIndex())
		if err == nil && resp.GetToken().GetId() != hex.EncodeToString(id) {
			return &Error{Op: "rotate token", Message: fmt.Sprintf("the token %q was replaced by another one meanwhile: rotate it again", name)}
		}
		return err
	})
}

// tokenCall runs a call that makes text a token. Every attempt has the same id and hash.
func (c *Client) tokenCall(ctx context.Context, op, text string, f attemptFunc) (string, error) {
	if err := c.open(); err != nil {
		return "", err
	}
	err := c.do(ctx, op, writeKind, f)
	if err != nil && !errors.Is(err, ErrOutcomeUnknown) {
		return "", err
	}
	return text, err
}

// tokenID returns the id of the token with the name, by the leader's state.
func (c *Client) tokenID(ctx context.Context, name string) ([]byte, error) {
	all, err := c.Tokens(ctx, Linearizable())
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.Name == name {
			return hex.DecodeString(t.ID)
		}
	}
	return nil, &Error{Op: "rotate token", Reason: reasonUnknownToken, Message: fmt.Sprintf("there is no token %q", name)}
}

// RevokeToken removes a token. Its streams end within a second, on each node after that
// has applied it; its members stay until their leases end. Without such a token it is
// ErrUnknownToken. The last one that has the right Admin and does not expire cannot be
// revoked: ErrLastAdmin.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	req := &registrypb.RevokeTokenRequest{Name: name}
	if err := checkText("revoke token", "name", name); err != nil {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	cl := c.newCall("revoke token", writeKind)
	err := cl.run(ctx, func(ctx context.Context, a *attempt) error {
		resp, err := a.tokens().Revoke(ctx, req, a.opts...)
		c.observe(resp.GetIndex())
		return err
	})
	if cl.unknown && errors.Is(err, ErrUnknownToken) {
		return nil // an earlier attempt removed it
	}
	return err
}

// Tokens lists the tokens, ordered by name. While tokens are off there is none. They are
// read in pages of about 1 MiB, each of the node's state at that time. The receipt is
// that of the first page.
func (c *Client) Tokens(ctx context.Context, opts ...ReadOption) ([]Token, error) {
	var out []Token
	o := readOptionsOf(opts)
	for next := ""; ; {
		page, err := c.tokensPage(ctx, next, o)
		if err != nil {
			return nil, err
		}
		for _, t := range page.GetTokens() {
			out = append(out, tokenFromProto(t))
		}
		last := next
		if next = page.GetNextPageToken(); next == "" {
			return out, nil
		}
		if next <= last {
			return nil, &Error{Op: "tokens", Message: "malformed answer: the next page does not begin after this one"}
		}
		o = readOptions{minIndex: page.GetReceipt().GetIndex()}
	}
}

func (c *Client) tokensPage(ctx context.Context, after string, o readOptions) (resp *registrypb.ListTokensResponse, err error) {
	req := &registrypb.ListTokensRequest{PageSize: pageSize, PageToken: after}
	err = c.readCall(ctx, "tokens", req, o, func(ctx context.Context, a *attempt) (r *registrypb.Receipt, err error) {
		req.Read = a.read
		resp, err = a.tokens().List(ctx, req, a.opts...)
		return resp.GetReceipt(), err
	})
	return resp, err
}

// Self returns the client's own token. While tokens are off it is ErrTokensOff.
func (c *Client) Self(ctx context.Context) (Token, error) {
	if err := c.open(); err != nil {
		return Token{}, err
	}
	var resp *registrypb.SelfResponse
	err := c.do(ctx, "self", readKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.tokens().Self(ctx, &registrypb.SelfRequest{}, a.opts...)
		return err
	})
	if err == nil && resp.GetToken() == nil {
		err = &Error{Op: "self", Reason: reasonTokensOff, Message: "tokens are off"}
	}
	if err != nil {
		return Token{}, err
	}
	return tokenFromProto(resp.GetToken()), nil
}

// makeToken makes the text of a new token and what the nodes get of it.
func makeToken(n NewToken) (text string, out *registrypb.NewToken) {
	text, id, hash := registrypb.MakeToken()
	out = &registrypb.NewToken{Id: id, Hash: hash, Name: n.Name}
	for _, g := range n.Grants {
		out.Grants = append(out.Grants, &registrypb.Grant{Rights: g.Rights.proto(), Prefix: g.Prefix})
	}
	if !n.ExpiresAt.IsZero() {
		out.ExpiresAt = timestamppb.New(n.ExpiresAt)
	}
	return text, out
}

// proto has also the bits that stand for no right: the node refuses them.
func (r Right) proto() (out []registrypb.Right) {
	for bit := range 8 {
		if r&(1<<bit) != 0 {
			out = append(out, registrypb.Right(bit+1))
		}
	}
	return out
}

func tokenFromProto(t *registrypb.Token) Token {
	out := Token{ID: t.GetId(), Name: t.GetName()}
	for _, g := range t.GetGrants() {
		grant := Grant{Prefix: g.GetPrefix()}
		for _, r := range g.GetRights() {
			if r >= 1 && int(r) <= len(rights) { // else of a later version
				grant.Rights |= 1 << (r - 1)
			}
		}
		out.Grants = append(out.Grants, grant)
	}
	for at, from := range map[*time.Time]*timestamppb.Timestamp{
		&out.ExpiresAt: t.GetExpiresAt(), &out.CreatedAt: t.GetCreatedAt(), &out.PreviousUntil: t.GetPreviousUntil(),
	} {
		if from != nil {
			*at = from.AsTime()
		}
	}
	return out
}
