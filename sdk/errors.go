package sdk

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Every error of this package that tells of the registry is an *Error, and
// errors.Is finds at most one of these sentinels in it. Errors that end a call
// because its context ended also match context.Canceled or
// context.DeadlineExceeded.
var (
	// ErrInvalidArgument: a field is out of its limits; nothing was done.
	// The *Error names the field and the limit.
	ErrInvalidArgument = errors.New("registry: invalid argument")
	// ErrUnknownGroup: there is no such group.
	ErrUnknownGroup = errors.New("registry: unknown group")
	// ErrEmptyGroup: the group exists and no member of it owns keys.
	ErrEmptyGroup = errors.New("registry: empty group")
	// ErrGroupNotEmpty: the group has members, and deleting it was not forced.
	ErrGroupNotEmpty = errors.New("registry: group not empty")
	// ErrUnknownMember: the group has no such member.
	ErrUnknownMember = errors.New("registry: unknown member")
	// ErrConflict: another live process at another address holds the id.
	ErrConflict = errors.New("registry: id held by another process")
	// ErrFenced: this registration was removed or replaced by someone and may
	// not come back.
	ErrFenced = errors.New("registry: fenced")
	// ErrNoLeader: the cluster had no leader for as long as the call could
	// wait; nothing was done.
	ErrNoLeader = errors.New("registry: no leader")
	// ErrOutcomeUnknown: the write may or may not have taken effect, or may
	// still take effect. The same call may be repeated without harm.
	ErrOutcomeUnknown = errors.New("registry: outcome unknown")
	// ErrNotReady: the nodes that could be reached had not caught up yet.
	ErrNotReady = errors.New("registry: not ready")
	// ErrStale: no node could answer as freshly as the caller demands.
	ErrStale = errors.New("registry: stale")
	// ErrRevisionMismatch: the group is not at the expected revision.
	ErrRevisionMismatch = errors.New("registry: revision mismatch")
	// ErrUnknownNode: the cluster has no such node.
	ErrUnknownNode = errors.New("registry: unknown node")
	// ErrMembership: a node's id or data does not fit the cluster.
	ErrMembership = errors.New("registry: membership")
	// ErrWrongCluster: the nodes that could be reached are of another cluster than
	// the one that the client was given (WithCluster, WithDiskCopy) or that
	// answered it first; nothing was done. A cluster that was formed anew, under
	// the same name too, is another: a new Client takes it.
	ErrWrongCluster = errors.New("registry: wrong cluster")
	// ErrExhausted: a limit on the whole cluster is reached.
	ErrExhausted = errors.New("registry: exhausted")
	// ErrBusy: the nodes that could be reached had too much to do for as long as
	// the call could wait; nothing was done.
	ErrBusy = errors.New("registry: busy")
	// ErrUnavailable: no node could be reached. The message names the
	// addresses that were tried and what each said.
	ErrUnavailable = errors.New("registry: unavailable")
	// ErrClosed: the client or the registration was closed by its owner.
	ErrClosed = errors.New("registry: closed")
)

// Reason is the kind of an Error. The numbers are those of the API.
type Reason int32

// Reasons of an Error. An Error without one is told apart by its Code.
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
}

// Error is what the registry, or the lack of one, answered to a call.
type Error struct {
	// Op is the call, match for instance.
	Op string
	// Reason says what to do about it; errors.Is with a sentinel asks for it.
	Reason Reason
	// Field and Limit tell what was wrong with an argument.
	Field string
	Limit string
	// Message is for people.
	Message string
	// Code is the gRPC code that the error travelled under.
	Code codes.Code

	cause error // the context's error, when that ended the call
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

// errorFromStatus turns what gRPC returned into an *Error. It decides by code
// and detail, never by text.
func errorFromStatus(op string, err error) *Error {
	st, _ := status.FromError(err)
	e := &Error{Op: op, Message: st.Message(), Code: st.Code()}
	for _, d := range st.Details() {
		if d, ok := d.(*registrypb.ErrorDetail); ok {
			e.Reason = Reason(d.GetReason())
			e.Field, e.Limit = d.GetField(), d.GetLimit()
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
