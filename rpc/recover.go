package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// RecoverTokens creates an administrator's token for a caller with the nodes' secret or a
// node's certificate, which could let in a node and so do everything. It needs no token:
// the last administrator's may be lost.
func (p *peerServer) RecoverTokens(ctx context.Context, req *peerpb.RecoverTokensRequest) (*peerpb.RecoverTokensResponse, error) {
	if caller, _ := peer.FromContext(ctx); muxcreds.Certificate(caller) == nil {
		return nil, toStatus(fmt.Errorf("%w: the bind port has no TLS, so anybody could be the caller: start the nodes with a secret", store.ErrMembership))
	}
	token := &fsmpb.Token{Id: req.Id, Name: req.Name, Hash: req.Hash, Grants: allRights()}
	_, index, err := tokensServer{Server: p.server}.create(ctx, token, false)
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.RecoverTokensResponse{Index: index}, nil
}

// RecoverTokens asks the nodes at some bind addresses, one after the other, to create a
// token with all rights, until the leader has. It may be repeated with the same values.
func (p *Peers) RecoverTokens(ctx context.Context, binds []string, t *registrypb.NewToken) error {
	var errs []error
	for _, bind := range binds {
		c, err := p.client(bind)
		if err == nil {
			_, err = c.RecoverTokens(ctx, &peerpb.RecoverTokensRequest{Name: t.Name, Id: t.Id, Hash: t.Hash})
		}
		if err == nil {
			return nil
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			return recoverError(bind, err)
		}
		errs = append(errs, recoverError(bind, err))
	}
	return errors.Join(errs...)
}

func recoverError(bind string, err error) error {
	switch {
	case reasonOf(err) == registrypb.ErrorDetail_NO_LEADER:
		return fmt.Errorf("%s: %w", bind, store.ErrNotLeader)
	case reasonOf(err) == registrypb.ErrorDetail_TOKENS_OFF:
		return fmt.Errorf("%s: %w", bind, fsm.ErrTokensOff)
	}
	return fmt.Errorf("%s: %w", bind, stripStatus(notANode(bind, err)))
}
