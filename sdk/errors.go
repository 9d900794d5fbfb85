package sdk

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// An error of a call to the registry is an *Error, and errors.Is matches at most one
// of these sentinels. If the context ended the call, the error also matches
// context.Canceled or context.DeadlineExceeded.
var (
	// ErrInvalidArgument: a field is outside its limits; nothing was done.
	// The *Error names the field and the limit.
	ErrInvalidArgument = errors.New("registry: invalid argument")
	// ErrUnknownGroup: there is no such group.
	ErrUnknownGroup = errors.New("registry: unknown group")
	// ErrEmptyGroup: the group exists and none of its members owns keys.
	ErrEmptyGroup = errors.New("registry: empty group")
	// ErrGroupNotEmpty: the group has members, and deleting it was not forced.
	ErrGroupNotEmpty = errors.New("registry: group not empty")
	// ErrUnknownMember: the group has no such member.
	ErrUnknownMember = errors.New("registry: unknown member")
	// ErrConflict: a live process at another address has registered the id.
	ErrConflict = errors.New("registry: id held by another process")
	// ErrFenced: someone deregistered this registration, or another process took
	// over its id. Client.Register makes a new one.
	ErrFenced = errors.New("registry: fenced")
	// ErrNoLeader: the cluster had no leader until the call timed out; nothing was
	// done.
	ErrNoLeader = errors.New("registry: no leader")
	// ErrOutcomeUnknown: the write may have taken effect, or may still. The same call
	// may be repeated without harm.
	ErrOutcomeUnknown = errors.New("registry: outcome unknown")
	// ErrNotReady: the reachable nodes had not caught up.
	ErrNotReady = errors.New("registry: not ready")
	// ErrStale: no node met the demanded index or staleness.
	ErrStale = errors.New("registry: stale")
	// ErrRevisionMismatch: the group is not at the expected revision.
	ErrRevisionMismatch = errors.New("registry: revision mismatch")
	// ErrUnknownNode: the cluster has no such node.
	ErrUnknownNode = errors.New("registry: unknown node")
	// ErrMembership: a node's id or data does not match the cluster.
	ErrMembership = errors.New("registry: membership")
	// ErrWrongCluster: the reachable nodes are of another cluster than the client,
	// which has the cluster that was given (WithCluster, WithDiskCopy) or answered
	// first; nothing was done. A cluster that was formed anew under the same name is
	// another one and takes a new Client.
	ErrWrongCluster = errors.New("registry: wrong cluster")
	// ErrExhausted: a limit on the whole cluster is reached.
	ErrExhausted = errors.New("registry: exhausted")
	// ErrBusy: the reachable nodes were overloaded until the call timed out; nothing
	// was done.
	ErrBusy = errors.New("registry: busy")
	// ErrUnauthenticated: the client has no token (WithToken), or one that is unknown,
	// expired or revoked; nothing was done.
	ErrUnauthenticated = errors.New("registry: unauthenticated")
	// ErrPermissionDenied: the client's token does not allow the call; nothing was done.
	// The *Error names the field and what the token allows.
	ErrPermissionDenied = errors.New("registry: permission denied")
	// ErrNotOwner: the member or the lease belongs to another token; nothing was done.
	ErrNotOwner = errors.New("registry: registration belongs to another token")
	// ErrTokensOff: the cluster has no token; InitTokens creates the first one.
	ErrTokensOff = errors.New("registry: tokens are off")
	// ErrLastAdmin: it is the last token that has the right admin and does not expire.
	ErrLastAdmin = errors.New("registry: last administrator's token")
	// ErrUnknownToken: the cluster has no such token.
	ErrUnknownToken = errors.New("registry: unknown token")
	// ErrFeatureLevel: the cluster's feature level does not allow the call yet, or not all
	// nodes support the level; nothing was done. The message names the nodes.
	ErrFeatureLevel = errors.New("registry: feature level")
	// ErrUnavailable: no node could be reached. The message lists the addresses that
	// were tried with their errors.
	ErrUnavailable = errors.New("registry: unavailable")
	// ErrClosed: the client, registration, watch or ring was closed.
	ErrClosed = errors.New("registry: closed")
)

// Reason is the kind of an Error. The numbers are those of the API.
type Reason int32

// An Error with reasonUnspecified is classified by its Code.
const (
	reasonUnspecified      = Reason(registrypb.ErrorDetail_UNSPECIFIED)
	reasonInvalidArgument  = Reason(registrypb.ErrorDetail_INVALID_ARGUMENT)
	reasonUnknownGroup     = Reason(registrypb.ErrorDetail_UNKNOWN_GROUP)
	reasonEmptyGroup       = Reason(registrypb.ErrorDetail_EMPTY_GROUP)
	reasonUnknownMember    = Reason(registrypb.ErrorDetail_UNKNOWN_MEMBER)
	reasonConflict         = Reason(registrypb.ErrorDetail_CONFLICT)
	reasonFenced           = Reason(registrypb.ErrorDetail_FENCED)
	reasonNoLeader         = Reason(registrypb.ErrorDetail_NO_LEADER)
	reasonOutcomeUnknown   = Reason(registrypb.ErrorDetail_OUTCOME_UNKNOWN)
	reasonNotReady         = Reason(registrypb.ErrorDetail_NOT_READY)
	reasonStale            = Reason(registrypb.ErrorDetail_STALE)
	reasonRevisionMismatch = Reason(registrypb.ErrorDetail_REVISION_MISMATCH)
	reasonMembership       = Reason(registrypb.ErrorDetail_MEMBERSHIP)
	reasonExhausted        = Reason(registrypb.ErrorDetail_EXHAUSTED)
	reasonBusy             = Reason(registrypb.ErrorDetail_BUSY)
	reasonGroupNotEmpty    = Reason(registrypb.ErrorDetail_GROUP_NOT_EMPTY)
	reasonUnknownNode      = Reason(registrypb.ErrorDetail_UNKNOWN_NODE)
	reasonWrongCluster     = Reason(registrypb.ErrorDetail_WRONG_CLUSTER)
	reasonUnauthenticated  = Reason(registrypb.ErrorDetail_UNAUTHENTICATED)
	reasonPermissionDenied = Reason(registrypb.ErrorDetail_PERMISSION_DENIED)
	reasonNotOwner         = Reason(registrypb.ErrorDetail_NOT_OWNER)
	reasonTokensOff        = Reason(registrypb.ErrorDetail_TOKENS_OFF)
	reasonLastAdmin        = Reason(registrypb.ErrorDetail_LAST_ADMIN)
	reasonUnknownToken     = Reason(registrypb.ErrorDetail_UNKNOWN_TOKEN)
	reasonFeatureLevel     = Reason(registrypb.ErrorDetail_FEATURE_LEVEL)
)

// String returns the reason in lower case, invalid_argument for instance.
func (r Reason) String() string {
	return strings.ToLower(registrypb.ErrorDetail_Reason(r).String())
}

// sentinels has one error for each reason that the API knows.
var sentinels = map[Reason]error{
	reasonInvalidArgument:  ErrInvalidArgument,
	reasonUnknownGroup:     ErrUnknownGroup,
	reasonEmptyGroup:       ErrEmptyGroup,
	reasonUnknownMember:    ErrUnknownMember,
	reasonConflict:         ErrConflict,
	reasonFenced:           ErrFenced,
	reasonNoLeader:         ErrNoLeader,
	reasonOutcomeUnknown:   ErrOutcomeUnknown,
	reasonNotReady:         ErrNotReady,
	reasonStale:            ErrStale,
	reasonRevisionMismatch: ErrRevisionMismatch,
	reasonMembership:       ErrMembership,
	reasonExhausted:        ErrExhausted,
	reasonBusy:             ErrBusy,
	reasonGroupNotEmpty:    ErrGroupNotEmpty,
	reasonUnknownNode:      ErrUnknownNode,
	reasonWrongCluster:     ErrWrongCluster,
	reasonUnauthenticated:  ErrUnauthenticated,
	reasonPermissionDenied: ErrPermissionDenied,
	reasonNotOwner:         ErrNotOwner,
	reasonTokensOff:        ErrTokensOff,
	reasonLastAdmin:        ErrLastAdmin,
	reasonUnknownToken:     ErrUnknownToken,
	reasonFeatureLevel:     ErrFeatureLevel,
}

// Error is the failure of a call.
type Error struct {
	// Op is the call, match for instance.
	Op string
	// Reason is the kind of the error; errors.Is with a sentinel compares it.
	Reason Reason
	// Field and Limit name the invalid argument and its limit.
	Field string
	Limit string
	// Message is for humans.
	Message string
	// Code is the gRPC status code.
	Code codes.Code

	leases []uint64 // of a heartbeat, that belong to other tokens
	cause  error    // the context's error, when that ended the call
}

// Error returns the call and the message.
func (e *Error) Error() string {
	if e.Op == "" {
		return "registry: " + e.Message
	}
	return "registry: " + e.Op + ": " + e.Message
}

// Is matches the sentinel of the error's reason.
func (e *Error) Is(target error) bool { return target == e.sentinel() }

// Unwrap returns the context's error if that ended the call.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) sentinel() error {
	if s, ok := sentinels[e.Reason]; ok {
		return s
	}
	switch e.Code {
	case codes.InvalidArgument:
		return ErrInvalidArgument
	case codes.ResourceExhausted:
		return ErrExhausted
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return ErrUnavailable
	default:
		return nil
	}
}

// errorFromStatus makes an *Error of a gRPC status, by its code and detail.
func errorFromStatus(op string, err error) *Error {
	st, _ := status.FromError(err)
	e := &Error{Op: op, Message: st.Message(), Code: st.Code()}
	for _, d := range st.Details() {
		if d, ok := d.(*registrypb.ErrorDetail); ok {
			e.Reason = Reason(d.GetReason())
			e.Field, e.Limit, e.leases = d.GetField(), d.GetLimit(), d.GetLeaseIds()
		}
	}
	if e.Message == "" {
		e.Message = st.Code().String()
	}
	return e
}

func invalid(op, field, limit, message string) *Error {
	return &Error{
		Op: op, Reason: reasonInvalidArgument, Code: codes.InvalidArgument,
		Field: field, Limit: limit, Message: message,
	}
}
