package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// serveTokens starts a node with tokens on. Commands ask it, with the first token.
func serveTokens(t *testing.T) (adminFile string) {
	t.Helper()
	p := freePorts(t, 2)
	start(t, "serve", "-id", "n1", "-bind", local(p), "-addr", local(p+1), "-data-dir", t.TempDir())
	untilServing(t, p+1)
	t.Setenv("REGISTRY_ADDRS", local(p+1))
	adminFile = filepath.Join(t.TempDir(), "admin")
	if out := ok(t, "token", "init", "-out", adminFile); out != "wrote "+adminFile+"\n" {
		t.Errorf("init: %q", out)
	}
	t.Setenv("REGISTRY_TOKEN_FILE", adminFile)
	return adminFile
}

// isToken checks that a command printed a token alone.
func isToken(t *testing.T, out string) string {
	t.Helper()
	text := strings.TrimSuffix(out, "\n")
	if _, _, err := registrypb.ParseToken(text); err != nil || out != text+"\n" {
		t.Fatalf("%q: %v", out, err)
	}
	return text
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokenCommands(t *testing.T) {
	adminFile := serveTokens(t)
	if info, err := os.Stat(adminFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	web := isToken(t, ok(t, "token", "create", "-name", "web", "-allow", "discover,register:web-", "-allow", "operate:db:", "-expires", "720h"))
	var list []tokenJSON
	if err := json.Unmarshal([]byte(ok(t, "token", "list", "-json")), &list); err != nil || len(list) != 2 || list[0].Name != "admin" || list[0].ExpiresAt != nil {
		t.Fatalf("%+v, %v", list, err)
	}
	if l := list[1]; l.Name != "web" || len(l.Grants) != 2 || l.Grants[0].Prefix != "web-" || len(l.Grants[0].Rights) != 2 || l.Grants[1].Prefix != "db:" || l.ExpiresAt == nil {
		t.Errorf("%+v", l)
	}
	if out := ok(t, "token", "list"); !strings.Contains(out, "discover,register:web- operate:db:") {
		t.Error(out)
	}
	var self tokenJSON
	if err := json.Unmarshal([]byte(ok(t, "token", "self", "-token-file", writeFile(t, web), "-json")), &self); err != nil || self.ID != list[1].ID {
		t.Errorf("%+v, %v", self, err)
	}
	rotated := isToken(t, ok(t, "token", "rotate", "web", "-overlap", "0s"))
	r := execute(t, t.Context(), "", "token", "self", "-token-file", writeFile(t, web))
	if r.code != exitDenied || !strings.Contains(r.stderr, tokenHint) {
		t.Errorf("the old secret: %+v", r)
	}
	r = execute(t, t.Context(), "", "token", "revoke", "web")
	if r.code != exitCheck || !strings.Contains(r.stderr, "discover,register:web-") {
		t.Errorf("revoked without a question: %+v", r)
	}
	ok(t, "token", "self", "-token-file", writeFile(t, rotated))
	ok(t, "token", "revoke", "web", "-yes")
	for _, secret := range []string{web, rotated} {
		if r := execute(t, t.Context(), "", "token", "self", "-token-file", writeFile(t, secret)); r.code != exitDenied || strings.Contains(r.stdout+r.stderr, secret[4:20]) {
			t.Errorf("revoked: %+v", r)
		}
	}
}

// A token in the place of a file's name, or the reverse, is refused with the place
// where it belongs, and not shown.
func TestTokenInTheWrongPlace(t *testing.T) {
	token, _, _ := registrypb.MakeToken()
	for _, line := range []string{"token self", "bench match"} {
		t.Setenv(tokenFileVariable, token)
		r := execute(t, t.Context(), "", strings.Fields(line)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, "goes into REGISTRY_TOKEN\n") || strings.Contains(r.stderr, token[:20]) {
			t.Errorf("%s: %+v", line, r)
		}
		t.Setenv(tokenFileVariable, "")
		t.Setenv(tokenVariable, "web.token")
		r = execute(t, t.Context(), "", strings.Fields(line)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, "goes into REGISTRY_TOKEN_FILE\n") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestTokenCommandsThatFail(t *testing.T) {
	adminFile := serveTokens(t)
	exists := writeFile(t, "kept")
	fresh := filepath.Join(t.TempDir(), "fresh")
	for name, tt := range map[string]struct {
		args string
		code int
		says string
	}{
		"init again":         {"token init", exitConflict, "registry: tokens are on already"},
		"a file that exists": {"token create -name a -allow discover -out " + exists, exitFailure, "choose another name"},
		"a refused creation": {"token create -name admin -allow discover -out " + fresh, exitConflict, "has the name"},
		"no name":            {"token create -allow discover", exitUsage, "-name"},
		"no rights":          {"token create -name a", exitUsage, "-allow"},
		"unknown right":      {"token create -name a -allow read:web", exitUsage, "discover, register, operate or admin"},
		"admin of a prefix":  {"token create -name a -allow admin:web", exitUsage, "prefix"},
		"in the past":        {"token create -name a -allow discover -expires -1h", exitUsage, "-expires"},
		"unknown token":      {"token revoke none -yes", exitNotFound, "none"},
		"rotate unknown":     {"token rotate none", exitNotFound, "none"},
		"long overlap":       {"token rotate admin -overlap 25h", exitUsage, "overlap"},
		"the last":           {"token revoke admin -yes", exitConflict, "last"},
		"no such file":       {"token self -token-file /none", exitUsage, "/none"},
		"not a token":        {"members web -token-file " + exists, exitUsage, "rgt_"},
		"bench, not a token": {"bench match -token-file " + exists, exitUsage, "rgt_"},
	} {
		t.Run(name, func(t *testing.T) {
			r := execute(t, t.Context(), "", strings.Fields(tt.args)...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || strings.Contains(r.stdout, "rgt_") {
				t.Errorf("%+v", r)
			}
		})
	}
	if kept, err := os.ReadFile(exists); err != nil || string(kept) != "kept" {
		t.Errorf("%q, %v", kept, err)
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("a file without a token: %v", err)
	}
	if data, err := os.ReadFile(adminFile); err != nil || len(data) != registrypb.TokenLength+1 {
		t.Errorf("%v", err)
	}
}

// Every kind of command sends the token: by the SDK, by a connection of its own, by a
// stream, and to complete a word; from a file and from the environment.
func TestCommandsSendTheToken(t *testing.T) {
	adminFile := serveTokens(t)
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		t.Fatal(err)
	}
	registering := writeFile(t, ok(t, "token", "create", "-name", "service", "-allow", "register:web"))
	service := start(t, "register", "-group", "web", "-id", "w1", "-addr", "127.0.0.1:8080", "-token-file", registering)
	service.stderrUntil("registered")
	t.Setenv("REGISTRY_TOKEN", strings.TrimSpace(string(admin))) // the file comes first
	for _, what := range []string{"REGISTRY_TOKEN_FILE", "REGISTRY_TOKEN"} {
		watch := start(t, "watch", "web")
		watch.until("w1")
		if out := ok(t, "match", "web", "user-1"); !strings.Contains(out, "w1") {
			t.Error(out)
		}
		if out := ok(t, "bench", "match", "-groups", "1", "-members", "2", "-callers", "1", "-duration", "50ms"); !strings.Contains(out, " 0 errors") {
			t.Errorf("%s: %s", what, out)
		}
		if out := ok(t, "members", "", completeFlag); !strings.Contains(out, "web") {
			t.Errorf("%s: completed: %q", what, out)
		}
		t.Setenv(what, "")
	}
	ok(t, "health")
	for _, line := range []string{"groups", "watch web", "bench match", "register -group web -id w2 -addr 127.0.0.1:1", "cluster status"} {
		if r := execute(t, t.Context(), "", strings.Fields(line)...); r.code != exitDenied || !strings.Contains(r.stderr, tokenHint) {
			t.Errorf("%s without a token: %+v", line, r)
		}
	}
	r := execute(t, t.Context(), "", "register", "-token-file", registering, "-group", "db", "-id", "w2", "-addr", "127.0.0.1:1")
	if r.code != exitDenied || !strings.Contains(r.stderr, "register:web") {
		t.Errorf("in another group: %+v", r)
	}
}

// A command runs as a member, by a token that may do nothing else.
func TestRegisterACommandByItsToken(t *testing.T) {
	serveTokens(t)
	registering := writeFile(t, ok(t, "token", "create", "-name", "service", "-allow", "register:web-"))
	r := execute(t, t.Context(), "", "register", "-token-file", registering, "-group", "web-1", "-id", "w1", "-addr", "127.0.0.1:8080", "--", "true")
	if r.code != exitOK || !strings.Contains(r.stderr, "web-1/w1 registered") || !strings.Contains(r.stderr, "deregistered") {
		t.Errorf("%+v", r)
	}
	if out := ok(t, "members", "web-1", "-linearizable"); strings.Contains(out, "w1") {
		t.Error(out)
	}
}

// While tokens are off, the list says so; the warnings of init are those of the nodes.
func TestTokensThatAreOff(t *testing.T) {
	p := freePorts(t, 2)
	start(t, "serve", "-id", "n1", "-bind", local(p), "-addr", "0.0.0.0"+local(p + 1)[len("127.0.0.1"):], "-advertise", local(p+1), "-data-dir", t.TempDir())
	untilServing(t, p+1)
	t.Setenv("REGISTRY_ADDRS", local(p+1))
	if r := execute(t, t.Context(), "", "token", "list"); r.code != exitOK || !strings.Contains(r.stderr, "tokens are off") {
		t.Errorf("%+v", r)
	}
	for _, line := range []string{"token self", "token create -name a -allow discover"} {
		if r := execute(t, t.Context(), "", strings.Fields(line)...); r.code != exitConflict {
			t.Errorf("%s: %+v", line, r)
		}
	}
	r := execute(t, t.Context(), "", "token", "init")
	if r.code != exitOK || !strings.Contains(r.stderr, "warning: n1: ") || !strings.Contains(r.stderr, "without TLS") {
		t.Errorf("%+v", r)
	}
	isToken(t, r.stdout)
}

// What cannot be written to its file is printed.
func TestTokenIsNeverLost(t *testing.T) {
	text, _, _ := registrypb.MakeToken()
	file, err := newTokenFile(filepath.Join(t.TempDir(), "token"))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	var out strings.Builder
	if err := file.keep(&out, text); err == nil || out.String() != text+"\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestDeniedErrorsHaveACode(t *testing.T) {
	for _, err := range []error{sdk.ErrUnauthenticated, sdk.ErrPermissionDenied, sdk.ErrNotOwner} {
		if code := exitCode(err); code != exitDenied {
			t.Errorf("%v: %d", err, code)
		}
	}
}
