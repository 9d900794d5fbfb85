package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// Names of flags that several commands have.
const (
	flagRegistries = "registries"
	flagCluster    = "cluster"
	flagTimeout    = "timeout"
	flagJSON       = "json"
	flagGroup      = "group"
	flagID         = "id"
	flagAddr       = "addr"
	flagWeight     = "weight"
	flagDataDir    = "data-dir"
	flagLogStore   = "log-store"
	flagCert       = "cert"
	flagKey        = "key"

	flagAtLeast      = "at-least"
	flagMaxStaleness = "max-staleness"
)

const defaultClientAddr = "127.0.0.1:9800"

// clientFlags are those of every command that talks to a cluster.
func clientFlags(own ...cli.Flag) []cli.Flag {
	own = append(own,
		&cli.StringSliceFlag{
			Name:    flagRegistries,
			Usage:   "client addresses (-addr) of one or more nodes, comma separated",
			EnvVars: []string{"REGISTRY_ADDRS"},
			Value:   cli.NewStringSlice(defaultClientAddr),
		},
		clusterFlag(),
		&cli.DurationFlag{
			Name:    flagTimeout,
			Usage:   "give up after that",
			EnvVars: []string{"REGISTRY_TIMEOUT"},
			Value:   10 * time.Second,
		},
	)
	return append(append(own, tlsFlags()...), tokenFileFlag())
}

// clusterFlag is for clients; a node's -cluster is its own name.
func clusterFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    flagCluster,
		Usage:   "NAME or NAME/ID of the cluster: nodes of another are refused (default: the cluster that answers first)",
		EnvVars: []string{"REGISTRY_CLUSTER"},
	}
}

// readFlags are clientFlags and those that say how to read and to print.
func readFlags(own ...cli.Flag) []cli.Flag {
	return clientFlags(append(own,
		jsonFlag(),
		&cli.BoolFlag{Name: "linearizable", Usage: "ask the leader for a confirmed index first"},
		&cli.Uint64Flag{Name: flagAtLeast, Usage: "wait until the node has applied that log index"},
		&cli.DurationFlag{Name: flagMaxStaleness, Usage: "refuse an answer from a node that heard from its leader longer ago than that"},
	)...)
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagJSON, Usage: "print JSON"}
}

// list splits the comma separated values of a repeatable flag.
func list(c *cli.Context, name string) []string {
	var out []string
	for _, v := range c.StringSlice(name) {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// require reports the first of the named flags that has no value.
func require(c *cli.Context, names ...string) error {
	for _, name := range names {
		if !c.IsSet(name) || c.String(name) == "" {
			return usageErrorf("%s: -%s is required", c.Command.HelpName, name).
				withHint("%s", usageLine(c.Command))
		}
	}
	return nil
}
