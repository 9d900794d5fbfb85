// Package access has the flags by which the examples reach a cluster: those of the
// registry's own commands, with the same variables.
package access

import (
	"flag"
	"os"

	"github.com/werbenhu/registry/sdk"
)

// Flags defines -cluster, -ca, -cert, -key and -token-file. The function that it returns
// says, once the flags are parsed, what a client needs.
func Flags(flags *flag.FlagSet) func() []sdk.Option {
	define := func(name, variable, usage string) *string {
		return flags.String(name, os.Getenv(variable), usage+" ("+variable+")")
	}
	cluster := define("cluster", "REGISTRY_CLUSTER", "NAME or NAME/ID of the cluster: nodes of another are refused; default: the one that answers first")
	ca := define("ca", "REGISTRY_CA", "use TLS: file of the authority that signed the nodes' certificates; default with -cert: the system's")
	cert := define("cert", "REGISTRY_CLIENT_CERT", "use TLS with the client certificate in this file")
	key := define("key", "REGISTRY_CLIENT_KEY", "file of the key of -cert")
	token := define("token-file", "REGISTRY_TOKEN_FILE", "file with a token; default: the token in REGISTRY_TOKEN")
	return func() []sdk.Option {
		opts := []sdk.Option{sdk.WithCluster(*cluster), sdk.WithToken(os.Getenv("REGISTRY_TOKEN"))}
		if *ca != "" || *cert != "" || *key != "" {
			opts = append(opts, sdk.WithTLSFiles(*ca, *cert, *key))
		}
		if *token != "" {
			opts = append(opts, sdk.WithTokenFile(*token))
		}
		return opts
	}
}
