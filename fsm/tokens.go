package fsm

import (
	"fmt"
	"slices"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Token is a client's credential: the hash of its secret and what it allows. A
// published token never changes. Its times are Unix milliseconds; the state machine
// has no clock and does not judge them.
type Token struct {
	// ID is [TokenIDSize] random bytes.
	ID string
	// Name is unique.
	Name string
	// Hash is the SHA-256 of the secret.
	Hash   [TokenHashSize]byte
	Grants []Grant
	// ExpiresMS is 0 for a token that does not expire.
	ExpiresMS int64
	// CreatedMS is the leader's clock at the creation, for display only.
	CreatedMS int64
	// PreviousHash is the hash before the last rotation. It is valid until
	// PreviousExpiresMS; 0: there is no previous hash.
	PreviousHash      [TokenHashSize]byte
	PreviousExpiresMS int64
	// CreatedIndex and ModifiedIndex are the log indexes of the entries that created
	// the token and rotated it last.
	CreatedIndex  uint64
	ModifiedIndex uint64

	digest uint64
}

// tokens holds them by id and by name. Like a published table, it never changes.
type tokens struct{ byID, byName *table[*Token] }

func newTokens() tokens {
	return tokens{byID: newTable[*Token](), byName: newTable[*Token]()}
}

func (t tokens) copy() tokens { return tokens{t.byID.IsoCopy(), t.byName.IsoCopy()} }

// putToken adds a token, or replaces the one with its id and name.
func (b *batch) putToken(t *Token) {
	t.digest = tokenDigest(t)
	b.next.tokens = b.next.tokens.copy()
	if old, had := b.next.tokens.byID.Set(t.ID, t); had {
		b.next.digest -= old.digest
	}
	b.next.tokens.byName.Set(t.Name, t)
	b.next.digest += t.digest
	b.next.tokensRevision = b.index
}

// createToken adds a token. The first one turns tokens on for ever: it is an
// administrator that does not expire, see Validate, and the last one of these cannot
// be revoked.
func (b *batch) createToken(c *fsmpb.CreateToken, timeMS int64) Result {
	t := newToken(c.Token)
	old, named := b.next.Token(t.ID), b.next.TokenNamed(t.Name)
	switch {
	case old != nil && old.sameAs(t):
		return Result{} // a retry
	case old != nil:
		return Result{Err: tokenConflict("another token has this id")}
	case c.First && b.next.TokensOn():
		return Result{Err: ErrTokensOn}
	case !c.First && !b.next.TokensOn():
		return Result{Err: fmt.Errorf("%w: the first token turns them on", ErrTokensOff)}
	case named != nil:
		return Result{Err: tokenConflict(fmt.Sprintf("another token has the name %q", t.Name))}
	case b.next.tokens.byID.Len() >= MaxTokens:
		return Result{Err: exhausted("tokens", MaxTokens)}
	}
	t.CreatedMS, t.CreatedIndex, t.ModifiedIndex = timeMS, b.index, b.index
	b.putToken(t)
	return Result{}
}

// newToken has what a creator sets.
func newToken(in *fsmpb.Token) *Token {
	t := &Token{ID: string(in.Id), Name: in.Name, ExpiresMS: in.ExpiresMs, Grants: make([]Grant, len(in.Grants))}
	copy(t.Hash[:], in.Hash)
	for i, g := range in.Grants {
		t.Grants[i] = Grant{Rights: Right(g.Rights), Prefix: g.Prefix}
	}
	return t
}

// sameAs compares what a creator sets.
func (t *Token) sameAs(o *Token) bool {
	return t.ID == o.ID && t.Name == o.Name && t.Hash == o.Hash && t.ExpiresMS == o.ExpiresMS && slices.Equal(t.Grants, o.Grants)
}

// rotateToken replaces the hash of a token's secret. The hash before the previous one
// is no longer valid.
func (b *batch) rotateToken(c *fsmpb.RotateToken) Result {
	old := b.next.Token(string(c.Id))
	if old == nil {
		return Result{Err: fmt.Errorf("%w: %x", ErrUnknownToken, c.Id)}
	}
	t := *old
	if copy(t.Hash[:], c.Hash); t.Hash == old.Hash {
		return Result{} // a retry
	}
	t.PreviousHash, t.PreviousExpiresMS = [TokenHashSize]byte{}, c.PreviousExpiresMs
	if c.PreviousExpiresMs != 0 {
		t.PreviousHash = old.Hash
	}
	t.ModifiedIndex = b.index
	b.putToken(&t)
	return Result{}
}

// revokeToken removes a token, but never the last one that could create others.
// Members that belong to it stay while their leases are renewed.
func (b *batch) revokeToken(c *fsmpb.RevokeToken) Result {
	t := b.next.Token(string(c.Id))
	if t == nil {
		return Result{}
	}
	if t.lastingAdmin() && b.next.lastingAdmins() == 1 {
		return Result{Err: fmt.Errorf("%w: %q", ErrLastAdmin, t.Name)}
	}
	b.next.tokens = b.next.tokens.copy()
	b.next.tokens.byID.Delete(t.ID)
	b.next.tokens.byName.Delete(t.Name)
	b.next.digest -= t.digest
	b.next.tokensRevision = b.index
	return Result{Removed: true}
}

func (t *Token) lastingAdmin() bool { return t.ExpiresMS == 0 && t.Allows(Admin, "") }

func (s *State) lastingAdmins() (n int) {
	for t := range s.Tokens {
		if t.lastingAdmin() {
			n++
		}
	}
	return n
}

// ErrTokensOn: the first token exists. It is an [ErrConflict].
var ErrTokensOn error = tokenConflict("tokens are on already")

// tokenConflict is an [ErrConflict] about tokens.
type tokenConflict string

func (e tokenConflict) Error() string { return string(e) }

func (tokenConflict) Is(target error) bool { return target == ErrConflict }

// TokensOn is false until the first token was created, and true from then on.
func (s *State) TokensOn() bool { return s.tokens.byID.Len() > 0 }

// TokenCount is the number of tokens.
func (s *State) TokenCount() int { return s.tokens.byID.Len() }

// TokensRevision is the index of the entry that last changed the tokens.
func (s *State) TokensRevision() uint64 { return s.tokensRevision }

// Token returns the token with the id, or nil.
func (s *State) Token(id string) *Token { return get(s.tokens.byID, id) }

// TokenNamed returns the token with the name, or nil.
func (s *State) TokenNamed(name string) *Token { return get(s.tokens.byName, name) }

// TokensFrom calls yield for every token with the name or a later one, ordered by name,
// until it returns false.
func (s *State) TokensFrom(name string) func(yield func(*Token) bool) {
	return func(yield func(*Token) bool) {
		s.tokens.byName.Ascend(name, func(_ string, t *Token) bool { return yield(t) })
	}
}

// Tokens calls yield for every token, ordered by id, until it returns false.
func (s *State) Tokens(yield func(*Token) bool) {
	s.tokens.byID.Scan(func(_ string, t *Token) bool { return yield(t) })
}
