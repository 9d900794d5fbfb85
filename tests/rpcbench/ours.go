package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/tests/systems"
)

// registrySide is three nodes of the registry.
type registrySide struct {
	*systems.Registry
	apis    []registrypb.RegistryClient
	watches group
	ring    bool // time a local ring
}

func startRegistry(ctx context.Context, program, dir string, ring bool) (*registrySide, error) {
	if program == "" {
		built, err := systems.BuildRegistry(ctx, dir)
		if err != nil {
			return nil, err
		}
		program = built
	}
	nodes, err := systems.StartRegistry(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	s := &registrySide{Registry: nodes, ring: ring}
	for _, conn := range nodes.Conns {
		s.apis = append(s.apis, registrypb.NewRegistryClient(conn))
	}
	return s, nil
}

func (s *registrySide) name() string { return "registry" }

func (s *registrySide) watchers() int {
	if s.ring {
		return 1
	}
	return nodes
}

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
	if s.ring {
		return s.watchRing(ctx, size, seen)
	}
	for node, addr := range s.Addrs {
		client, err := sdk.Dial(addr, sdk.WithRefreshInterval(0)) // stays on this node
		if err != nil {
			return err
		}
		w, err := s.follow(ctx, client, groupOf(size))
		if err != nil {
			return errors.Join(err, client.Close())
		}
		s.watches.run(func() error {
			for e, err := range w.All(ctx) {
				if err != nil {
					break // the measurement is over
				}
				for _, m := range e.Put {
					seen(node, m.ID)
				}
			}
			return client.Close()
		})
	}
	return nil
}

// follow returns a watch that has given the group's newest revision.
func (s *registrySide) follow(ctx context.Context, client *sdk.Client, group string) (*sdk.Watch[sdk.GroupEvent], error) {
	newest, err := s.apis[0].Members(ctx, &registrypb.MembersRequest{
		Group: group, Read: &registrypb.ReadOptions{Linearizable: true}, PageSize: 1,
	})
	if err != nil {
		return nil, err
	}
	w, err := client.Watch(ctx, group)
	for revision := uint64(0); err == nil && revision < newest.GetReceipt().GetRevision(); {
		var e sdk.GroupEvent
		e, err = w.Next(ctx)
		revision = e.Revision
	}
	return w, err
}

// watchRing is watch with one local ring, which has seen a member when it has
// published a ring with it.
func (s *registrySide) watchRing(ctx context.Context, size int, seen func(int, string)) error {
	client, err := sdk.Dial(strings.Join(s.Addrs, ","))
	if err != nil {
		return err
	}
	r, err := client.Ring(ctx, groupOf(size))
	if err != nil {
		return errors.Join(err, client.Close())
	}
	s.watches.run(func() error {
		lookOut(ctx, r, func(name string) { seen(0, name) })
		return client.Close()
	})
	return nil
}

// lookEvery is how often the ring is looked at. OnChange would tell of it, and
// compute which keys moved, which costs about as much as the ring.
const lookEvery = 200 * time.Microsecond

// lookOut calls seen with the name of each change that is on the ring, one after
// the other, as they are made.
func lookOut(ctx context.Context, r *sdk.Ring, seen func(name string)) {
	byID := func(m sdk.Member, id string) int { return strings.Compare(m.ID, id) }
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	revision, next := uint64(0), 0
	for ctx.Err() == nil {
		v := r.View()
		if v.Revision() != revision {
			revision = v.Revision()
			if _, found := slices.BinarySearchFunc(v.Members(), changeName(next), byID); found {
				seen(changeName(next))
				next++
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (s *registrySide) close() {
	s.Close() // ends the watches
	_ = s.watches.wait()
}
