package storetest

import (
	"context"
	"fmt"
	"io"

	"github.com/werbenhu/registry/store"
)

// peers calls other nodes by function call. Request and response each need their
// direction of the network; a call whose response is cut off has still taken effect.
type peers struct {
	cluster *Cluster
	from    string
	uncut   bool // ignores cuts
}

var _ store.Peers = peers{}

func (p peers) call(ctx context.Context, to string, f func(*store.Store) error) error {
	if !p.uncut {
		if err := p.cluster.Net.await(ctx, p.from, to); err != nil {
			return err
		}
	}
	s := p.cluster.at(to)
	if s == nil {
		return fmt.Errorf("call %s: %w", to, ErrRefused)
	}
	err := f(s)
	if !p.uncut {
		if cut := p.cluster.Net.await(ctx, to, p.from); cut != nil {
			return cut
		}
	}
	return err
}

func (p peers) Hello(ctx context.Context, bind string) (h store.Hello, err error) {
	err = p.call(ctx, bind, func(s *store.Store) error {
		h = s.Self()
		return nil
	})
	return h, err
}

func (p peers) Term(ctx context.Context, node store.Target) (term uint64, err error) {
	err = p.call(ctx, node.Bind, func(s *store.Store) error {
		term = s.Term()
		return s.IsTarget(node.ID, node.ClusterID)
	})
	return term, err
}

func (p peers) ReadIndex(ctx context.Context, leader store.Target) (index uint64, err error) {
	err = p.call(ctx, leader.Bind, func(s *store.Store) (err error) {
		if err := s.IsTarget(leader.ID, leader.ClusterID); err != nil {
			return err
		}
		index, err = s.ReadIndex(ctx)
		return err
	})
	return index, err
}

func (p peers) Applied(ctx context.Context, node store.Target) (index uint64, err error) {
	err = p.call(ctx, node.Bind, func(s *store.Store) error {
		index = s.State().Index()
		return s.IsTarget(node.ID, node.ClusterID)
	})
	return index, err
}

func (p peers) LowDisk(ctx context.Context, node store.Target) (low bool, err error) {
	err = p.call(ctx, node.Bind, func(s *store.Store) error {
		low = s.LowDisk() != nil
		return s.IsTarget(node.ID, node.ClusterID)
	})
	return low, err
}

func (p peers) Check(ctx context.Context, node store.Target, req store.CheckRequest) (resp store.CheckResponse, err error) {
	err = p.call(ctx, node.Bind, func(s *store.Store) (err error) {
		if err := s.IsTarget(node.ID, node.ClusterID); err != nil {
			return err
		}
		resp, err = s.Check(ctx, req)
		return err
	})
	return resp, err
}

// State streams through a pipe; a cut affects the request only.
func (p peers) State(ctx context.Context, node store.Target, atLeast uint64) (io.ReadCloser, error) {
	r, w := io.Pipe()
	err := p.call(ctx, node.Bind, func(s *store.Store) error {
		if err := s.IsTarget(node.ID, node.ClusterID); err != nil {
			return err
		}
		go func() { _ = w.CloseWithError(s.WriteState(ctx, atLeast, w)) }() // never fails
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (p peers) Join(ctx context.Context, bind string, node store.Hello) (cluster string, err error) {
	err = p.call(ctx, bind, func(s *store.Store) error {
		cluster = s.ClusterID()
		return s.AdmitNode(ctx, node)
	})
	return cluster, err
}
