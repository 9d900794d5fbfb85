package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// ErrUnauthenticated: the call has no token, or one that is not valid.
var ErrUnauthenticated = errors.New("unauthenticated")

// errUnknown says the same of an unknown token and of one with another secret.
var errUnknown = fmt.Errorf("%w: the token is unknown, or was revoked", ErrUnauthenticated)

// ErrDenied: the token does not allow the call.
var ErrDenied = errors.New("permission denied")

// Caller is who makes a call. The zero Caller may do everything: tokens are off.
type Caller struct {
	// Token is nil while tokens are off.
	Token *fsm.Token
	// Until is when the presented secret ends; zero: it does not.
	Until time.Time
}

// bearer is the scheme of the authorization header. As RFC 9110 says, its case does not
// matter.
const bearer = "bearer "

// Identify returns the caller that presents the values of the authorization header, by
// the tokens of a state. Its errors are ErrUnauthenticated, and never show what was
// presented.
func Identify(state *fsm.State, headers []string, now time.Time) (Caller, error) {
	if !state.TokensOn() {
		return Caller{}, nil
	}
	id, hash, err := parse(headers)
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	t := state.Token(id)
	if t == nil {
		return Caller{}, errUnknown
	}
	return presented(t, hash[:], now)
}

// Presented returns the id of the token in the values of the authorization header,
// valid or not; empty: there is none.
func Presented(headers []string) string {
	id, _, err := parse(headers)
	if err != nil {
		return ""
	}
	return id
}

func parse(headers []string) (id string, hash [sha256.Size]byte, err error) {
	switch {
	case len(headers) == 0:
		return "", hash, errors.New("this cluster needs a token")
	case len(headers) > 1:
		return "", hash, fmt.Errorf("authorization is there %d times, want once", len(headers))
	}
	text := headers[0]
	if len(text) < len(bearer) || !strings.EqualFold(text[:len(bearer)], bearer) {
		return "", hash, errors.New("authorization is not of the form \"Bearer TOKEN\"")
	}
	return registrypb.ParseToken(text[len(bearer):])
}

// presented checks a secret's hash. It compares with both hashes in constant time.
func presented(t *fsm.Token, hash []byte, now time.Time) (Caller, error) {
	current := subtle.ConstantTimeCompare(hash, t.Hash[:]) == 1
	previous := subtle.ConstantTimeCompare(hash, t.PreviousHash[:]) == 1
	until := t.ExpiresMS
	switch {
	case current:
	case previous && t.PreviousExpiresMS != 0:
		if until == 0 || t.PreviousExpiresMS < until {
			until = t.PreviousExpiresMS
		}
	default:
		return Caller{}, errUnknown
	}
	c := Caller{Token: t}
	if until != 0 {
		if c.Until = time.UnixMilli(until); !now.Before(c.Until) {
			return Caller{}, &ExpiredError{Name: t.Name, At: c.Until}
		}
	}
	return c, nil
}

// Need is one thing that a call needs: one of the rights, on a group or on all groups
// that begin with a prefix.
type Need struct {
	AnyOf fsm.Right
	Field string // of the request, that names the group or prefix
	Name  string // the group or the prefix
}

// DeniedError is an ErrDenied that says what was needed and what the token allows.
type DeniedError struct {
	Need
	token *fsm.Token
}

func (e *DeniedError) Error() string {
	text := fmt.Sprintf("%s: the token %q lacks the right %s", ErrDenied, e.token.Name, alternatives(e.AnyOf))
	if e.Field != "" {
		text += fmt.Sprintf(" for %s %q", e.Field, e.Name)
	}
	return text + "; it has " + e.Limit()
}

// Is makes errors.Is find ErrDenied.
func (e *DeniedError) Is(target error) bool { return target == ErrDenied }

// Limit says what the token allows.
func (e *DeniedError) Limit() string {
	list := make([]string, len(e.token.Grants))
	for i, g := range e.token.Grants {
		list[i] = g.String()
	}
	return strings.Join(list, ", ")
}

func alternatives(r fsm.Right) string { return strings.ReplaceAll(r.String(), ",", " or ") }

// Check returns a DeniedError for the first need that the caller's token does not meet.
func (c Caller) Check(needs ...Need) error {
	if c.Token == nil {
		return nil
	}
	for _, n := range needs {
		if !c.allowsAny(n.AnyOf, n.Name) {
			return &DeniedError{n, c.Token}
		}
	}
	return nil
}

func (c Caller) allowsAny(rights fsm.Right, name string) bool {
	for r := fsm.Discover; r <= fsm.Admin; r <<= 1 {
		if rights&r != 0 && c.Token.Allows(r, name) {
			return true
		}
	}
	return false
}

// Stands reports whether Identify would return the caller again: the state has its token
// as it was, and the secret has not ended. It costs a lookup and no hash.
func (c Caller) Stands(state *fsm.State, now time.Time) bool {
	if c.Token == nil {
		return !state.TokensOn()
	}
	return state.Token(c.Token.ID) == c.Token && (c.Until.IsZero() || now.Before(c.Until))
}

// Owner is the id of the token that the caller's registrations belong to; empty while
// tokens are off.
func (c Caller) Owner() []byte {
	if c.Token == nil {
		return nil
	}
	return []byte(c.Token.ID)
}

// AnyOwner reports whether the caller may change members of the group that belong to
// other tokens.
func (c Caller) AnyOwner(group string) bool {
	return c.Token == nil || c.Token.Allows(fsm.Operate, group)
}

// Renews reports whether the caller may renew a lease of the group that belongs to that
// token.
func (c Caller) Renews(group, owner string) bool {
	return c.AnyOwner(group) || (owner == "" || owner == c.Token.ID) && c.Token.Allows(fsm.Register, group)
}
