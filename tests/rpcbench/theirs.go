package main

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/werbenhu/registry/tests/systems"
)

// etcdSide is three members of etcd.
type etcdSide struct {
	*systems.Etcd
	watches group
}

func startEtcd(ctx context.Context, program, dir string) (*etcdSide, error) {
	if program == "" {
		built, err := systems.BuildEtcd(ctx, dir)
		if err != nil {
			return nil, err
		}
		program = built
	}
	members, err := systems.StartEtcd(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	return &etcdSide{Etcd: members}, nil
}

func (s *etcdSide) name() string { return "etcd" }

func (s *etcdSide) watchers() int { return nodes }

func prefixOf(size int) string { return fmt.Sprintf("/watched-%d/", size) }

func (s *etcdSide) fill(ctx context.Context, size int) error {
	return fillAll(ctx, size, func(i int) error { return s.put(ctx, size, i%nodes, fmt.Sprintf("old-%08d", i)) })
}

func (s *etcdSide) put(ctx context.Context, size, node int, name string) error {
	_, err := s.Clients[node].Put(ctx, prefixOf(size)+name, strings.Repeat("v", 100))
	return err
}

func (s *etcdSide) remove(ctx context.Context, size, node int, name string) error {
	_, err := s.Clients[node].Delete(ctx, prefixOf(size)+name)
	return err
}

func (s *etcdSide) watch(ctx context.Context, size int, seen func(int, string)) error {
	for node, c := range s.Clients {
		events := c.Watch(ctx, prefixOf(size), clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		select {
		case r := <-events:
			if err := r.Err(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s.watches.run(func() error {
			for r := range events {
				for _, e := range r.Events {
					if e.Type == clientv3.EventTypePut {
						seen(node, strings.TrimPrefix(string(e.Kv.Key), prefixOf(size)))
					}
				}
			}
			return nil // the measurement is over
		})
	}
	return nil
}

func (s *etcdSide) close() {
	s.Close() // ends the watches
	_ = s.watches.wait()
}
