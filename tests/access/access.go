// Package access locks clusters of processes and reaches them: it has the commands that
// make certificates, and options for gRPC connections with TLS and a token. The SDK has
// its own.
package access

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Init makes an authority in the folder dir by the registry's own command: ca.crt and
// ca.key.
func Init(ctx context.Context, registry, dir string) error {
	return Run(ctx, registry, "tls", "init", "-dir", dir)
}

// Issue makes a node's certificate and key beside them: NAME.crt and NAME.key.
func Issue(ctx context.Context, registry, dir, name string, hosts ...string) error {
	return Run(ctx, registry, "tls", "issue", "-dir", dir, "-server", "-host", strings.Join(hosts, ","), "-out", name)
}

// Run runs a command of the registry to its end.
func Run(ctx context.Context, registry string, args ...string) error {
	if out, err := exec.CommandContext(ctx, registry, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", args, err, out)
	}
	return nil
}

// TLS is for connections to nodes whose certificates are of the authority in the file ca,
// and for the name, or with an empty one for the address that is dialled.
func TLS(ca, name string) (*tls.Config, error) {
	source, err := certs.Open(certs.Files{CA: ca}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return source.Client(name), nil
}

// Options are for connections with TLS whose calls have the token that the function
// returns then; empty: none.
func Options(config *tls.Config, token func() string) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithPerRPCCredentials(bearer(token))}
}

type bearer func() string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if text := b(); text != "" {
		return map[string]string{registrypb.AuthorizationHeader: "Bearer " + text}, nil
	}
	return nil, nil
}

func (bearer) RequireTransportSecurity() bool { return true }
