package auth

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// now is when the tests ask.
var now = time.UnixMilli(1_000_000)

// tokens is a state with tokens.
type tokens struct {
	t     testing.TB
	m     *fsm.Machine
	index uint64
	ids   map[string][]byte
}

// newTokens has the first token, "root".
func newTokens(t testing.TB) (k *tokens, root string) {
	t.Helper()
	k = &tokens{t: t, m: fsm.New(), ids: make(map[string][]byte)}
	return k, k.create("root", 0, &fsmpb.Grant{Rights: uint32(fsm.Discover | fsm.Register | fsm.Operate | fsm.Admin)})
}

func (k *tokens) apply(cmd *fsmpb.Command) {
	k.t.Helper()
	data, err := fsm.Encode(cmd)
	if err = errors.Join(err, fsm.Validate(cmd)); err != nil {
		k.t.Fatal(err)
	}
	k.index++
	if r := k.m.Apply([]fsm.Entry{{Index: k.index, Term: 1, Data: data}}); r[0].Err != nil {
		k.t.Fatal(r[0].Err)
	}
}

// create returns the text of a new token.
func (k *tokens) create(name string, expires int64, grants ...*fsmpb.Grant) string {
	k.t.Helper()
	text, id, hash := registrypb.MakeToken()
	k.ids[name] = id
	token := &fsmpb.Token{Id: id, Hash: hash, Name: name, Grants: grants, ExpiresMs: expires}
	k.apply(&fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{Token: token, First: k.index == 0}}})
	return text
}

// rotate returns the new text.
func (k *tokens) rotate(name string, previousExpires int64) string {
	k.t.Helper()
	text, hash := registrypb.MakeTokenSecret(k.ids[name])
	k.apply(&fsmpb.Command{Op: &fsmpb.Command_RotateToken{RotateToken: &fsmpb.RotateToken{Id: k.ids[name], Hash: hash, PreviousExpiresMs: previousExpires}}})
	return text
}

func (k *tokens) named(name string) Caller { return Caller{Token: k.m.State().TokenNamed(name)} }

func grant(prefix string, rights fsm.Right) *fsmpb.Grant {
	return &fsmpb.Grant{Rights: uint32(rights), Prefix: prefix}
}

func bearerOf(token string) []string { return []string{"Bearer " + token} }

// Without tokens everybody is allowed everything, whatever the header has.
func TestIdentifyWithoutTokens(t *testing.T) {
	for _, headers := range [][]string{nil, {"Bearer x"}, {"a", "b"}} {
		c, err := Identify(fsm.New().State(), headers, now)
		if err != nil || c.Token != nil || c.Check(Need{AnyOf: fsm.Admin}) != nil || c.Owner() != nil || !c.AnyOwner("web") || !c.Renews("web", "other") {
			t.Errorf("%q: %+v, %v", headers, c, err)
		}
	}
}

// Once there is a token, nothing but a header with one valid token is a caller.
func TestIdentifyRefuses(t *testing.T) {
	k, root := newTokens(t)
	other, _, _ := registrypb.MakeToken()
	rootID := k.ids["root"]
	guess, _ := registrypb.MakeTokenSecret(rootID)
	expired := k.create("expired", now.UnixMilli(), grant("", fsm.Discover))
	revoked := k.create("revoked", 0, grant("", fsm.Discover))
	k.apply(&fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: k.ids["revoked"]}}})
	rotated := k.create("rotated", 0, grant("", fsm.Discover))
	k.rotate("rotated", 0)
	overlapped := k.create("overlapped", 0, grant("", fsm.Discover))
	k.rotate("overlapped", now.UnixMilli())
	twice := k.create("twice", 0, grant("", fsm.Discover))
	k.rotate("twice", now.UnixMilli()+1)
	k.rotate("twice", now.UnixMilli()+1)
	both := k.create("both", now.UnixMilli(), grant("", fsm.Discover))
	k.rotate("both", now.UnixMilli()+1) // the old secret outlives the token
	for name, headers := range map[string][]string{
		"no header":           nil,
		"an empty one":        {""},
		"only the scheme":     {"Bearer "},
		"no scheme":           {root},
		"another scheme":      {"Basic " + root},
		"a longer scheme":     {"Bearers " + root},
		"no space":            {"Bearer" + root},
		"a tab":               {"Bearer\t" + root},
		"two spaces":          {"Bearer  " + root},
		"a space behind":      {"Bearer " + root + " "},
		"a space before":      {" Bearer " + root},
		"two tokens":          {"Bearer " + root + "," + root},
		"the header twice":    {"Bearer " + root, "Bearer " + root},
		"another first":       {"Bearer " + other, "Bearer " + root},
		"cut off":             bearerOf(root[:len(root)-1]),
		"too long":            bearerOf(root + "A"),
		"upper case":          bearerOf(strings.ToUpper(root)),
		"without its prefix":  bearerOf(strings.TrimPrefix(root, "rgt_")),
		"an unknown id":       bearerOf(other),
		"another secret":      bearerOf(guess),
		"expired":             bearerOf(expired),
		"revoked":             bearerOf(revoked),
		"rotated away":        bearerOf(rotated),
		"overlap over":        bearerOf(overlapped),
		"rotated twice":       bearerOf(twice),
		"overlap and expired": bearerOf(both),
	} {
		c, err := Identify(k.m.State(), headers, now)
		if !errors.Is(err, ErrUnauthenticated) || c.Token != nil {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		for _, h := range headers { // what was presented is not shown
			if secret := strings.TrimPrefix(h, "Bearer "); len(secret) > 20 && strings.Contains(err.Error(), secret[4:20]) {
				t.Errorf("%s: it shows the token: %v", name, err)
			}
		}
	}
}

// A revoked id with a zero secret hash, and a token that was never rotated, have no
// previous secret: its zero hash is none.
func TestZeroHashIsNoSecret(t *testing.T) {
	k, _ := newTokens(t)
	if c, err := presented(k.m.State().TokenNamed("root"), make([]byte, fsm.TokenHashSize), now); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestIdentify(t *testing.T) {
	k, root := newTokens(t)
	expires := k.create("expires", now.UnixMilli()+2, grant("", fsm.Discover))
	old := k.create("rotated", 0, grant("", fsm.Discover))
	current := k.rotate("rotated", now.UnixMilli()+1)
	short := k.create("short", now.UnixMilli()+1, grant("", fsm.Discover))
	k.rotate("short", now.UnixMilli()+2)
	long := k.create("long", now.UnixMilli()+2, grant("", fsm.Discover))
	k.rotate("long", now.UnixMilli()+1)
	for header, want := range map[string]struct {
		name  string
		until int64
	}{
		"Bearer " + root:    {"root", 0},
		"bearer " + root:    {"root", 0},
		"BEARER " + root:    {"root", 0},
		"Bearer " + expires: {"expires", 2},
		"Bearer " + old:     {"rotated", 1},
		"Bearer " + current: {"rotated", 0},
		"Bearer " + short:   {"short", 1}, // its own end comes first
		"Bearer " + long:    {"long", 1},
	} {
		c, err := Identify(k.m.State(), []string{header}, now)
		var until time.Time
		if want.until != 0 {
			until = now.Add(time.Duration(want.until) * time.Millisecond)
		}
		if err != nil || c.Token.Name != want.name || !c.Until.Equal(until) {
			t.Errorf("%s: %+v, %v", want.name, c, err)
		}
	}
}

func TestCheck(t *testing.T) {
	k, _ := newTokens(t)
	k.create("web", 0, grant("web-", fsm.Discover|fsm.Register), grant("db", fsm.Operate))
	k.create("admin", 0, grant("", fsm.Admin))
	for _, tc := range []struct {
		token string
		need  Need
		want  bool
	}{
		{"root", Need{AnyOf: fsm.Admin}, true},
		{"root", Need{AnyOf: fsm.Operate, Name: "any"}, true},
		{"web", Need{AnyOf: fsm.Discover, Name: "web-"}, true},
		{"web", Need{AnyOf: fsm.Discover, Name: "web-1"}, true},
		{"web", Need{AnyOf: fsm.Discover, Name: "web"}, false}, // other groups begin so
		{"web", Need{AnyOf: fsm.Discover, Name: ""}, false},
		{"web", Need{AnyOf: fsm.Discover, Name: "WEB-1"}, false},
		{"web", Need{AnyOf: fsm.Discover, Name: " web-1"}, false},
		{"web", Need{AnyOf: fsm.Operate, Name: "web-1"}, false},
		{"web", Need{AnyOf: fsm.Operate, Name: "dba"}, true},
		{"web", Need{AnyOf: fsm.Discover, Name: "db"}, false}, // rights do not imply others
		{"web", Need{AnyOf: fsm.Register | fsm.Operate, Name: "db"}, true},
		{"web", Need{AnyOf: fsm.Register | fsm.Operate, Name: "web-1"}, true},
		{"web", Need{AnyOf: fsm.Register | fsm.Operate, Name: "w"}, false},
		{"web", Need{AnyOf: fsm.Admin}, false},
		{"web", Need{AnyOf: 0, Name: "web-1"}, false}, // a need that names no right
		{"admin", Need{AnyOf: fsm.Admin}, true},
		{"admin", Need{AnyOf: fsm.Discover}, false},
		{"admin", Need{AnyOf: fsm.Operate, Name: "web-1"}, false},
	} {
		err := k.named(tc.token).Check(tc.need)
		if (err == nil) != tc.want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s, %+v: %v", tc.token, tc.need, err)
		}
	}
}

// Every need counts, and the error names the first that is not met.
func TestCheckWantsEveryNeed(t *testing.T) {
	k, _ := newTokens(t)
	k.create("web", 0, grant("web-", fsm.Discover))
	err := k.named("web").Check(
		Need{AnyOf: fsm.Discover, Field: "prefix", Name: "web-"},
		Need{AnyOf: fsm.Discover | fsm.Operate, Field: "known.group", Name: "db"},
	)
	denied, ok := errors.AsType[*DeniedError](err)
	if !ok || denied.Field != "known.group" || denied.Name != "db" || denied.Limit() != "discover:web-" {
		t.Fatalf("%v", err)
	}
	if want := `permission denied: the token "web" lacks the right discover or operate for known.group "db"; it has discover:web-`; err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestOwners(t *testing.T) {
	k, _ := newTokens(t)
	k.create("one", 0, grant("web", fsm.Register))
	k.create("two", 0, grant("web", fsm.Register))
	k.create("op", 0, grant("web", fsm.Operate))
	k.create("reader", 0, grant("", fsm.Discover|fsm.Admin))
	owner := func(name string) string { return string(k.ids[name]) }
	if got := string(k.named("one").Owner()); got != owner("one") {
		t.Errorf("owner %x", got)
	}
	for _, tc := range []struct {
		caller, group, owner string
		want                 bool
	}{
		{"one", "web", owner("one"), true},
		{"one", "web", "", true}, // made before tokens existed
		{"one", "web", owner("two"), false},
		{"one", "db", owner("one"), false}, // its right there is gone
		{"one", "db", "", false},
		{"op", "web", owner("one"), true},
		{"op", "db", owner("one"), false},
		{"reader", "web", "", false},
		{"reader", "web", owner("reader"), false},
	} {
		if got := k.named(tc.caller).Renews(tc.group, tc.owner); got != tc.want {
			t.Errorf("%s renews a lease of %x in %s: %t", tc.caller, tc.owner, tc.group, got)
		}
	}
	for caller, want := range map[string]bool{"one": false, "op": true, "reader": false, "root": true} {
		if got := k.named(caller).AnyOwner("web"); got != want {
			t.Errorf("%s may change others': %t", caller, got)
		}
	}
}

// A caller stands until its own token changes or its secret ends, whatever happens to
// others.
func TestCallerStands(t *testing.T) {
	k, root := newTokens(t)
	admin, err := Identify(k.m.State(), bearerOf(root), now)
	if err != nil {
		t.Fatal(err)
	}
	if nobody := (Caller{}); !nobody.Stands(fsm.New().State(), now) || nobody.Stands(k.m.State(), now) {
		t.Error("a caller without a token is to stand while tokens are off, and only then")
	}
	end := now.Add(time.Minute)
	text := k.create("mortal", end.UnixMilli(), grant("", fsm.Discover))
	mortal, err := Identify(k.m.State(), bearerOf(text), now)
	if err != nil {
		t.Fatal(err)
	}
	if !admin.Stands(k.m.State(), now) || !mortal.Stands(k.m.State(), end.Add(-1)) || mortal.Stands(k.m.State(), end) {
		t.Error("callers are to stand until their secret ends, whatever tokens others get")
	}
	k.rotate("mortal", end.UnixMilli())
	if mortal.Stands(k.m.State(), now) {
		t.Error("a rotated token stands")
	}
	k.create("second", 0, grant("", fsm.Admin))
	k.apply(&fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: k.ids["root"]}}})
	if admin.Stands(k.m.State(), now) {
		t.Error("a revoked token stands")
	}
}
