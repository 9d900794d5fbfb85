package registrypb

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// A token has one spelling, and its hash is that of its secret.
func FuzzParseToken(f *testing.F) {
	text, _, _ := MakeToken()
	f.Add(text)
	f.Add(strings.ToUpper(text))
	f.Add(text[:len(text)-1])
	f.Add(text + "=")
	f.Add("rgt_" + strings.Repeat("_", 53) + "-")
	f.Add("rgt_" + strings.Repeat("A", 53) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		id, hash, err := ParseToken(text)
		if err != nil {
			if id != "" || hash != [sha256.Size]byte{} || err.Error() != ErrToken.Error() {
				t.Fatalf("%q: %q, %x, %v", text, id, hash, err)
			}
			return
		}
		raw, err := base64.RawURLEncoding.DecodeString(text[len(tokenPrefix):])
		if err != nil || len(raw) != TokenIDSize+TokenSecretSize || id != string(raw[:TokenIDSize]) || hash != sha256.Sum256(raw[TokenIDSize:]) {
			t.Fatalf("%q: %q, %x", text, id, hash)
		}
		if again := tokenPrefix + base64.RawURLEncoding.EncodeToString(raw); again != text {
			t.Fatalf("%q is another spelling of %q", text, again)
		}
	})
}
