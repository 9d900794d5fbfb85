package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdSide is three members of etcd with default settings.
type etcdSide struct {
	processes
	clients []*clientv3.Client
	watches group
}

func startEtcd(ctx context.Context, program, dir string) (_ *etcdSide, err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	s := &etcdSide{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	addrs, err := freeAddrs(2 * nodes)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range nodes {
		cluster = append(cluster, fmt.Sprintf("e%d=http://%s", i+1, addrs[i]))
	}
	for i := range nodes {
		peer, public := "http://"+addrs[i], "http://"+addrs[nodes+i]
		err := s.start(path, fmt.Sprintf("--name=e%d", i+1), "--data-dir="+filepath.Join(dir, fmt.Sprintf("etcd-%d", i+1)),
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
			"--listen-client-urls="+public, "--advertise-client-urls="+public,
			"--initial-cluster="+strings.Join(cluster, ","), "--initial-cluster-state=new")
		if err != nil {
			return nil, err
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{public}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		s.clients = append(s.clients, client)
	}
	return s, s.until(ctx, func(ctx context.Context) error {
		for _, c := range s.clients {
			if _, err := c.Put(ctx, "ready", "yes"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *etcdSide) name() string { return "etcd" }

func (s *etcdSide) watchers() int { return nodes }

func prefixOf(size int) string { return fmt.Sprintf("/watched-%d/", size) }

func (s *etcdSide) fill(ctx context.Context, size int) error {
	return fillAll(ctx, size, func(i int) error { return s.put(ctx, size, i%nodes, fmt.Sprintf("old-%08d", i)) })
}

func (s *etcdSide) put(ctx context.Context, size, node int, name string) error {
	_, err := s.clients[node].Put(ctx, prefixOf(size)+name, strings.Repeat("v", 100))
	return err
}

func (s *etcdSide) remove(ctx context.Context, size, node int, name string) error {
	_, err := s.clients[node].Delete(ctx, prefixOf(size)+name)
	return err
}

func (s *etcdSide) watch(ctx context.Context, size int, seen func(int, string)) error {
	for node, c := range s.clients {
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

func (s *etcdSide) close() error {
	for _, c := range s.clients {
		_ = c.Close() // ends the watches
	}
	_ = s.watches.wait()
	return s.processes.close()
}
