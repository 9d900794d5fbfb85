package fsm

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// tokenLog has the tokens root, with all rights, and agents.
func tokenLog(t *testing.T) *log {
	t.Helper()
	l := newLog(t)
	l.must(rootToken())
	l.must(createToken(newTestToken("agents", grant(Register, "web"))))
	return l
}

func TestCreateToken(t *testing.T) {
	another := func(edit func(*fsmpb.Token)) *fsmpb.Command {
		agents := newTestToken("agents", grant(Register, "web"))
		edit(agents)
		return createToken(agents)
	}
	for _, tc := range []struct {
		name string
		cmd  *fsmpb.Command
		want error
		text string
		same bool // the state
	}{
		{name: "another", cmd: createToken(newTestToken("new", grant(Discover, "")))},
		{name: "a retry", cmd: another(func(*fsmpb.Token) {}), same: true},
		{name: "a retry of the first", cmd: rootToken(), same: true},
		{name: "a second first", cmd: firstToken(newTestToken("new", grant(allRights, ""))), want: ErrConflict, text: "tokens are on already"},
		{name: "the id with another hash", cmd: another(func(t *fsmpb.Token) { t.Hash[0]++ }), want: ErrConflict, text: "this id"},
		{name: "the id with other grants", cmd: another(func(t *fsmpb.Token) { t.Grants[0].Prefix = "" }), want: ErrConflict, text: "this id"},
		{name: "the id with an expiry", cmd: another(func(t *fsmpb.Token) { t.ExpiresMs = 1 }), want: ErrConflict, text: "this id"},
		{name: "the name with another id", cmd: another(func(t *fsmpb.Token) { t.Id = tokenID("x") }), want: ErrConflict, text: `name "agents"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := tokenLog(t)
			before := l.m.State()
			r := l.apply(tc.cmd)
			if !errors.Is(r.Err, tc.want) || tc.want != nil && !strings.Contains(r.Err.Error(), tc.text) {
				t.Fatalf("got %v, want %v with %q", r.Err, tc.want, tc.text)
			}
			after := l.m.State()
			if same := before.Digest() == after.Digest() && before.TokensRevision() == after.TokensRevision(); same != (tc.same || tc.want != nil) {
				t.Errorf("the state is the same: %t", same)
			}
			roundTrip(t, l.m)
		})
	}
}

func TestTokensAreOffUntilTheFirst(t *testing.T) {
	l := newLog(t)
	if r := l.apply(createToken(newTestToken("agents", grant(Register, "")))); !errors.Is(r.Err, ErrTokensOff) {
		t.Errorf("a token before the first: %v", r.Err)
	}
	if r := l.apply(rotateToken("root", "new", 0)); !errors.Is(r.Err, ErrUnknownToken) {
		t.Errorf("a rotation: %v", r.Err)
	}
	if s := l.m.State(); s.TokensOn() || s.TokensRevision() != 0 || s.Digest() != 0 {
		t.Error("tokens are on")
	}
	r := l.must(rootToken())
	s := l.m.State()
	tok := s.Token(string(tokenID("root")))
	if !s.TokensOn() || s.TokensRevision() != r.Index || tok == nil || s.TokenNamed("root") != tok || s.TokenNamed("agents") != nil {
		t.Fatalf("on: %t, at %d, %+v", s.TokensOn(), s.TokensRevision(), tok)
	}
	if tok.CreatedMS != 1_700_000_000_000 || tok.CreatedIndex != r.Index || tok.ModifiedIndex != r.Index || tok.Hash != [32]byte(tokenHash("root")) {
		t.Errorf("%+v", tok)
	}
}

func TestRotateToken(t *testing.T) {
	l := tokenLog(t)
	before := l.m.State().TokenNamed("agents")
	r := l.must(rotateToken("agents", "h1", 50))
	now := l.m.State().TokenNamed("agents")
	if now.Hash != [32]byte(tokenHash("h1")) || now.PreviousHash != before.Hash || now.PreviousExpiresMS != 50 ||
		now.ModifiedIndex != r.Index || now.CreatedIndex != before.CreatedIndex || l.m.State().TokensRevision() != r.Index {
		t.Errorf("%+v", now)
	}
	if before.Hash != [32]byte(tokenHash("agents")) {
		t.Error("the published token changed")
	}
	l.must(rotateToken("agents", "h1", 99))
	if again := l.m.State().TokenNamed("agents"); again != now {
		t.Errorf("a retry: %+v", again)
	}
	l.must(rotateToken("agents", "h2", 0))
	if tok := l.m.State().TokenNamed("agents"); tok.PreviousHash != [32]byte{} || tok.PreviousExpiresMS != 0 {
		t.Errorf("without an overlap: %+v", tok)
	}
	roundTrip(t, l.m)
}

// Somebody can always create tokens.
func TestLastAdminStays(t *testing.T) {
	l := tokenLog(t)
	expiring := newTestToken("soon", grant(Admin, ""))
	expiring.ExpiresMs = 1 << 60
	l.must(createToken(expiring))
	if r := l.apply(revokeToken("root")); !errors.Is(r.Err, ErrLastAdmin) || r.Removed || l.m.State().TokenNamed("root") == nil {
		t.Fatalf("the last administrator: %+v", r)
	}
	l.must(createToken(newTestToken("second", grant(Discover, ""), grant(Admin, ""))))
	for name, removed := range map[string]bool{"root": true, "agents": true, "soon": true, "nobody": false} {
		was := l.m.State().TokensRevision()
		r := l.must(revokeToken(name))
		s := l.m.State()
		if r.Removed != removed || s.TokenNamed(name) != nil || s.Token(string(tokenID(name))) != nil || (s.TokensRevision() == was) == removed {
			t.Errorf("%s: %+v, tokens at %d, were at %d", name, r, s.TokensRevision(), was)
		}
	}
	if r := l.apply(revokeToken("second")); !errors.Is(r.Err, ErrLastAdmin) {
		t.Errorf("the other administrator: %v", r.Err)
	}
	roundTrip(t, l.m)
}

func TestTokensAreBounded(t *testing.T) {
	l := newLog(t)
	cmds := []*fsmpb.Command{rootToken()}
	for i := range MaxTokens - 2 {
		cmds = append(cmds, createToken(newTestToken("t"+itoa(i), grant(Discover, ""))))
	}
	for _, r := range l.batch(cmds...) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	last, more := createToken(newTestToken("last", grant(Discover, ""))), createToken(newTestToken("more", grant(Discover, "")))
	if err := l.m.State().CheckRoom(last); err != nil {
		t.Errorf("the last: %v", err)
	}
	r := l.batch(last, more)
	if r[0].Err != nil || !errors.Is(r[1].Err, ErrExhausted) {
		t.Errorf("the last: %v, one more: %v", r[0].Err, r[1].Err)
	}
	if err := l.m.State().CheckRoom(more); !errors.Is(err, ErrExhausted) {
		t.Errorf("one more before the log: %v", err)
	}
	if err := l.m.State().CheckRoom(last); err != nil {
		t.Errorf("a retry before the log: %v", err)
	}
	l.must(last)
	roundTrip(t, l.m)
}

// TokensChanged tells of changes of tokens, and of no others.
func TestTokensChanged(t *testing.T) {
	l := newLog(t)
	for i, tc := range []struct {
		cmd  *fsmpb.Command
		want bool
	}{
		{register(newRegistration("web", "a", "10.0.0.1:80", "one")), false},
		{createToken(newTestToken("agents", grant(Register, ""))), false},
		{rootToken(), true},
		{rootToken(), false},
		{createToken(newTestToken("agents", grant(Register, ""))), true},
		{rotateToken("agents", "new", 0), true},
		{rotateToken("agents", "new", 0), false},
		{revokeToken("agents"), true},
		{revokeToken("agents"), false},
		{revokeToken("root"), false},
	} {
		changed := l.m.TokensChanged()
		l.apply(tc.cmd)
		if got := isClosed(changed); got != tc.want {
			t.Errorf("command %d: %t", i, got)
		}
	}
	changed := l.m.TokensChanged()
	if l.m.Install(newState()); !isClosed(changed) {
		t.Error("a state without the tokens was installed, and nobody is told")
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Random commands about few tokens, against a map.
func TestTokensAgainstAMap(t *testing.T) {
	h := newHistory(t, seed.Rand(t))
	type token struct{ hash, previous string }
	model := make(map[string]token)
	for range historyLength() {
		name := h.token()
		hash := "h" + itoa(h.r.IntN(3))
		var want error
		var cmd *fsmpb.Command
		switch was, known := model[name]; h.r.IntN(4) {
		case 0: // with a hash that may be another
			tok := newTestToken(name, grant(Discover|Admin, ""))
			tok.Hash = tokenHash(hash)
			if cmd = createToken(tok); h.r.IntN(2) == 0 {
				cmd = firstToken(tok)
			}
			first := cmd.GetCreateToken().First
			switch {
			case known && was.hash == hash:
			case known || first && len(model) > 0:
				want = ErrConflict
			case !first && len(model) == 0:
				want = ErrTokensOff
			default:
				model[name] = token{hash: hash}
			}
		case 1:
			if cmd = revokeToken(name); known && len(model) == 1 {
				want = ErrLastAdmin
			} else {
				delete(model, name)
			}
		default:
			overlap := h.r.IntN(2) == 0
			cmd = rotateToken(name, hash, map[bool]int64{true: 1}[overlap])
			switch {
			case !known:
				want = ErrUnknownToken
			case was.hash != hash && overlap:
				model[name] = token{hash, was.hash}
			case was.hash != hash:
				model[name] = token{hash: hash}
			}
		}
		if r := h.log.apply(cmd); !errors.Is(r.Err, want) || want == nil && r.Err != nil {
			t.Fatalf("%v: got %v, want %v", cmd, r.Err, want)
		}
		got := make(map[string]token)
		for tok := range h.log.m.State().Tokens {
			got[tok.Name] = token{strings.TrimRight(string(tok.Hash[:]), "\x00"), strings.TrimRight(string(tok.PreviousHash[:]), "\x00")}
			if h.log.m.State().TokenNamed(tok.Name) != tok {
				t.Fatalf("token %q by its name is another", tok.Name)
			}
		}
		if !maps.Equal(got, model) || h.log.m.State().tokens.byName.Len() != len(model) {
			t.Fatalf("%v: %v, want %v", cmd, got, model)
		}
	}
	roundTrip(t, h.log.m)
}

func TestTokensComeInOrder(t *testing.T) {
	l := newLog(t)
	l.must(rootToken())
	for _, name := range []string{"c", "a", "z"} {
		l.must(createToken(newTestToken(name, grant(Discover, ""))))
	}
	var names []string
	for tok := range l.m.State().Tokens {
		if names = append(names, tok.Name); tok.Name == "root" {
			break
		}
	}
	if !slices.Equal(names, []string{"a", "c", "root"}) {
		t.Errorf("%v", names)
	}
}

func TestValidateTokens(t *testing.T) {
	with := func(edit func(*fsmpb.Token)) *fsmpb.Command {
		tok := newTestToken("a", grant(Register, "web"))
		edit(tok)
		return createToken(tok)
	}
	grants := func(g ...*fsmpb.Grant) *fsmpb.Command { return with(func(t *fsmpb.Token) { t.Grants = g }) }
	first := func(g *fsmpb.Grant, expires int64) *fsmpb.Command {
		tok := newTestToken("a", g)
		tok.ExpiresMs = expires
		return firstToken(tok)
	}
	rotate := func(edit func(*fsmpb.RotateToken)) *fsmpb.Command {
		cmd := rotateToken("a", "new", 0)
		edit(cmd.GetRotateToken())
		return cmd
	}
	owned := func(cmd *fsmpb.Command) *fsmpb.Command { return as("a", false, cmd) }
	short := func(cmd *fsmpb.Command, id []byte) *fsmpb.Command {
		switch op := cmd.Op.(type) {
		case *fsmpb.Command_Register:
			op.Register.Token = id
		case *fsmpb.Command_Deregister:
			op.Deregister.Token = id
		case *fsmpb.Command_UpdateMember:
			op.UpdateMember.Token = id
		}
		return cmd
	}
	for _, tc := range []struct {
		name  string
		cmd   *fsmpb.Command
		field string
	}{
		{"token", with(func(*fsmpb.Token) {}), ""},
		{"no token", createToken(nil), "token id"},
		{"id of 7 bytes", with(func(t *fsmpb.Token) { t.Id = t.Id[1:] }), "token id"},
		{"id of 9 bytes", with(func(t *fsmpb.Token) { t.Id = append(t.Id, 0) }), "token id"},
		{"no name", with(func(t *fsmpb.Token) { t.Name = "" }), "name"},
		{"name with a slash", with(func(t *fsmpb.Token) { t.Name = "a/b" }), "name"},
		{"hash of 31 bytes", with(func(t *fsmpb.Token) { t.Hash = t.Hash[1:] }), "hash"},
		{"expiry before 1970", with(func(t *fsmpb.Token) { t.ExpiresMs = -1 }), "expires"},
		{"no grants", grants(), "grants"},
		{"64 grants", grants(slices.Repeat([]*fsmpb.Grant{grant(Discover, "")}, 64)...), ""},
		{"65 grants", grants(slices.Repeat([]*fsmpb.Grant{grant(Discover, "")}, 65)...), "grants"},
		{"no right", grants(grant(0, "")), "rights"},
		{"all rights", grants(grant(15, "")), ""},
		{"an unknown right", grants(grant(16, "")), "rights"},
		{"many unknown rights", grants(&fsmpb.Grant{Rights: 256 + 1}), "rights"},
		{"admin with a prefix", grants(grant(Admin|Discover, "web")), "prefix"},
		{"longest prefix", grants(grant(Discover, strings.Repeat("x", 255))), ""},
		{"a prefix too long", grants(grant(Discover, strings.Repeat("x", 256))), "prefix"},
		{"a prefix with a slash", grants(grant(Discover, "web/")), "prefix"},
		{"a prefix with a line feed", grants(grant(Discover, "web\n")), "prefix"},
		{"first", first(grant(15, ""), 0), ""},
		{"first that is no administrator", first(grant(7, ""), 0), "grants"},
		{"first that expires", first(grant(15, ""), 1), "grants"},
		{"rotation", rotate(func(*fsmpb.RotateToken) {}), ""},
		{"rotation without id", rotate(func(c *fsmpb.RotateToken) { c.Id = nil }), "token id"},
		{"rotation to a long hash", rotate(func(c *fsmpb.RotateToken) { c.Hash = make([]byte, 33) }), "hash"},
		{"rotation with an overlap before 1970", rotate(func(c *fsmpb.RotateToken) { c.PreviousExpiresMs = -1 }), "previous_expires"},
		{"revocation", revokeToken("a"), ""},
		{"revocation without id", &fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{}}}, "token id"},
		{"registration by a token", owned(register(newRegistration("web", "a", "a:1", "one"))), ""},
		{"registration by half a token", short(register(newRegistration("web", "a", "a:1", "one")), make([]byte, 4)), "token"},
		{"deregistration by half a token", short(deregister("web", "a", ""), make([]byte, 4)), "token"},
		{"update by half a token", short(updateMember("web", "a", 1, 0), make([]byte, 4)), "token"},
	} {
		t.Run(tc.name, func(t *testing.T) { checkField(t, Validate(tc.cmd), tc.field, tc.field == "") })
	}
}

func TestAllows(t *testing.T) {
	tok := &Token{Grants: []Grant{{Discover | Register, "web"}, {Operate, "web-eu"}, {Discover, "db"}, {Admin, ""}}}
	for _, tc := range []struct {
		right Right
		name  string
		want  bool
	}{
		{Discover, "web", true}, {Discover, "web-eu", true}, {Register, "webs", true}, {Discover, "db2", true},
		{Discover, "we", false}, {Discover, "", false}, {Discover, "Web", false}, {Register, "db", false},
		{Operate, "web-eu", true}, {Operate, "web-eu-1", true}, {Operate, "web", false}, {Operate, "web-e", false},
		{Discover | Register, "web", true}, {Discover | Operate, "web-eu", false},
		{Admin, "", true}, {Admin, "anything", true}, {0, "web", false},
	} {
		if got := tok.Allows(tc.right, tc.name); got != tc.want {
			t.Errorf("%v on %q: %t", tc.right, tc.name, got)
		}
	}
	if all := (&Token{Grants: []Grant{{Discover, ""}}}); !all.Allows(Discover, "") || !all.Allows(Discover, "web") || all.Allows(Admin, "") {
		t.Error("a grant on all groups")
	}
	if got := (Discover | Operate).String() + " " + allRights.String(); got != "discover,operate discover,register,operate,admin" {
		t.Error(got)
	}
}

const (
	tokenSnapshot = "../testdata/snapshots/v2-tokens.snap"
	tokensDigest  = 0x3a8d8f648f428eb0
)

// The first snapshot with tokens; see goldenSnapshot.
func TestSnapshotWithTokensIsRead(t *testing.T) {
	if *update {
		if err := os.WriteFile(tokenSnapshot, snapshotBytes(t, tokenState(t).m.State()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(tokenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t)
	if err := l.m.Restore(newReader(data)); err != nil {
		t.Fatal(err)
	}
	s := l.m.State()
	if s.Digest() != tokensDigest {
		t.Errorf("digest %#016x, want %#016x", s.Digest(), uint64(tokensDigest))
	}
	root, agents := s.TokenNamed("root"), s.TokenNamed("agents")
	if !root.Allows(Admin, "") || agents.Allows(Admin, "") || !agents.Allows(Register, "web") || agents.Allows(Register, "db") ||
		agents.Hash != [32]byte(tokenHash("new")) || agents.PreviousHash != [32]byte(tokenHash("agents")) || agents.PreviousExpiresMS != 1_800_000_000_000 {
		t.Errorf("%+v, %+v", root, agents)
	}
	if s.TokenNamed("gone") != nil || s.TokensRevision() != s.Index() || l.member("web", "c").Token != agents.ID || l.member("web", "a").Token != "" {
		t.Errorf("tokens at %d of %d, %+v", s.TokensRevision(), s.Index(), l.member("web", "c"))
	}
}
