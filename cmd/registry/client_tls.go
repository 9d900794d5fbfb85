package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/credentials"

	"github.com/werbenhu/registry/rpc/certs"
)

const (
	flagCA         = "ca"
	flagServerName = "server-name"
)

// tlsVariables are the flags of a client's TLS with their variables.
var tlsVariables = map[string]string{
	flagCA: "REGISTRY_CA", flagCert: "REGISTRY_CLIENT_CERT", flagKey: "REGISTRY_CLIENT_KEY", flagServerName: "REGISTRY_SERVER_NAME",
}

// tlsFlags are those of every command that connects to nodes. One of them is enough to
// use TLS.
func tlsFlags() []cli.Flag {
	flag := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, EnvVars: []string{tlsVariables[name]}}
	}
	return []cli.Flag{
		flag(flagCA, "use TLS: file of the authority that signed the nodes' certificates (default with -cert or -server-name: the system's)"),
		flag(flagCert, "use TLS with the client certificate in this file"),
		flag(flagKey, "file of the key of -cert"),
		flag(flagServerName, "use TLS: name in the nodes' certificates (default: the host of the address)"),
	}
}

// secure gives the connections the TLS that the flags ask for, if they do.
func (r *reach) secure(value func(flag string) string) error {
	files, name := certs.Files{Cert: value(flagCert), Key: value(flagKey), CA: value(flagCA)}, value(flagServerName)
	if files == (certs.Files{}) && name == "" {
		return nil
	}
	if (files.Cert == "") != (files.Key == "") {
		return usageErrorf("-%s and -%s are given together", flagCert, flagKey)
	}
	source, err := certs.Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		return usageErrorf("-%s, -%s, -%s: %w", flagCA, flagCert, flagKey, err)
	}
	r.config = func() *tls.Config { return source.Client(name) }
	return nil
}

// credentials are those of one connection or more. They note how the handshakes go.
func (r *reach) credentials() credentials.TransportCredentials {
	return certs.NewCredentials(r.config, r.note)
}

// tlsValue is the value of a flag on the line that is being completed.
func (l *partialLine) tlsValue(flag string) string {
	if v, ok := l.values[flag]; ok {
		return v
	}
	return os.Getenv(tlsVariables[flag])
}

// tlsHints say what to do about a handshake that failed.
var tlsHints = []struct {
	kind error
	hint string
}{
	{certs.ErrSpeaksTLS, "set -ca or REGISTRY_CA to the file of the authority that signed the nodes' certificates"},
	{certs.ErrNotTLS, "leave out -ca, -cert, -key and -server-name, and their variables, where nodes have no TLS"},
	{certs.ErrAuthority, "-ca or REGISTRY_CA names the file of the authority that signed the nodes' certificates"},
	{certs.ErrName, "use an address that the certificate is for, issue one for this address, or set -server-name"},
	{certs.ErrExpired, "the node needs another certificate: registry tls issue, for instance"},
	{certs.ErrRefused, "-cert and -key, or REGISTRY_CLIENT_CERT and REGISTRY_CLIENT_KEY, name the certificate that a node may ask for"},
}

// tlsHint is the hint for an error; empty: it is not of a handshake.
func tlsHint(err error) string {
	for _, h := range tlsHints {
		if errors.Is(err, h.kind) {
			return h.hint
		}
	}
	return ""
}
