package access

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/sdk"
)

// A node that asks for TLS, a client certificate and a token gets them by flags or by variables.
func TestFlags(t *testing.T) {
	ca := certstest.NewCA(t)
	server, own := ca.Server("n1"), ca.Client("web")
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.DataDir, cfg.Bind, cfg.Addr, cfg.BootstrapExpect = "n1", t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", 1
	cfg.Cert, cfg.Key, cfg.ClientCA = server.Cert, server.Key, ca.Path
	node, err := registry.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	admin, err := sdk.Dial(node.Addr(), sdk.WithTLSFiles(ca.Path, own.Cert, own.Key))
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.InitTokens(t.Context(), "admin")
	if err = errors.Join(err, admin.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	tls := []string{"-ca", ca.Path, "-cert", own.Cert, "-key", own.Key}
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want error
	}{
		"flags": {args: append(tls, "-token-file", file)},
		"variables": {env: map[string]string{
			"REGISTRY_CA": ca.Path, "REGISTRY_CLIENT_CERT": own.Cert, "REGISTRY_CLIENT_KEY": own.Key, "REGISTRY_TOKEN_FILE": file,
		}},
		"the token in a variable":     {args: tls, env: map[string]string{"REGISTRY_TOKEN": token}},
		"another cluster":             {args: append(tls, "-cluster", "other", "-token-file", file), want: sdk.ErrWrongCluster},
		"no token":                    {args: tls, want: sdk.ErrUnauthenticated},
		"TLS without own certificate": {args: []string{"-ca", ca.Path, "-token-file", file}, want: sdk.ErrUnavailable},
		"nothing":                     {want: sdk.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			options := Flags(flags)
			if err := flags.Parse(c.args); err != nil {
				t.Fatal(err)
			}
			client, err := sdk.Dial(node.Addr(), append(options(), sdk.WithCallTimeout(3*time.Second))...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.Groups(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
