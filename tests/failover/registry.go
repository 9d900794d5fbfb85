package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/systems"
)

type registry struct {
	members []*member
	client  *sdk.Client
}

func newRegistry(binary, dir string, election time.Duration) (*registry, error) {
	addrs, err := systems.FreeAddrs(6)
	if err != nil {
		return nil, err
	}
	binds, clients := addrs[:3], addrs[3:]
	r := &registry{}
	for i := range 3 {
		id := fmt.Sprint("n", i)
		args := []string{binary, "serve", "-id", id, "-bind", binds[i], "-bind-advertise", binds[i], "-addr", clients[i], "-advertise", clients[i],
			"-data-dir", filepath.Join(dir, id), "-registries", strings.Join(binds, ","), "-bootstrap-expect", "3"}
		if election > 0 {
			args = append(args, "-election-timeout", election.String())
		}
		r.members = append(r.members, &member{args: args, log: filepath.Join(dir, id+".log")})
	}
	r.client, err = sdk.Dial(strings.Join(clients, ","), sdk.WithCloseTimeout(time.Second))
	return r, err
}

func (r *registry) name() string   { return "registry" }
func (r *registry) all() []*member { return r.members }
func (r *registry) close()         { _ = r.client.Close() } // the nodes may be gone

func (r *registry) leader(ctx context.Context) (int, error) {
	st, err := r.client.Status(ctx, "")
	if err != nil {
		return 0, err
	}
	for i := range r.members {
		if st.Leader == fmt.Sprint("n", i) {
			return i, nil
		}
	}
	return 0, errors.New("no leader")
}

func (r *registry) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := r.client.Status(ctx, "")
	if err != nil {
		return err
	}
	if st.Leader == "" || len(st.Nodes) != len(r.members) {
		return fmt.Errorf("leader %q, %d nodes", st.Leader, len(st.Nodes))
	}
	for _, n := range st.Nodes {
		if !n.Voter || !n.Ready || n.AppliedIndex != st.Nodes[0].AppliedIndex {
			return fmt.Errorf("%s is not ready", n.ID)
		}
	}
	return nil
}

func (r *registry) write(ctx context.Context, round int) error {
	for {
		_, err := r.client.Register(ctx, sdk.Service{Group: "failover", ID: fmt.Sprint("m", round), Addr: "127.0.0.1:80", TTL: time.Hour})
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}
