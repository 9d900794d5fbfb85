package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

// clusters are those that share the groups.
type clusters struct {
	named map[string]cluster
	table map[string]string // names by prefix of a group's name
	rest  *ring.Ring        // of the names
}

type cluster struct {
	name   string
	client *sdk.Client
}

// dial reads NAME=ADDRS and PREFIX=NAME, separated by spaces. The name of a cluster is
// that of its nodes, so that a wrong address is refused.
func dial(list, table string, opts ...sdk.Option) (_ *clusters, err error) {
	c := &clusters{named: make(map[string]cluster), table: make(map[string]string)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	var names []ring.Member
	for _, field := range strings.Fields(list) {
		name, addrs, ok := strings.Cut(field, "=")
		if _, twice := c.named[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("clusters: %q: want NAME=ADDRS, each name once", field)
		}
		client, err := sdk.Dial(addrs, append(opts[:len(opts):len(opts)], sdk.WithCluster(name))...)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", name, err)
		}
		c.named[name] = cluster{name, client}
		names = append(names, ring.Member{ID: name, Weight: 1})
	}
	if len(names) == 0 {
		return nil, errors.New("clusters: want at least one NAME=ADDRS")
	}
	for _, field := range strings.Fields(table) {
		prefix, name, _ := strings.Cut(field, "=")
		if _, known := c.named[name]; !known || prefix == "" {
			return nil, fmt.Errorf("table: %q: want PREFIX=NAME with the name of a cluster", field)
		}
		c.table[prefix] = name
	}
	c.rest, err = ring.New(ring.DefaultParams(), names)
	return c, err
}

// of returns the cluster of a group: that of the longest prefix in the table, or else
// the owner of the name on a ring of the clusters.
func (c *clusters) of(group string) cluster {
	for n := len(group); n > 0; n-- {
		if name, ok := c.table[group[:n]]; ok {
			return c.named[name]
		}
	}
	return c.named[c.rest.Member(c.rest.Match(group)).ID]
}

func (c *clusters) close() (err error) {
	for _, one := range c.named {
		err = errors.Join(err, one.client.Close())
	}
	return err
}
