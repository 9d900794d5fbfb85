package rpc

import (
	"context"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/fsm/watch"
)

// nodesRing is the ring of the group of the cluster's nodes. It changes too rarely for
// the cache of rings.
type nodesRing struct {
	of   fsm.NodesVersion
	view *rings.View
}

// view returns the ring of a group of the state.
func (s *Server) view(ctx context.Context, state *fsm.State, g *fsm.Group, fresh rings.Freshness) (*rings.View, rings.Staleness, error) {
	if g.Name != fsm.NodesGroupName {
		return s.store.Rings().Get(ctx, state, g, fresh)
	}
	kept := s.nodesRing.Load()
	if kept == nil || kept.of != state.NodesVersion() {
		view, err := rings.Build(state, g)
		if err != nil {
			return nil, rings.Staleness{}, err
		}
		kept = &nodesRing{state.NodesVersion(), view}
		s.nodesRing.Store(kept)
	}
	return kept.view, rings.Staleness{Index: state.Index()}, nil
}

// nodesGroupSource is the watch of the group of the cluster's nodes: a snapshot at each
// change of a node or of the leader.
type nodesGroupSource struct {
	*watch.NodesWatch
	outbox
}

func (n *nodesGroupSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	if !n.pending() {
		n.piece = nil
		state, wake := n.Poll()
		if wake != nil {
			return frames, wake, nil
		}
		n.put(watch.Step{Snapshot: &watch.Snapshot{Group: state.NodesGroup(), Index: state.Index()}})
	}
	frames, err := n.take(frames)
	return frames, nil, err
}

// Progress is the watch's, once its steps were sent.
func (n *nodesGroupSource) Progress() (uint64, bool) {
	index, ok := n.NodesWatch.Progress()
	return index, ok && !n.pending()
}
