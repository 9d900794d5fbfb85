package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// grpcurl is the program, with TLS and the token of the cluster.
type grpcurl struct {
	t          *testing.T
	path, addr string
	token      string
}

// newGrpcurl has the go command build the program of the module tests/grpcurl, once:
// the command keeps it in its cache.
func newGrpcurl(t *testing.T) *grpcurl {
	t.Helper()
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", "grpcurl")
	cmd.Dir = filepath.Join(repository, "tests", "grpcurl")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("grpcurl cannot be built: %v\n%s", err, &stderr)
	}
	t.Logf("grpcurl found, or built, in %v", ms(time.Since(began)))
	return &grpcurl{t: t, path: strings.TrimSpace(string(out))}
}

// noSchema is its exit code where reflection fails, less that of a status.
const noSchema codes.Code = 1<<32 - 63

// run runs it with flags, and wants the exit code of the status. What is asked for stands
// behind the address.
func (g *grpcurl) run(want codes.Code, flags []string, asked ...string) (output string) {
	g.t.Helper()
	args := append([]string{"-cacert", tlsFile("ca.crt"), "-max-time", fmt.Sprint(patience.Seconds())}, flags...)
	if g.token != "" {
		args = append(args, "-expand-headers", "-H", "authorization: Bearer ${TOKEN}")
	}
	args = append(append(args, g.addr), asked...)
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.path, args...)
	cmd.Env = append(cmd.Environ(), "TOKEN="+g.token)
	out, err := cmd.CombinedOutput()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode() - 64 // the program's own rule
	} else if err != nil {
		g.t.Fatal(err)
	}
	if codes.Code(code) != want {
		g.t.Fatalf("grpcurl %q: exit code %d, want that of %v\n%s", args, code+64, want, out)
	}
	return string(out)
}

func (g *grpcurl) call(want codes.Code, method, data string) (output string) {
	g.t.Helper()
	return g.run(want, []string{"-d", data}, method)
}

func (g *grpcurl) says(output string, all ...string) {
	g.t.Helper()
	for _, want := range all {
		if !strings.Contains(output, want) {
			g.t.Errorf("no %s in\n%s", want, output)
		}
	}
}

// TestGrpcurl: with nothing but grpcurl and reflection one finds the services and their
// messages, registers, matches, and reads why a call is refused, on a cluster
// with TLS and tokens.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	g := newGrpcurl(t)
	c := startCluster(t, 3)
	file, _ := tokenFile(t)
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g.addr = c.nodes[0].addr
	g.says(g.call(noSchema, "registry.v1.Registry/Groups", "{}"), "Unauthenticated", "this cluster needs a token")
	g.token = strings.TrimSpace(string(token))

	g.says(g.run(codes.OK, nil, "list"), "registry.v1.Registry\n", "registry.v1.Cluster\n", "registry.v1.Tokens\n", "grpc.health.v1.Health\n")
	g.says(g.run(codes.OK, nil, "list", "registry.v1.Registry"), "registry.v1.Registry.Register\n", "registry.v1.Registry.Watch\n")
	g.says(g.run(codes.OK, nil, "describe", "registry.v1.Registry.Match"), "rpc Match ( .registry.v1.MatchRequest ) returns ( .registry.v1.MatchResponse );")
	g.says(g.run(codes.OK, []string{"-msg-template"}, "describe", "registry.v1.RegisterRequest"), "string addr = ", `"addr": ""`)
	g.says(g.call(codes.OK, "grpc.health.v1.Health/Check", "{}"), "SERVING")

	for i, n := range c.nodes {
		g.addr = n.addr
		g.says(g.call(codes.OK, "registry.v1.Registry/Register",
			fmt.Sprintf(`{"group":"web","id":"web-%d","addr":"10.0.0.%d:80","ttl":"3600s","meta":{"zone":"ü"}}`, i, i)), `"leaseId": "`)
	}
	owner := ""
	for _, n := range c.nodes {
		g.addr = n.addr
		var answer struct {
			Members []struct{ ID, Addr string }
			Receipt struct{ Fingerprint string }
		}
		text := g.call(codes.OK, "registry.v1.Registry/Match", `{"group":"web","key":"dXNlci00Mg==","n":2,"read":{"linearizable":true}}`)
		if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Members) != 2 || answer.Receipt.Fingerprint == "" {
			t.Fatalf("%v in %s", err, text)
		}
		if first := answer.Members[0].ID; owner != "" && first != owner {
			t.Errorf("%s says %s, others %s", n.id, first, owner)
		}
		owner = answer.Members[0].ID
	}

	for _, refused := range []struct {
		code         codes.Code
		method, data string
		says         []string
	}{
		{codes.InvalidArgument, "Register", `{"group":"web","id":"x","addr":"nowhere"}`, []string{`"reason": "INVALID_ARGUMENT"`, `"field": "addr"`, `"limit": "`}},
		{codes.NotFound, "Match", `{"group":"none","key":"a2V5"}`, []string{`"reason": "UNKNOWN_GROUP"`}},
		{codes.AlreadyExists, "Register", `{"group":"web","id":"web-0","addr":"10.0.0.9:80"}`, []string{`"reason": "CONFLICT"`}},
	} {
		g.says(g.call(refused.code, "registry.v1.Registry/"+refused.method, refused.data), append(refused.says, "Code: "+refused.code.String())...)
	}
	g.token = "rgt_wrong"
	g.says(g.run(codes.Unauthenticated, []string{"-proto", filepath.Join(repository, "rpc", "registrypb", "registry.proto")}, "registry.v1.Registry/Groups"),
		`"reason": "UNAUTHENTICATED"`)
}
