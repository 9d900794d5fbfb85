package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// repository is the root of the module under test.
const repository = "../.."

// python is one that has grpcio, or the test is skipped. Debian's package is for
// Debian's own Python, which need not be the first in the path.
func python(t *testing.T) string {
	t.Helper()
	var last error
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.CommandContext(t.Context(), name, "-c", "import google.protobuf, grpc").CombinedOutput()
		if err == nil {
			return name
		}
		last = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	t.Skipf("no Python has grpcio (Debian: python3-grpcio): %v", last)
	return ""
}

// pythonStubs generates them beside the program and returns the folder.
func pythonStubs(t *testing.T) string {
	t.Helper()
	plugin, err := exec.LookPath("grpc_python_plugin")
	if err != nil {
		t.Skip("there is no grpc_python_plugin (Debian: protobuf-compiler-grpc)")
	}
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Skip("there is no protoc (Debian: protobuf-compiler)")
	}
	dir, example := t.TempDir(), filepath.Join(repository, "examples", "python")
	generate := exec.CommandContext(t.Context(), protoc, "-I", filepath.Join(repository, "rpc", "registrypb"), "-I", example,
		"--python_out="+dir, "--grpc_python_out="+dir, "--plugin=protoc-gen-grpc_python="+plugin, "registry.proto", "status.proto")
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	source, err := os.ReadFile(filepath.Join(example, "client.py"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "client.py"), source, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var saysNode = regexp.MustCompile(`user-1 is with py-1 says (\S+)`)

// asks is the node that a client asked last.
func asks(p *process) string {
	all := saysNode.FindAllStringSubmatch(p.log.text(), -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}

// TestPythonClient: the program of docs/clients.md registers, follows the leader,
// keeps its lease when the node dies that it talks to, ends when someone else has
// the id, and deregisters. Whatever happens, it prints no traceback.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	interpreter, dir := python(t), pythonStubs(t)
	c := startNodes(t, 3) // the program has neither TLS nor a token
	leader, others := c.leader()
	var all []*process
	program := func(name string, env []string, args ...string) *process {
		p := start(t, command{name: name, path: interpreter, dir: dir, env: env, args: append([]string{"client.py"}, args...)})
		all = append(all, p)
		return p
	}
	nodes := others[0].addr + "," + others[1].addr + "," + leader.addr
	run := func(name, addr string) *process { return program(name, nil, nodes, "web", "py-1", addr, "user-1") }
	defer func() {
		for _, p := range all {
			if strings.Contains(p.log.text(), "Traceback") {
				t.Errorf("%s:\n%s", p.name, p.log.text())
			}
		}
	}()
	usage := program("python-usage", nil)
	if code := usage.ends(patience); code != 2 {
		t.Errorf("without arguments: exit code %d", code)
	}
	usage.says("client.py NODE,NODE… GROUP ID ADDR KEY", patience)
	alone := program("python-alone", nil, "127.0.0.1:1", "web", "py-1", "127.0.0.1:8080", "user-1")
	alone.says("no answer yet, trying 127.0.0.1:1", patience)
	if took := alone.stop(); took > 10*time.Second {
		t.Errorf("without a node it took %v to end", took)
	}
	other := program("python-other", []string{"REGISTRY_CLUSTER=other"}, nodes, "web", "py-1", "127.0.0.1:8080", "user-1")
	if code := other.ends(patience); code == 0 {
		t.Error("nodes of another cluster took it")
	}
	other.says("WRONG_CLUSTER", patience)
	client := run("python", "127.0.0.1:8080")
	client.says("registered, lease", patience)
	eventually(t, patience, "heartbeats at the leader", func() error {
		if at := asks(client); at != leader.addr {
			return fmt.Errorf("at %q", at)
		}
		return nil
	})
	second := run("python-second", "127.0.0.1:8081")
	if code := second.ends(patience); code == 0 {
		t.Error("a second process got the id")
	}
	second.says("client.py: CONFLICT: ", patience)

	before := memberOf(t, others[0].addr, "web", "py-1")
	leader.kill()
	eventually(t, patience, "heartbeats at another node", func() error {
		if at := asks(client); !slices.Contains([]string{others[0].addr, others[1].addr}, at) {
			return fmt.Errorf("at %q", at)
		}
		return nil
	})
	if after := memberOf(t, others[0].addr, "web", "py-1"); after == nil || before == nil || after.CreatedIndex != before.CreatedIndex {
		t.Errorf("the lease was lost: %v, then %v", before, after)
	}

	ok(t, "deregister", "-group", "web", "-id", "py-1", "-yes", "-registries", others[0].addr)
	if code := client.ends(patience); code == 0 {
		t.Error("it goes on after an operator deregistered it")
	}
	client.says("client.py: FENCED: ", patience)
	client.says("start the service again to register anew", patience)

	third := run("python-third", "127.0.0.1:8080")
	third.says("registered, lease", patience)
	third.send(os.Interrupt)
	third.says("deregistered", patience)
	if code := third.ends(patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if m := memberOf(t, others[0].addr, "web", "py-1"); m != nil {
		t.Errorf("still there: %v", m)
	}

	if err := os.WriteFile(filepath.Join(dir, "interrupted.py"), []byte(interruptedClient), 0o644); err != nil {
		t.Fatal(err)
	}
	fourth := start(t, command{name: "python-fourth", path: interpreter, dir: dir, args: []string{"interrupted.py", nodes, "web", "py-1", "127.0.0.1:8080", "user-1"}})
	all = append(all, fourth)
	fourth.says("deregistered", patience)
	if code := fourth.ends(patience); code != 0 {
		t.Errorf("interrupted while it reads an answer: exit code %d", code)
	}
}

// interruptedClient is the program with a signal that comes while gRPC reads an answer.
const interruptedClient = `
import os, signal, sys
import client, registry_pb2, registry_pb2_grpc

class Answers:
    class MatchResponse:
        @staticmethod
        def FromString(data):
            os.kill(os.getpid(), signal.SIGINT)
            return registry_pb2.MatchResponse.FromString(data)

    def __getattr__(self, name):
        return getattr(registry_pb2, name)

registry_pb2_grpc.registry__pb2 = Answers()
client.main(*sys.argv[1:])
`
