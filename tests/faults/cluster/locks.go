//go:build linux

package cluster

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/access"
)

// nodeName is what the certificate of all nodes is for: their addresses change.
const nodeName = "node.faults"

// locks are the credentials of clients of a cluster that is not plain.
type locks struct {
	tls   *tls.Config            // of clients
	token atomic.Pointer[string] // nil: tokens are off
}

// secretFile locks the bind ports of all nodes.
func (c *Cluster) secretFile() string { return filepath.Join(c.Dir, "secret") }

func (c *Cluster) tlsFile(name string) string { return filepath.Join(c.Dir, "tls", name) }

// makeKeys makes the secret and the certificates by the registry's own commands.
func (c *Cluster) makeKeys(ctx context.Context) (err error) {
	if c.Config.Plain {
		return nil
	}
	registry, dir := c.Config.Binary, c.tlsFile("")
	if err := access.Run(ctx, registry, "secret", "new", "-out", c.secretFile()); err != nil {
		return err
	}
	if err := access.Init(ctx, registry, dir); err != nil {
		return err
	}
	if err := access.Issue(ctx, registry, dir, "node", nodeName); err != nil {
		return err
	}
	c.tls, err = access.TLS(c.tlsFile("ca.crt"), nodeName)
	return err
}

// lockFlags are those of all nodes.
func (c *Cluster) lockFlags() []string {
	if c.Config.Plain {
		return nil
	}
	return []string{"-secret-file=" + c.secretFile(), "-cert=" + c.tlsFile("node.crt"), "-key=" + c.tlsFile("node.key")}
}

// initTokens makes the first token, which all connections use from here on.
func (c *Cluster) initTokens(ctx context.Context) error {
	client, err := sdk.Dial(c.Nodes[0].Addr(), sdk.WithTLS(c.tls), sdk.WithDialer(c.Clients.Dial))
	if err != nil {
		return err
	}
	defer client.Close()
	token, err := client.InitTokens(ctx, "harness")
	if err != nil {
		return err
	}
	c.token.Store(&token)
	return nil
}

// credentials are those of a client's connection.
func (c *Cluster) credentials() []grpc.DialOption {
	if c.Config.Plain {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	return access.Options(c.tls, func() string {
		if token := c.token.Load(); token != nil {
			return *token
		}
		return ""
	})
}
