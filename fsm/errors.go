package fsm

import (
	"errors"
	"fmt"
)

// Errors of commands. Only the state's index has changed then.
var (
	// ErrUnknownGroup: the group does not exist.
	ErrUnknownGroup = errors.New("unknown group")
	// ErrGroupNotEmpty: a group with members is deleted only by force.
	ErrGroupNotEmpty = errors.New("group has members")
	// ErrUnknownMember: the group has no such member.
	ErrUnknownMember = errors.New("unknown member")
	// ErrConflict: the id is held by another live instance at another address, or
	// another token has the id or the name.
	ErrConflict = errors.New("id is held by another instance")
	// ErrFenced: this instance was deregistered, or another one took over its id.
	ErrFenced = errors.New("registration was ended")
	// ErrRevisionMismatch: the group is not at the expected revision.
	ErrRevisionMismatch = errors.New("group is at another revision")
	// ErrNotOwner: the member belongs to another token.
	ErrNotOwner = errors.New("registration belongs to another token")
	// ErrTokensOff: there is no token, so only the first can be created.
	ErrTokensOff = errors.New("tokens are off")
	// ErrUnknownToken: there is no such token.
	ErrUnknownToken = errors.New("unknown token")
	// ErrLastAdmin: nobody could create a token again without this one.
	ErrLastAdmin = errors.New("last token with the right admin that does not expire")
	// ErrFeatureLevel: the feature level does not allow it; see [LevelError].
	ErrFeatureLevel = errors.New("feature level")
	// ErrExhausted: a bound on the state would be exceeded.
	ErrExhausted = errors.New("limit reached")
)

// ErrInvalid is what every [FieldError] is.
var ErrInvalid = errors.New("invalid argument")

// FieldError says which field of a call is out of which limit.
type FieldError struct {
	// Field is the name in the public API, for instance "ttl".
	Field string
	// Limit says what is allowed, for instance "1s to 24h0m0s".
	Limit string
	// Got is the given value, shortened if it is long.
	Got string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: must be %s, got %s", e.Field, e.Limit, e.Got)
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

// CorruptEntryError is what Apply panics with at an entry that this version cannot
// read: to go on would make the nodes differ.
type CorruptEntryError struct {
	Index uint64
	Cause error
}

func (e *CorruptEntryError) Error() string {
	return fmt.Sprintf("log entry %d cannot be applied: %v", e.Index, e.Cause)
}

func (e *CorruptEntryError) Unwrap() error { return e.Cause }
