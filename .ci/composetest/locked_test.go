package composetest

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// TestComposeLocked does what docker-compose.locked.yml says at its top: a cluster with
// TLS and tokens, whose services reach it, through the loss of the leader too, and
// nobody else does.
func TestComposeLocked(t *testing.T) {
	p := newProject(t, "docker-compose.yml", "docker-compose.locked.yml")
	step := func(name string, run func()) { t.Helper(); logStep(t, name, run) }
	services := []string{"webserver1", "webserver2"}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	var leader string

	step("up: three nodes with TLS form one cluster", func() {
		p.mustCompose(append([]string{"up", "-d", "--no-build"}, allNodes...)...)
		p.healthy(allNodes...)
		p.converged(allNodes...)
		leader = p.leader("registry1")
		p.must("docker", "cp", p.container("registry1")+":/tls/ca.crt", ca)
	})
	step("tokens, and services that have one", func() {
		p.mustCompose("exec", "-T", "registry1", "/registry", "token", "init", "-out", "/data/admin.token")
		token := p.mustCompose("exec", "-T", "registry1",
			"/registry", "token", "create", "-token-file", "/data/admin.token", "-name", "services", "-allow", "discover,register")
		p.env = append(p.env, "REGISTRY_TOKEN="+token)
		p.mustCompose("up", "-d", "--no-build")
		p.options = []sdk.Option{sdk.WithTLSFiles(ca, "", ""), sdk.WithToken(token)}
		p.eventually("the services are registered", 30*time.Second, func() error { return p.checkMembers(allNodes, services...) })
		p.sameOwners(allNodes...)
		if out := p.mustCompose("run", "--rm", "-T", "client"); !strings.Contains(out, services[1]) {
			t.Errorf("the client prints %s", out)
		}
	})
	step("without a token, or without TLS, there is no answer", func() {
		locked := p.options
		defer func() { p.options = locked }()
		for want, options := range map[error][]sdk.Option{
			sdk.ErrUnauthenticated: {sdk.WithTLSFiles(ca, "", "")},
			sdk.ErrUnavailable:     nil,
		} {
			p.options = options
			c := p.client("registry1")
			ctx, cancel := context.WithTimeout(p.ctx, 3*time.Second)
			if _, err := c.Members(ctx, group); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			cancel()
			c.Close()
		}
	})
	step("the keys are for the nodes", func() {
		user := p.inspect(p.container("webserver1"), "{{.Config.User}}")
		for _, command := range [][]string{
			{"tls", "issue", "-dir", "/tls", "-client", "intruder"},
			{"groups", "-ca", "/tls/ca.crt", "-cert", "/tls/node.crt", "-key", "/tls/node.key"},
		} {
			_, err := p.try(slices.Concat([]string{"docker", "run", "--rm", "--label", p.name, "--no-healthcheck", "--user", user,
				"-v", p.name + "_tls:/tls:ro", p.image()}, command)...)
			if err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("a service reads a key: %v", err)
			}
		}
	})

	step("kill of the leader: match and register go on", func() {
		p.must("docker", "kill", p.container(leader))
		p.goesOnWithout(leader, "during-kill", services...)
	})
	step("up again: authority, certificate and registrations are kept", func() {
		p.mustCompose("up", "-d", "--no-build")
		p.healthy(allNodes...)
		p.eventually("the services are registered", 30*time.Second, func() error { return p.checkMembers(allNodes, services...) })
	})
}
