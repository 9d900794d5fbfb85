package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Limits of how often a watcher without news is told how fresh its stream is.
const (
	defaultProgress = 5 * time.Second
	minProgress     = time.Second
	maxProgress     = time.Hour
)

// errNoNews ends a wait for news when progress is due.
var errNoNews = errors.New("no news")

// source yields what a watcher is to be sent next.
type source func(ctx context.Context) ([]frame, error)

// Watch implements the public service. It sends on the caller's own goroutine
// and holds a position instead of a queue: a watcher that does not read blocks
// only itself, and is sent a snapshot if it fell too far behind meanwhile.
func (s *Server) Watch(req *registrypb.WatchRequest, stream grpc.ServerStreamingServer[registrypb.WatchEvent]) error {
	next, every, err := s.watchSource(req)
	if err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errStopping) })()
	defer s.whileServing(cancel)()
	due := time.Now().Add(every) // of the next progress, news or not
	for {
		frames, err := awaitNews(ctx, due, next)
		if err != nil && !errors.Is(err, errNoNews) {
			return toStatus(err)
		}
		if now := time.Now(); !now.Before(due) {
			frames = append(frames, s.progress())
			due = now.Add(every)
		}
		for _, f := range frames {
			if err := stream.SendMsg(f); err != nil {
				return err
			}
		}
	}
}

// whileServing cancels what streams from a state that turns out to be wrong.
func (s *Server) whileServing(cancel context.CancelCauseFunc) (stop func() bool) {
	reign := s.serving.Load()
	return context.AfterFunc(*reign, func() { cancel(context.Cause(*reign)) })
}

// awaitNews asks the source until the next progress is due.
func awaitNews(ctx context.Context, due time.Time, next source) ([]frame, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, due, errNoNews)
	defer cancel()
	return next(ctx)
}

func (s *Server) watchSource(req *registrypb.WatchRequest) (source, time.Duration, error) {
	every := defaultProgress
	if req.ProgressInterval != nil {
		every = req.ProgressInterval.AsDuration()
	}
	if every < minProgress || every > maxProgress {
		return nil, 0, &fsm.FieldError{Field: "progress_interval", Limit: "1s to 1h", Got: every.String()}
	}
	if err := s.store.Serving(); err != nil {
		return nil, 0, err
	}
	switch target := req.Target.(type) {
	case *registrypb.WatchRequest_Group:
		if err := fsm.ValidateName("group", target.Group); err != nil {
			return nil, 0, err
		}
		return groupSource(s.store.Machine().WatchGroup(target.Group, req.Revision, req.Fingerprint)), every, nil
	case *registrypb.WatchRequest_Prefix:
		if len(target.Prefix) > fsm.MaxNameLength {
			return nil, 0, &fsm.FieldError{Field: "prefix", Limit: fmt.Sprintf("at most %d bytes", fsm.MaxNameLength), Got: fmt.Sprintf("%d bytes", len(target.Prefix))}
		}
		return prefixSource(s.store.Machine().WatchPrefix(target.Prefix)), every, nil
	case *registrypb.WatchRequest_Groups:
		return groupsSource(s.store.Machine()), every, nil
	case *registrypb.WatchRequest_Nodes:
		return nodesSource(s.store.Machine()), every, nil
	}
	return nil, 0, &fsm.FieldError{Field: "target", Limit: "group, prefix, groups or nodes", Got: "none"}
}

func groupSource(w *fsm.GroupWatch) source {
	return func(ctx context.Context) ([]frame, error) {
		step, err := w.Next(ctx)
		if err != nil {
			return nil, err
		}
		return stepFrames(nil, step), nil
	}
}

func prefixSource(w *fsm.PrefixWatch) source {
	return func(ctx context.Context) ([]frame, error) {
		steps, err := w.Next(ctx)
		var frames []frame
		for _, step := range steps {
			frames = stepFrames(frames, step)
		}
		return frames, err
	}
}

func stepFrames(frames []frame, step fsm.Step) []frame {
	if step.Unknown {
		return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: step.Group}}))
	}
	if step.View != nil {
		return append(frames, step.View.Encoded(func(v *fsm.RingView) []byte { return encodeView(step.Group, v) }))
	}
	for _, c := range step.Changes {
		frames = append(frames, c.Encoded(encodeChange))
	}
	return frames
}

func encodeView(group string, v *fsm.RingView) []byte {
	snap := &registrypb.GroupSnapshot{
		Group: group, Revision: v.Revision, Index: v.Index, Fingerprint: v.Ring.Fingerprint(),
		Config: configToWire(v.Ring.Params()), Members: make([]*registrypb.Member, v.Ring.Len()),
	}
	for i := range snap.Members {
		snap.Members[i] = memberToWire(v.Member(i))
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: snap}})
}

func encodeChange(c *fsm.RingChange) []byte {
	delta := &registrypb.GroupDelta{
		Group: c.Group, From: c.From, Revision: c.Revision, Index: c.Index, Fingerprint: c.Fingerprint,
		Config: configToWire(c.Params), Put: make([]*registrypb.Member, len(c.Put)), Removed: c.Removed,
	}
	for i, m := range c.Put {
		delta.Put[i] = memberToWire(m)
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: delta}})
}

func groupsSource(m *fsm.Machine) source {
	w := m.WatchPrefix("")
	return func(ctx context.Context) ([]frame, error) {
		steps, err := w.Next(ctx)
		if err != nil {
			return nil, err
		}
		state := m.State()
		list := &registrypb.GroupList{Index: state.Index()}
		for _, step := range steps {
			if g := state.Group(step.Group); g != nil {
				list.Groups = append(list.Groups, groupToWire(g))
			} else {
				list.Removed = append(list.Removed, step.Group)
			}
		}
		return []frame{encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Groups{Groups: list}})}, nil
	}
}

func nodesSource(m *fsm.Machine) source {
	var last *fsm.State
	return func(ctx context.Context) ([]frame, error) {
		state, err := m.WaitNodes(ctx, last)
		if err != nil {
			return nil, err
		}
		last = state
		list := &registrypb.NodeList{Index: state.Index(), Leader: state.Leader()}
		for n := range state.Nodes {
			list.Nodes = append(list.Nodes, &registrypb.Node{Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version})
		}
		return []frame{encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Nodes{Nodes: list}})}, nil
	}
}

func (s *Server) progress() frame {
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{
		Index: s.store.State().Index(), Lag: durationpb.New(s.store.Lag()),
	}}})
}

// encode cannot fail: what it is given was made from a validated state.
func encode(e *registrypb.WatchEvent) frame {
	data, err := proto.Marshal(e)
	if err != nil {
		panic(fmt.Errorf("rpc: encode a watch event: %w", err))
	}
	return data
}
