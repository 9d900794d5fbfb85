package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// maxOverlap bounds how long a secret stays valid after a rotation.
const maxOverlap = 24 * time.Hour

// tokensServer implements the Tokens service.
type tokensServer struct {
	registrypb.UnimplementedTokensServer
	*Server
}

// Init creates the first token.
func (s tokensServer) Init(ctx context.Context, req *registrypb.InitTokensRequest) (*registrypb.InitTokensResponse, error) {
	return onLeader(ctx, s.Server, registrypb.Tokens_Init_FullMethodName, req, s.initTokens)
}

func (s tokensServer) initTokens(ctx context.Context, req *registrypb.InitTokensRequest) (*registrypb.InitTokensResponse, error) {
	if len(req.GetToken().GetGrants()) > 0 || req.GetToken().GetExpiresAt() != nil {
		return nil, &fsm.FieldError{Field: "token", Limit: "without grants and expires_at, for the first one", Got: "one of them"}
	}
	token, err := newToken(req.Token)
	if err != nil {
		return nil, err
	}
	token.Grants = allRights()
	// Callers need no token for this, so what cannot succeed does not reach the log.
	if state := s.store.State(); s.store.IsLeader() && state.TokensOn() {
		t := state.Token(string(token.Id))
		if t == nil || subtle.ConstantTimeCompare(t.Hash[:], token.Hash) != 1 {
			return nil, fsm.ErrTokensOn
		}
		return &registrypb.InitTokensResponse{Token: tokenToWire(t), Index: t.CreatedIndex}, nil
	}
	t, index, err := s.create(ctx, token, true)
	return &registrypb.InitTokensResponse{Token: t, Index: index}, err
}

func allRights() []*fsmpb.Grant {
	return []*fsmpb.Grant{{Rights: uint32(fsm.Discover | fsm.Register | fsm.Operate | fsm.Admin)}}
}

// Create creates a token.
func (s tokensServer) Create(ctx context.Context, req *registrypb.CreateTokenRequest) (*registrypb.CreateTokenResponse, error) {
	return onLeader(ctx, s.Server, registrypb.Tokens_Create_FullMethodName, req, func(ctx context.Context, req *registrypb.CreateTokenRequest) (*registrypb.CreateTokenResponse, error) {
		token, err := newToken(req.Token)
		if err != nil {
			return nil, err
		}
		if at := req.GetToken().GetExpiresAt(); at != nil && !at.AsTime().After(time.Now()) {
			return nil, &fsm.FieldError{Field: "expires_at", Limit: "a time to come", Got: at.AsTime().Format(time.RFC3339)}
		}
		t, index, err := s.create(ctx, token, false)
		return &registrypb.CreateTokenResponse{Token: t, Index: index}, err
	})
}

func (s tokensServer) create(ctx context.Context, token *fsmpb.Token, first bool) (*registrypb.Token, uint64, error) {
	op := &fsmpb.CreateToken{Token: token, First: first}
	r, err := s.writeOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: op}}, byValues("create", op))
	if err != nil {
		return nil, 0, err
	}
	t := s.store.State().Token(string(token.Id))
	if t == nil {
		return nil, 0, fmt.Errorf("%w: %q was created, and revoked since", fsm.ErrUnknownToken, token.Name)
	}
	return tokenToWire(t), r.Index, nil
}

// byValues identifies a request by its values: the id and the secret's hash, which its
// caller makes, are in no other one. So a late attempt neither creates a revoked token
// again nor brings an old secret back.
func byValues(method string, op proto.Message) store.Request {
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte(method), op)
	if err != nil {
		return store.Request{} // invalid UTF-8, which validation refuses
	}
	sum := sha256.Sum256(data)
	return store.Request{ID: sum[:store.RequestIDSize]}
}

// Rotate gives a token another secret.
func (s tokensServer) Rotate(ctx context.Context, req *registrypb.RotateTokenRequest) (*registrypb.RotateTokenResponse, error) {
	return onLeader(ctx, s.Server, registrypb.Tokens_Rotate_FullMethodName, req, s.rotate)
}

func (s tokensServer) rotate(ctx context.Context, req *registrypb.RotateTokenRequest) (*registrypb.RotateTokenResponse, error) {
	overlap := req.GetOverlap().AsDuration()
	if overlap < 0 || overlap > maxOverlap {
		return nil, &fsm.FieldError{Field: "overlap", Limit: "0s to 24h", Got: overlap.String()}
	}
	t, err := s.named(req.Name)
	if err != nil {
		return nil, err
	}
	cmd := &fsmpb.RotateToken{Id: []byte(t.ID), Hash: req.Hash}
	request := byValues("rotate", cmd)
	if overlap > 0 {
		cmd.PreviousExpiresMs = time.Now().Add(overlap).UnixMilli()
	}
	r, err := s.writeOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_RotateToken{RotateToken: cmd}}, request)
	if err != nil {
		return nil, err
	}
	now := s.store.State().Token(t.ID)
	switch {
	case now == nil:
		return nil, fmt.Errorf("%w: %q was rotated, and revoked since", fsm.ErrUnknownToken, req.Name)
	case !bytes.Equal(now.Hash[:], req.Hash):
		return nil, fmt.Errorf("%w: %q was rotated, and again since", fsm.ErrConflict, req.Name)
	}
	return &registrypb.RotateTokenResponse{Token: tokenToWire(now), Index: r.Index}, nil
}

// named returns the token with the name, by the state of this node: only the leader's
// is up to date, and other nodes' errors would hide theirs.
func (s tokensServer) named(name string) (*fsm.Token, error) {
	if err := fsm.ValidateName("name", name); err != nil {
		return nil, err
	}
	t := s.store.State().TokenNamed(name)
	if t != nil {
		return t, nil
	}
	if !s.store.IsLeader() {
		return nil, store.ErrNotLeader
	}
	return nil, fmt.Errorf("%w: %q", fsm.ErrUnknownToken, name)
}

// Revoke removes a token.
func (s tokensServer) Revoke(ctx context.Context, req *registrypb.RevokeTokenRequest) (*registrypb.RevokeTokenResponse, error) {
	return onLeader(ctx, s.Server, registrypb.Tokens_Revoke_FullMethodName, req, s.revoke)
}

func (s tokensServer) revoke(ctx context.Context, req *registrypb.RevokeTokenRequest) (*registrypb.RevokeTokenResponse, error) {
	t, err := s.named(req.Name)
	if err != nil {
		return nil, err
	}
	r, err := s.writeOnce(ctx, &fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: []byte(t.ID)}}}, store.Request{})
	if err != nil {
		return nil, err
	}
	return &registrypb.RevokeTokenResponse{Removed: r.Removed, Index: r.Index}, nil
}

// List lists the tokens.
func (s tokensServer) List(ctx context.Context, req *registrypb.ListTokensRequest) (*registrypb.ListTokensResponse, error) {
	p, err := s.page(req.PageSize, req.PageToken)
	if err == nil && req.PageToken != "" {
		err = fsm.ValidateName("page_token", req.PageToken)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	state, err := s.state(ctx, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &registrypb.ListTokensResponse{On: state.TokensOn(), Receipt: s.receipt(state, nil)}
	last := req.PageToken
	for t := range state.TokensFrom(last) {
		if t.Name == req.PageToken {
			continue // the last of the page before
		}
		if !p.take(tokenSize(t)) {
			if err := p.full(); err != nil {
				return nil, toStatus(err)
			}
			resp.NextPageToken = last
			break
		}
		resp.Tokens, last = append(resp.Tokens, tokenToWire(t)), t.Name
	}
	return resp, nil
}

// Self describes the caller's token.
func (s tokensServer) Self(ctx context.Context, _ *registrypb.SelfRequest) (*registrypb.SelfResponse, error) {
	return &registrypb.SelfResponse{Token: tokenToWire(callerOf(ctx).Token)}, nil
}

// tokenSize is an upper bound of a token's size in a message.
func tokenSize(t *fsm.Token) int {
	size := 128 + len(t.Name)
	for _, g := range t.Grants {
		size += 16 + len(g.Prefix)
	}
	return size
}

// newToken checks what the log's validation does not see: rights that do not exist.
func newToken(in *registrypb.NewToken) (*fsmpb.Token, error) {
	t := &fsmpb.Token{Id: in.GetId(), Name: in.GetName(), Hash: in.GetHash()}
	for i, g := range in.GetGrants() {
		var rights fsm.Right
		for _, r := range g.GetRights() {
			if r < registrypb.Right_RIGHT_DISCOVER || r > registrypb.Right_RIGHT_ADMIN {
				return nil, &fsm.FieldError{Field: fmt.Sprintf("grants[%d].rights", i), Limit: "discover, register, operate or admin", Got: fmt.Sprint(int32(r))}
			}
			rights |= 1 << (r - 1)
		}
		t.Grants = append(t.Grants, &fsmpb.Grant{Rights: uint32(rights), Prefix: g.GetPrefix()})
	}
	if at := in.GetExpiresAt(); at != nil {
		if t.ExpiresMs = at.AsTime().UnixMilli(); !at.IsValid() || t.ExpiresMs <= 0 {
			return nil, &fsm.FieldError{Field: "expires_at", Limit: "after 1970 and before the year 10000", Got: fmt.Sprintf("%d s", at.GetSeconds())}
		}
	}
	return t, nil
}

// tokenToWire returns nil for nil.
func tokenToWire(t *fsm.Token) *registrypb.Token {
	if t == nil {
		return nil
	}
	out := &registrypb.Token{Id: hex.EncodeToString([]byte(t.ID)), Name: t.Name, CreatedAt: timestamppb.New(time.UnixMilli(t.CreatedMS))}
	for _, g := range t.Grants {
		grant := &registrypb.Grant{Prefix: g.Prefix}
		for r := registrypb.Right_RIGHT_DISCOVER; r <= registrypb.Right_RIGHT_ADMIN; r++ {
			if g.Rights&(1<<(r-1)) != 0 {
				grant.Rights = append(grant.Rights, r)
			}
		}
		out.Grants = append(out.Grants, grant)
	}
	if t.ExpiresMS != 0 {
		out.ExpiresAt = timestamppb.New(time.UnixMilli(t.ExpiresMS))
	}
	if t.PreviousExpiresMS != 0 {
		out.PreviousUntil = timestamppb.New(time.UnixMilli(t.PreviousExpiresMS))
	}
	return out
}
