package composetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// root is the directory of docker-compose.yml, seen from this package's.
const root = "../.."

// cleanupTime is kept free before the test's deadline for taking all down.
const cleanupTime = time.Minute

// project is one run of docker-compose.yml, or of more files, under a name of its own.
type project struct {
	t       testing.TB
	ctx     context.Context
	name    string
	env     []string
	compose []string          // "docker compose" or "docker-compose"
	addrs   map[string]string // published client address of each node
	options []sdk.Option      // of clients
}

// newProject builds the images and prepares a project of the files that nothing runs of
// yet. Whatever it starts is removed when the test ends, also when it failed.
func newProject(t *testing.T, files ...string) *project {
	name := fmt.Sprintf("registry-%s-%d", strings.ToLower(t.Name()), os.Getpid())
	p := &project{t: t, ctx: testContext(t), name: name, addrs: map[string]string{}}
	p.compose = findCompose(t)
	p.env = append(os.Environ(), "REGISTRY_TAG="+name, "COMPOSE_FILE="+strings.Join(files, ":"))
	for i, port := range freePorts(t, 3) {
		p.addrs[fmt.Sprintf("registry%d", i+1)] = "127.0.0.1:" + port
		p.env = append(p.env, fmt.Sprintf("REGISTRY_PORT%d=%s", i+1, port))
	}
	t.Cleanup(p.remove)
	p.must(".ci/image")
	return p
}

// testContext ends early enough before the test's deadline to clean up.
func testContext(t *testing.T) context.Context {
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleanupTime))
		t.Cleanup(cancel)
	}
	return ctx
}

// findCompose returns the command of docker compose. Without one, or without an
// engine that answers, the test is skipped.
func findCompose(t *testing.T) []string {
	if out, err := exec.Command("docker", "info", "--format", "{{.ServerVersion}}").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %v: %s", err, out)
	}
	for _, c := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(c[0], append(c[1:], "version")...).Run() == nil {
			return c
		}
	}
	t.Skip("neither docker compose nor docker-compose is installed")
	return nil
}

// freePorts returns ports of 127.0.0.1 that nothing listens on. They are below those that
// the system gives to connections: until the images are built, nothing listens on them.
func freePorts(t *testing.T, n int) (ports []string) {
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(10_000))
		lis, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		defer lis.Close() // all at the end, so that no port comes twice
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatal("no free ports")
	return nil
}

// remove shows what the containers said, if the test failed, and removes all of
// the project. The test's context is over by then.
func (p *project) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime-5*time.Second)
	defer cancel()
	p.ctx = ctx
	if p.t.Failed() {
		out, _ := p.try(p.composeArgs("logs", "--no-color", "--tail=60")...)
		p.t.Logf("logs of the containers:\n%s", out)
	}
	var errs []error
	run := func(args ...string) string {
		out, err := p.try(args...)
		errs = append(errs, err)
		return out
	}
	if ids := strings.Fields(run("docker", "ps", "-aq", "--filter", "label="+p.name)); len(ids) > 0 {
		run(append([]string{"docker", "rm", "-fv"}, ids...)...)
	}
	run(p.composeArgs("down", "-v", "--remove-orphans", "-t", "10")...)
	for _, image := range strings.Fields(run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=werbenhu/*:"+p.name)) {
		run("docker", "rmi", image) // by its tag: other tags of the same image stay
	}
	if err := errors.Join(errs...); err != nil {
		p.t.Errorf("left behind of project %s: %v", p.name, err)
	}
}

// try runs a command in the root directory and returns what it wrote to stdout.
func (p *project) try(args ...string) (string, error) {
	cmd := exec.CommandContext(p.ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = root, p.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

func (p *project) must(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *project) mustCompose(args ...string) string {
	p.t.Helper()
	return p.must(p.composeArgs(args...)...)
}

func (p *project) composeArgs(args ...string) []string {
	return slices.Concat(p.compose, []string{"-p", p.name}, args)
}

// registry runs the CLI in the container of a node, with JSON output into v.
func (p *project) registry(node string, v any, args ...string) error {
	out, err := p.try(append([]string{"docker", "exec", p.container(node), "/registry"}, append(args, "--json")...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("%v printed %s: %w", args, out, err)
	}
	return nil
}

// container returns the id of a service's container, running or not.
func (p *project) container(service string) string {
	p.t.Helper()
	id := p.must("docker", "ps", "-aq",
		"--filter", "label=com.docker.compose.project="+p.name, "--filter", "label=com.docker.compose.service="+service)
	if id == "" || strings.Contains(id, "\n") {
		p.t.Fatalf("containers of %s: %q, want one", service, id)
	}
	return id
}

func (p *project) inspect(container, format string) string {
	p.t.Helper()
	return p.must("docker", "inspect", "--format", format, container)
}

// ip returns the address of a container in the project's network.
func (p *project) ip(container string) string {
	p.t.Helper()
	return p.inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

// image is the registry's, built by newProject.
func (p *project) image() string { return "werbenhu/registry:" + p.name }

// run starts a container of its own in the project's network.
func (p *project) run(args ...string) string {
	p.t.Helper()
	flags := []string{"docker", "run", "-d", "--label", p.name, "--network", p.name + "_default"}
	return p.must(append(flags, args...)...)
}

// eventually waits until check returns nil.
func (p *project) eventually(what string, within time.Duration, check func() error) {
	p.t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			p.t.Fatalf("%s: %v: %v", what, context.Cause(p.ctx), err)
		case <-deadline.C:
			p.t.Fatalf("%s: not within %v: %v", what, within, err)
		}
	}
}

// healthy waits until the engine's health checks of the nodes pass.
func (p *project) healthy(nodes ...string) {
	p.t.Helper()
	for _, node := range nodes {
		p.eventually(node+" is healthy", time.Minute, func() error {
			if s := p.inspect(p.container(node), "{{.State.Status}} {{.State.Health.Status}}"); s != "running healthy" {
				return errors.New(s)
			}
			return nil
		})
	}
}
