package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
)

func tokenRecoverCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "recover",
		Usage: "create a token with all rights by the nodes' secret, and print it",
		Description: "For the time after the last administrator's token was lost. It speaks to the bind\n" +
			"ports as a node does, so it needs what the nodes have: the secret, or the certificate\n" +
			"of one of them with its id. No token is needed, and none ends.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "bind", Usage: "bind addresses of nodes, the leader's among them", Value: cli.NewStringSlice("127.0.0.1:7370")},
			&cli.StringFlag{Name: flagCluster, Usage: "the cluster's name", Value: registry.DefaultConfig().Cluster, EnvVars: []string{"REGISTRY_CLUSTER"}},
			&cli.StringFlag{Name: "secret-file", Usage: "the nodes' secret", EnvVars: []string{"REGISTRY_SECRET_FILE"}},
			&cli.StringFlag{Name: "peer-cert", Usage: "instead of the secret: a node's certificate", EnvVars: []string{"REGISTRY_PEER_CERT"}},
			&cli.StringFlag{Name: "peer-key", Usage: "the key of -peer-cert", EnvVars: []string{"REGISTRY_PEER_KEY"}},
			&cli.StringFlag{Name: "peer-ca", Usage: "the authorities of the nodes' certificates", EnvVars: []string{"REGISTRY_PEER_CA"}},
			&cli.StringFlag{Name: "id", Usage: "the id of the node that -peer-cert is for", EnvVars: []string{"REGISTRY_ID"}},
			&cli.StringFlag{Name: flagName, Usage: "the token's name, which no other has", Value: "recovered"},
			&cli.DurationFlag{Name: flagTimeout, Usage: "give up after that", EnvVars: []string{"REGISTRY_TIMEOUT"}, Value: 10 * time.Second},
			tokenOutFlag(),
		},
		Action: func(c *cli.Context) error { return tokenRecover(e, c) },
	}
}

func tokenRecover(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	files := certs.Files{Cert: c.String("peer-cert"), Key: c.String("peer-key"), CA: c.String("peer-ca")}
	id, secret := c.String("id"), c.String("secret-file")
	switch {
	case (secret == "") == (files.Cert == ""):
		return usageErrorf("want one of -secret-file and -peer-cert")
	case secret == "" && (files.Key == "" || files.CA == "" || id == ""):
		return usageErrorf("-peer-cert needs -peer-key, -peer-ca and -id")
	case secret != "": // with which each id is as good
		id = "token-recover"
	}
	identity, err := peertls.Open(peertls.Config{
		Cluster: c.String(flagCluster), ID: id, SecretFile: secret, Files: files,
		Logger: slog.New(slog.DiscardHandler), Refused: func(peertls.Reason) {}, Unusable: func() {},
	})
	if err != nil {
		return usageErrorf("%w", err)
	}
	peers := rpc.NewPeers(identity)
	file, err := newTokenFile(c.String(flagOut))
	if err != nil {
		return errors.Join(err, peers.Close())
	}
	text, tokenID, hash := registrypb.MakeToken()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	err = peers.RecoverTokens(ctx, list(c, "bind"), &registrypb.NewToken{Name: c.String(flagName), Id: tokenID, Hash: hash})
	if err = errors.Join(err, peers.Close()); err != nil && ctx.Err() == nil {
		return errors.Join(err, file.discard())
	}
	if err != nil {
		err = (&exitError{code: exitCode(err), err: err}).withHint("the token may be valid: registry token self tells")
	}
	return errors.Join(err, file.keep(e.stdout, text))
}
