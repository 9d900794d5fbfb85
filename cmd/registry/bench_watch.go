package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// watchLoad times how soon a registration is seen.
type watchLoad struct {
	benchMembers
	nodes int
	next  atomic.Int64
	stop  context.CancelFunc
	all   sync.WaitGroup // watchers

	mu      sync.Mutex // guards the rest
	waiting map[string]*sighting
	ended   error // of a watcher
}

// sighting is of one member.
type sighting struct {
	left int // watchers that have not seen it
	done chan struct{}
}

// watchPatience bounds the wait for the watchers.
const watchPatience = 10 * time.Second

func newWatchLoad(c *cli.Context) load {
	return &watchLoad{benchMembers: newBenchMembers(c), nodes: len(list(c, flagRegistries)), waiting: map[string]*sighting{}}
}

// prepare opens a watch of the run's groups at each node, and waits until each has its
// first state.
func (l *watchLoad) prepare(ctx context.Context, clients []registrypb.RegistryClient) error {
	if err := l.benchMembers.prepare(ctx, clients); err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(ctx)
	prefix := strings.TrimSuffix(l.group(0), "0")
	for _, client := range clients[:l.nodes] {
		stream, err := client.Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Prefix{Prefix: prefix}, Pieces: true})
		for current := false; err == nil && !current; {
			var e *registrypb.WatchEvent
			e, err = stream.Recv()
			current = e.GetProgress() != nil
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		l.all.Go(func() {
			for err == nil {
				var e *registrypb.WatchEvent
				if e, err = stream.Recv(); err == nil {
					l.see(e)
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ended = fmt.Errorf("a watch ended: %w", err)
		})
	}
	return nil
}

// see notes the members in an event.
func (l *watchLoad) see(e *registrypb.WatchEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, members := range [][]*registrypb.Member{e.GetDelta().GetPut(), e.GetSnapshot().GetMembers()} {
		for _, m := range members {
			if s := l.waiting[m.Id]; s != nil {
				if s.left--; s.left == 0 {
					delete(l.waiting, m.Id)
					close(s.done)
				}
			}
		}
	}
}

func (l *watchLoad) caller(_ int, client registrypb.RegistryClient) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		n := len(l.leases) + int(l.next.Add(1))
		req := benchMember(l.group(n), n)
		s := &sighting{left: l.nodes, done: make(chan struct{})}
		l.mu.Lock()
		l.waiting[req.Id] = s
		err := l.ended
		l.mu.Unlock()
		defer l.forget(req.Id)
		if err != nil {
			return 0, err
		}
		if _, err := client.Register(ctx, req); err != nil {
			return 0, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, watchPatience, errors.New("the watchers did not see a member in 10 s"))
		defer cancel()
		select {
		case <-s.done:
			return 1, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (l *watchLoad) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, id)
}

func (l *watchLoad) clean(ctx context.Context, clients []registrypb.RegistryClient) error {
	if l.stop != nil {
		l.stop()
	}
	l.all.Wait()
	return l.benchMembers.clean(ctx, clients)
}
