package systems

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/source"
)

// Registry is three nodes of the registry.
type Registry struct {
	processes
	Addrs []string           // of clients
	Conns []*grpc.ClientConn // one to each node

	program, peers string
}

// BuildRegistry builds the program in the folder dir.
func BuildRegistry(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "registry")
	return program, source.Build(ctx, program, "cmd/registry")
}

// StartRegistry starts nodes with default settings, whose data is in folders of dir, and
// returns when all are voters and ready.
func StartRegistry(ctx context.Context, program, dir string) (_ *Registry, err error) {
	r := &Registry{program: program}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	addrs, err := FreeAddrs(2 * Nodes)
	if err != nil {
		return nil, err
	}
	bind := addrs[:Nodes]
	r.Addrs, r.peers = addrs[Nodes:], strings.Join(bind, ",")
	for i, addr := range r.Addrs {
		id := fmt.Sprintf("n%d", i+1)
		if err := r.start(program, append(r.args(id, bind[i], addr, filepath.Join(dir, id)), "-bootstrap-expect=3")...); err != nil {
			return nil, err
		}
		conn, err := DialRegistry(addr)
		if err != nil {
			return nil, err
		}
		r.Conns = append(r.Conns, conn)
	}
	return r, r.until(ctx, r.ready)
}

func (r *Registry) args(id, bind, addr, dir string) []string {
	return []string{"serve", "-id=" + id, "-bind=" + bind, "-addr=" + addr, "-bind-advertise=" + bind, "-advertise=" + addr,
		"-log-level=warn", "-data-dir=" + dir, "-registries=" + r.peers}
}

// DialRegistry opens a connection to one node.
func DialRegistry(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
}

func (r *Registry) ready(ctx context.Context) error {
	for _, conn := range r.Conns {
		st, err := registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
		if err != nil {
			return err
		}
		if st.Leader == "" || len(st.Nodes) != Nodes { // none, in no cluster yet
			return fmt.Errorf("%v", st)
		}
		for _, n := range st.Nodes {
			if !n.Voter || !n.Ready {
				return fmt.Errorf("%v", st)
			}
		}
	}
	return nil
}

// Leader is the index of the node that leads. It waits until one does.
func (r *Registry) Leader(ctx context.Context) (leader int, err error) {
	return leader, r.until(ctx, func(ctx context.Context) error {
		st, err := registrypb.NewClusterClient(r.Conns[0]).Status(ctx, &registrypb.StatusRequest{})
		if err != nil {
			return err
		}
		for i := range r.Addrs {
			if st.Leader == fmt.Sprintf("n%d", i+1) {
				leader = i
				return nil
			}
		}
		return errNoLeader
	})
}

// Close ends the connections and kills the nodes.
func (r *Registry) Close() {
	for _, conn := range r.Conns {
		_ = conn.Close() // calls under way fail
	}
	r.close()
}
