package registrypb

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// AuthorizationHeader is the metadata key of a caller's token, with the value "Bearer
// TOKEN".
const AuthorizationHeader = "authorization"

// Sizes of the parts of a token, in bytes.
const (
	TokenIDSize     = 8
	TokenSecretSize = 32
)

const tokenPrefix = "rgt_"

// TokenLength is the length of a token's text.
const TokenLength = len(tokenPrefix) + (TokenIDSize+TokenSecretSize)*4/3 + 1

// ErrToken is the error of a text that is no token. It does not show the text.
var ErrToken = errors.New(`token: want "rgt_" and 54 characters of base64url`)

// MakeToken makes a token with a random id and secret. The id and the hash are for the
// nodes, the text for the holder alone.
func MakeToken() (text string, id, hash []byte) {
	id = make([]byte, TokenIDSize)
	_, _ = rand.Read(id) // never fails: documented
	text, hash = MakeTokenSecret(id)
	return text, id, hash
}

// MakeTokenSecret makes another secret for the token with that id.
func MakeTokenSecret(id []byte) (text string, hash []byte) {
	raw := make([]byte, TokenIDSize+TokenSecretSize)
	copy(raw, id)
	_, _ = rand.Read(raw[TokenIDSize:]) // never fails: documented
	sum := sha256.Sum256(raw[TokenIDSize:])
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw), sum[:]
}

// ParseToken returns the id of a token and the hash of its secret, or ErrToken. A token
// has one spelling.
func ParseToken(text string) (id string, hash [sha256.Size]byte, err error) {
	var raw [TokenIDSize + TokenSecretSize + 1]byte
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) != TokenLength {
		return "", hash, ErrToken
	}
	n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(encoded))
	if err != nil || n != TokenIDSize+TokenSecretSize {
		return "", hash, ErrToken
	}
	return string(raw[:TokenIDSize]), sha256.Sum256(raw[TokenIDSize:n]), nil
}

// WithTokenID returns the text of a token with another id and the same secret.
func WithTokenID(text string, id []byte) (string, error) {
	if _, _, err := ParseToken(text); err != nil {
		return "", err
	}
	raw, err := base64.RawURLEncoding.DecodeString(text[len(tokenPrefix):])
	if err != nil || len(id) != TokenIDSize {
		return "", ErrToken
	}
	copy(raw, id)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw), nil
}
