package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/access"
)

// tlsDir has the authority of all tests, and one certificate for all nodes.
var tlsDir string

// makeKeys makes a secret, which all nodes of all tests have, and the certificates. With
// the flag -secret-file= a node has no secret.
func makeKeys(dir string) error {
	registry, secret := program("registry"), filepath.Join(dir, "secret")
	tlsDir = filepath.Join(dir, "tls")
	ctx := context.Background()
	if err := access.Run(ctx, registry, "secret", "new", "-out", secret); err != nil {
		return err
	}
	if err := access.Init(ctx, registry, tlsDir); err != nil {
		return err
	}
	hosts := []string{"127.0.0.1", "localhost", "198.51.100.1", "198.51.100.2", "198.51.100.3"}
	if err := access.Issue(ctx, registry, tlsDir, "node", hosts...); err != nil {
		return err
	}
	return os.Setenv("REGISTRY_SECRET_FILE", secret)
}

// tokens has the file of the first token by the name of the test whose cluster is locked;
// an empty one means that tokens are off.
var tokens sync.Map

// lock gives TLS to the client ports of the nodes that a test and its subtests start from
// here on, and to all clients.
func lock(t *testing.T) { tokens.Store(t.Name(), "") }

// initTokens makes the first token of a locked cluster, which all clients use from here on.
func initTokens(t *testing.T, env []string, addr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if a := cliWith(t, "", env, "token", "init", "-registries", addr, "-out", file); a.code != 0 {
		t.Fatalf("token init: exit code %d:\n%s", a.code, a.stderr)
	}
	tokens.Store(t.Name(), file)
}

// tokenFile is that of the test, or of the one that it is a part of.
func tokenFile(t *testing.T) (path string, locked bool) {
	for name := t.Name(); name != ""; name = name[:max(0, strings.LastIndex(name, "/"))] {
		if path, locked := tokens.Load(name); locked {
			return path.(string), true
		}
	}
	return "", false
}

func tlsFile(name string) string { return filepath.Join(tlsDir, name) }

// lockEnv is what the flags of nodes, commands and examples read.
func lockEnv(t *testing.T) []string {
	token, locked := tokenFile(t)
	if !locked {
		return nil
	}
	env := []string{"REGISTRY_CERT=" + tlsFile("node.crt"), "REGISTRY_KEY=" + tlsFile("node.key"), "REGISTRY_CA=" + tlsFile("ca.crt")}
	if token != "" {
		env = append(env, "REGISTRY_TOKEN_FILE="+token)
	}
	return env
}

// lockOptions are those of SDK clients.
func lockOptions(t *testing.T) []sdk.Option {
	token, locked := tokenFile(t)
	if !locked {
		return nil
	}
	opts := []sdk.Option{sdk.WithTLSFiles(tlsFile("ca.crt"), "", "")}
	if token != "" {
		opts = append(opts, sdk.WithTokenFile(token))
	}
	return opts
}

// connect opens a gRPC connection to one node, which ends with the test.
func connect(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn := newConn(t, addr)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// newConn is connect for a connection that the caller closes.
func newConn(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	file, locked := tokenFile(t)
	if locked {
		config, err := access.TLS(tlsFile("ca.crt"), "")
		if err != nil {
			t.Fatal(err)
		}
		var token []byte
		if file != "" {
			if token, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
		opts = access.Options(config, func() string { return strings.TrimSpace(string(token)) })
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
