package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/lease"
)

// errStale: the state is older than max_staleness.
var errStale = errors.New("answer would be too old")

// errEmptyGroup: no member of the group has points.
var errEmptyGroup = errors.New("group has no members that take keys")

// errStopping: the node is being stopped.
var errStopping = errors.New("node is stopping")

type wireError struct {
	is     error
	code   codes.Code
	reason registrypb.ErrorDetail_Reason
}

// wireErrors is searched in order: outcome errors come before their causes.
var wireErrors = []wireError{
	{fsm.ErrInvalid, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT},
	{auth.ErrUnauthenticated, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED},
	{auth.ErrDenied, codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED},
	{store.ErrOutcomeUnknown, codes.Unknown, registrypb.ErrorDetail_OUTCOME_UNKNOWN},
	{store.ErrNotLeader, codes.Unavailable, registrypb.ErrorDetail_NO_LEADER},
	{store.ErrBusy, codes.Unavailable, registrypb.ErrorDetail_NO_LEADER},
	{store.ErrNotReady, codes.Unavailable, registrypb.ErrorDetail_NOT_READY},
	{store.ErrDiverged, codes.Unavailable, registrypb.ErrorDetail_NOT_READY},
	{errStale, codes.Unavailable, registrypb.ErrorDetail_STALE},
	{rings.ErrBusy, codes.Unavailable, registrypb.ErrorDetail_BUSY},
	{errFull, codes.Unavailable, registrypb.ErrorDetail_BUSY},
	{rings.ErrTooLarge, codes.ResourceExhausted, registrypb.ErrorDetail_EXHAUSTED},
	{fsm.ErrUnknownGroup, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP},
	{fsm.ErrUnknownMember, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_MEMBER},
	{fsm.ErrGroupNotEmpty, codes.FailedPrecondition, registrypb.ErrorDetail_GROUP_NOT_EMPTY},
	{errEmptyGroup, codes.FailedPrecondition, registrypb.ErrorDetail_EMPTY_GROUP},
	{fsm.ErrConflict, codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT},
	{fsm.ErrFenced, codes.FailedPrecondition, registrypb.ErrorDetail_FENCED},
	{fsm.ErrRevisionMismatch, codes.Aborted, registrypb.ErrorDetail_REVISION_MISMATCH},
	{fsm.ErrNotOwner, codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER},
	{fsm.ErrTokensOff, codes.FailedPrecondition, registrypb.ErrorDetail_TOKENS_OFF},
	{fsm.ErrLastAdmin, codes.FailedPrecondition, registrypb.ErrorDetail_LAST_ADMIN},
	{fsm.ErrUnknownToken, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_TOKEN},
	{fsm.ErrFeatureLevel, codes.FailedPrecondition, registrypb.ErrorDetail_FEATURE_LEVEL},
	{fsm.ErrExhausted, codes.ResourceExhausted, registrypb.ErrorDetail_EXHAUSTED},
	{store.ErrDiskLow, codes.ResourceExhausted, registrypb.ErrorDetail_EXHAUSTED},
	{store.ErrUnknownNode, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_NODE},
	{store.ErrMembership, codes.FailedPrecondition, registrypb.ErrorDetail_MEMBERSHIP},
	{errWrongCluster, codes.FailedPrecondition, registrypb.ErrorDetail_WRONG_CLUSTER},
	{errStopping, codes.Unavailable, registrypb.ErrorDetail_NOT_READY},
	{errLate, codes.DeadlineExceeded, registrypb.ErrorDetail_UNSPECIFIED},
	{context.Canceled, codes.Canceled, registrypb.ErrorDetail_UNSPECIFIED},
	{context.DeadlineExceeded, codes.DeadlineExceeded, registrypb.ErrorDetail_UNSPECIFIED},
}

// toStatus converts an error of this module for the wire. An error from the wire stays
// as it is.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	detail := &registrypb.ErrorDetail{}
	code := codes.Internal
	for _, w := range wireErrors {
		if errors.Is(err, w.is) {
			code, detail.Reason = w.code, w.reason
			break
		}
	}
	var field *fsm.FieldError
	if errors.As(err, &field) {
		detail.Field, detail.Limit = field.Field, field.Limit
	}
	if denied, ok := errors.AsType[*auth.DeniedError](err); ok {
		detail.Field, detail.Limit = denied.Field, denied.Limit()
	}
	if refused, ok := errors.AsType[*lease.NotOwnerError](err); ok {
		detail.LeaseIds = refused.LeaseIDs
	}
	if limited, ok := errors.AsType[*auth.LimitedError](err); ok {
		detail.Field, detail.Limit = registrypb.AuthorizationHeader, limited.Limit()
	}
	if full, ok := errors.AsType[*fullError](err); ok {
		detail.Field, detail.Limit = full.of, fmt.Sprintf("at most %d at a node", full.most)
	}
	if refused, ok := errors.AsType[*fsm.LevelError](err); ok {
		detail.Field, detail.Limit = "feature_level", fmt.Sprintf("level %d", refused.Has)
	}
	if errors.Is(err, store.ErrForgotten) {
		detail.Field = "since"
	}
	if errors.Is(err, errPageExpired) {
		detail.Field = "page_token"
	}
	if low, ok := errors.AsType[*store.DiskLowError](err); ok {
		detail.Field, detail.Limit = "disk", low.Limit()
	}
	// What callers sent may be in there, and Protocol Buffers carry only UTF-8.
	detail.Field, detail.Limit = toUTF8(detail.Field), toUTF8(detail.Limit)
	text := toUTF8(err.Error())
	st, derr := status.New(code, text).WithDetails(detail)
	if derr != nil {
		return status.Error(code, text)
	}
	return st.Err()
}

func toUTF8(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// reasonOf returns the reason of an error from the wire.
func reasonOf(err error) registrypb.ErrorDetail_Reason {
	return detailOf(err).GetReason()
}

// detailOf returns the detail of an error from the wire, or nil.
func detailOf(err error) *registrypb.ErrorDetail {
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range st.Details() {
		if detail, ok := d.(*registrypb.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

// peerError is one of the store's errors, from another node.
type peerError struct {
	is  error
	msg string
}

func (e *peerError) Error() string { return e.msg }
func (e *peerError) Unwrap() error { return e.is }

// fromPeer converts another node's error into one of the store's.
func fromPeer(err error) error {
	switch reasonOf(err) {
	case registrypb.ErrorDetail_NO_LEADER:
		return &peerError{is: store.ErrNotLeader, msg: status.Convert(err).Message()}
	case registrypb.ErrorDetail_MEMBERSHIP:
		return &peerError{is: store.ErrMembership, msg: status.Convert(err).Message()}
	}
	return err
}
