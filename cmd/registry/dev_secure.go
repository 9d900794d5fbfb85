package main

import (
	"context"
	"path/filepath"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/sdk"
)

// devVariable is a variable that clients of a locked cluster need.
type devVariable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// secure locks both ports of all nodes, by files in the folder of the data, and says
// what clients need.
func (d *devCluster) secure(configs []registry.Config) error {
	secret := filepath.Join(d.dir, "secret")
	if err := certs.WriteNew(secret, []byte(peertls.NewSecret()+"\n"), 0o600); err != nil {
		return err
	}
	ca, server, err := devCertificates(d.dir)
	if err != nil {
		return err
	}
	for i := range configs {
		configs[i].SecretFile, configs[i].Cert, configs[i].Key = secret, server.Cert, server.Key
	}
	d.env = []devVariable{{tlsVariables[flagCA], ca}}
	return nil
}

// initTokens makes the first token, once the nodes run.
func (d *devCluster) initTokens(ctx context.Context) error {
	if len(d.env) == 0 {
		return nil // not secure
	}
	ctx, cancel := context.WithTimeout(ctx, devPatience)
	defer cancel()
	client, err := sdk.Dial(d.nodes[0].Addr(), sdk.WithTLSFiles(d.env[0].Value, "", ""))
	if err != nil {
		return err
	}
	defer client.Close()
	token, err := client.InitTokens(ctx, "admin")
	if err != nil {
		return err
	}
	for _, n := range d.nodes {
		if err := d.hasTokens(ctx, n, token); err != nil {
			return err
		}
	}
	file := filepath.Join(d.dir, "token")
	d.env = append(d.env, devVariable{tokenFileVariable, file})
	return certs.WriteNew(file, []byte(token+"\n"), 0o600)
}

// hasTokens waits until the node asks its callers for a token: until it has applied the
// first one, it takes everybody.
func (d *devCluster) hasTokens(ctx context.Context, n *registry.Node, token string) error {
	client, err := sdk.Dial(n.Addr(), sdk.WithTLSFiles(d.env[0].Value, "", ""), sdk.WithToken(token), sdk.WithRefreshInterval(0))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Groups(ctx, sdk.Linearizable())
	return err
}

// devCertificates makes an authority in dir and one certificate for all nodes. The
// authority's key stays for client certificates.
func devCertificates(dir string) (ca string, server certs.Files, err error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	root, err := certs.NewAuthority("registry dev CA", certs.DefaultLifetime)
	if err != nil {
		return "", server, err
	}
	if err := root.Write(at(caCert), at(caKey)); err != nil {
		return "", server, err
	}
	authority, err := certs.ReadAuthority(root)
	if err != nil {
		return "", server, err
	}
	pair, err := authority.Issue(certs.Request{Name: "registry dev", Server: true, Hosts: []string{"127.0.0.1", "localhost"}, Lifetime: certs.DefaultLifetime})
	if err != nil {
		return "", server, err
	}
	server = certs.Files{Cert: at("server.crt"), Key: at("server.key")}
	return at(caCert), server, pair.Write(server.Cert, server.Key)
}
