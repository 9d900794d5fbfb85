package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// registrySide is three nodes of this module.
type registrySide struct {
	processes
	conns   []*grpc.ClientConn
	apis    []registrypb.RegistryClient
	watches group
	atOnce  bool // do not wait for rings
}

func startRegistry(ctx context.Context, program, dir string, atOnce bool) (_ *registrySide, err error) {
	if program == "" {
		program = filepath.Join(dir, "registry")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/werbenhu/registry/cmd/registry")
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the registry: %w\n%s", err, out)
		}
	}
	s := &registrySide{atOnce: atOnce}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	addrs, err := freeAddrs(2 * nodes)
	if err != nil {
		return nil, err
	}
	bind, public := addrs[:nodes], addrs[nodes:]
	for i := range nodes {
		err := s.start(program, "serve", fmt.Sprintf("-id=n%d", i+1), "-bind="+bind[i], "-addr="+public[i],
			"-bind-advertise="+bind[i], "-advertise="+public[i], "-log-level=warn",
			"-data-dir="+filepath.Join(dir, fmt.Sprintf("registry-%d", i+1)), "-bootstrap-expect=3", "-registries="+strings.Join(bind, ","))
		if err != nil {
			return nil, err
		}
		conn, err := grpc.NewClient("passthrough:///"+public[i], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, conn)
		s.apis = append(s.apis, registrypb.NewRegistryClient(conn))
	}
	return s, s.until(ctx, func(ctx context.Context) error {
		for _, conn := range s.conns {
			st, err := registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
			if err != nil {
				return err
			}
			for _, n := range st.Nodes {
				if st.Leader == "" || len(st.Nodes) != nodes || !n.Voter || !n.Ready {
					return fmt.Errorf("%v", st)
				}
			}
		}
		return nil
	})
}

func (s *registrySide) name() string { return "registry" }

func groupOf(size int) string { return fmt.Sprintf("watched-%d", size) }

func (s *registrySide) fill(ctx context.Context, size int) error {
	return fillAll(ctx, size, func(i int) error { return s.put(ctx, size, i%nodes, fmt.Sprintf("old-%08d", i)) })
}

func (s *registrySide) put(ctx context.Context, size, node int, name string) error {
	_, err := s.apis[node].Register(ctx, &registrypb.RegisterRequest{
		Group: groupOf(size), Id: name, Addr: "10.0.0.1:8080", Ttl: durationpb.New(time.Hour), Instance: []byte(name),
		Meta: map[string]string{"zone": strings.Repeat("z", 60)},
	})
	return err
}

func (s *registrySide) remove(ctx context.Context, size, node int, name string) error {
	_, err := s.apis[node].Deregister(ctx, &registrypb.DeregisterRequest{Group: groupOf(size), Id: name})
	return err
}

func (s *registrySide) watch(ctx context.Context, size int, seen func(int, string)) error {
	for node, api := range s.apis {
		stream, err := api.Watch(ctx, &registrypb.WatchRequest{
			Target: &registrypb.WatchRequest_Group{Group: groupOf(size)}, ProgressInterval: durationpb.New(time.Minute), AtOnce: s.atOnce,
		}, grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			return err
		}
		for {
			e, err := stream.Recv()
			if err != nil {
				return err
			}
			if len(e.GetSnapshot().GetMembers())+len(e.GetDelta().GetPut()) > 0 && followed(ctx, s.conns[node], groupOf(size), e) {
				break
			}
		}
		s.watches.run(func() error {
			for {
				e, err := stream.Recv()
				if err != nil {
					return nil // the measurement is over
				}
				for _, m := range e.GetDelta().GetPut() {
					seen(node, m.Id)
				}
				for _, m := range e.GetSnapshot().GetMembers() {
					seen(node, m.Id)
				}
			}
		})
	}
	return nil
}

// followed tells whether the event is of the group's newest revision.
func followed(ctx context.Context, conn *grpc.ClientConn, group string, e *registrypb.WatchEvent) bool {
	r, err := registrypb.NewRegistryClient(conn).Members(ctx, &registrypb.MembersRequest{
		Group: group, Read: &registrypb.ReadOptions{Linearizable: true},
	}, grpc.MaxCallRecvMsgSize(64<<20))
	revision := max(e.GetSnapshot().GetRevision(), e.GetDelta().GetRevision())
	return err != nil || revision >= r.GetReceipt().GetRevision()
}

func (s *registrySide) close() error {
	for _, conn := range s.conns {
		_ = conn.Close() // ends the watches
	}
	_ = s.watches.wait()
	return s.processes.close()
}
