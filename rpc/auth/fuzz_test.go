package auth

import (
	"errors"
	"strings"
	"testing"
)

// Nothing but the scheme, in any case, and the text of a token is a caller; and no
// error shows what was presented.
func FuzzIdentify(f *testing.F) {
	k, root := newTokens(f)
	state := k.m.State()
	for _, v := range []string{"", "Bearer " + root, "bEARER " + root, "Bearer  " + root, root, "Basic " + root, "Bearer " + root[:20], "Bearer " + root + "\x00"} {
		f.Add(v, "", false)
		f.Add(v, "Bearer "+root, true)
	}
	f.Fuzz(func(t *testing.T, first, second string, twice bool) {
		headers := []string{first}
		if twice {
			headers = append(headers, second)
		}
		c, err := Identify(state, headers, now)
		valid := !twice && len(first) == len(bearer)+len(root) && strings.EqualFold(first[:len(bearer)], bearer) && first[len(bearer):] == root
		if valid != (err == nil) || valid != (c.Token != nil) {
			t.Fatalf("%q: %+v, %v", headers, c, err)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnauthenticated) {
			t.Fatalf("%q: %v", headers, err)
		}
		if ReasonOf(headers, err) == Missing {
			t.Fatalf("%q: counted as no token", headers)
		}
		for _, h := range headers {
			if len(h) > 30 && strings.Contains(err.Error(), h) {
				t.Fatalf("%q is in %v", h, err)
			}
		}
	})
}
