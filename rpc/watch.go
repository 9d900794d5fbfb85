package rpc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/watch"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Limits of the interval of progress events.
const (
	defaultProgress = 5 * time.Second
	minProgress     = time.Second
	maxProgress     = time.Hour
)

// maxKnown bounds the groups that a watch of a prefix resumes.
const maxKnown = 10_000

// source yields the next frames of a watcher, and its progress.
type source interface {
	// poll appends frames, few at a time, or returns a channel that is closed when to
	// poll again. An error ends the watch.
	poll(frames []frame) ([]frame, <-chan struct{}, error)
	// Progress returns the applied index up to which the watcher has every change with
	// the frames of the last poll; ok is false if more follow.
	Progress() (index uint64, ok bool)
}

// Watch implements the public service. It sends on the caller's goroutine and holds a
// position instead of a queue: a watcher that does not read blocks only itself, and
// gets a snapshot if it falls behind the history. It keeps in memory the few frames
// that it sends next, of a snapshot one piece and the group's state, and gRPC's buffer
// of a stream, 64 KiB.
func (s *Server) Watch(req *registrypb.WatchRequest, stream grpc.ServerStreamingServer[registrypb.WatchEvent]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer s.whileServing(cancel)()
	src, every, err := s.watchSource(req)
	if err != nil {
		return toStatus(err)
	}
	// The first progress is due with the first state.
	w := &watcher{source: src, lag: s.store.Lag, progressFrame: progressFrame, interval: every, timer: time.NewTimer(every), due: true}
	defer w.timer.Stop()
	for {
		frames, err := w.next(ctx)
		if err != nil {
			return toStatus(err)
		}
		for _, f := range frames {
			if err := stream.SendMsg(f); err != nil {
				return err
			}
		}
		s.metrics.Watches.Events.Add(float64(len(frames)))
	}
}

// watcher is one stream: its source, and its progress events.
type watcher struct {
	source
	lag           func() time.Duration
	progressFrame func(index uint64, lag time.Duration) frame
	interval      time.Duration
	timer         *time.Timer
	due           bool // a progress event is
	frames        []frame
}

// next waits for the next frames, and adds a progress event if that is due and the
// watcher has every change up to some index, as it has whenever it keeps up.
func (w *watcher) next(ctx context.Context) ([]frame, error) {
	clear(w.frames)
	for ctx.Err() == nil {
		select {
		case <-w.timer.C:
			w.due = true
		default:
		}
		var lag time.Duration
		if w.due { // as in read: before the state that is polled
			lag = w.lag()
		}
		frames, wake, err := w.poll(w.frames[:0])
		if err != nil {
			return nil, err
		}
		if index, ok := w.Progress(); ok && w.due {
			frames = append(frames, w.progressFrame(index, lag))
			w.due = false
			w.timer.Reset(w.interval)
		}
		if len(frames) > 0 {
			w.frames = frames
			return frames, nil
		}
		if wake == nil {
			continue // a step without a frame
		}
		select {
		case <-wake:
		case <-w.timer.C:
			w.due = true
		case <-ctx.Done():
		}
	}
	return nil, context.Cause(ctx)
}

// whileServing cancels a stream when the node stops answering because its state is wrong, or
// stops. It is called before the node is asked whether it serves.
func (s *Server) whileServing(cancel context.CancelCauseFunc) (stop func()) {
	answering := s.store.Answering()
	forgetAnswering := context.AfterFunc(answering, func() { cancel(context.Cause(answering)) })
	forgetStopping := context.AfterFunc(s.ctx, func() { cancel(errStopping) })
	return func() {
		forgetAnswering()
		forgetStopping()
	}
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
	// A node that serves knows the cluster's id.
	hub, out := s.store.Watches(), outbox{encoder: newEncoder(s.store.ClusterID(), s.limits), single: !req.Pieces}
	switch target := req.Target.(type) {
	case *registrypb.WatchRequest_Group:
		if err := fsm.ValidateName("group", target.Group); err != nil {
			return nil, 0, err
		}
		if target.Group == fsm.NodesGroupName {
			return &nodesGroupSource{hub.Nodes(), out}, every, nil
		}
		known := s.known(req, target.Group, req.Revision, req.Fingerprint)
		return &groupSource{hub.Group(known), out, s.metrics.Watches, req.Revision == 0}, every, nil
	case *registrypb.WatchRequest_Prefix:
		known, err := s.knownOfPrefix(req, target.Prefix)
		if err != nil {
			return nil, 0, err
		}
		return &prefixSource{hub.Prefix(target.Prefix, known...), out, s.metrics.Watches}, every, nil
	case *registrypb.WatchRequest_Groups:
		return &groupsSource{GroupsWatch: hub.Groups(), encoder: out.encoder, single: out.single}, every, nil
	case *registrypb.WatchRequest_Nodes:
		return nodesSource{hub.Nodes()}, every, nil
	}
	return nil, 0, &fsm.FieldError{Field: "target", Limit: "group, prefix, groups or nodes", Got: "none"}
}

// known is the watcher's position in a group: none if it is of another cluster.
func (s *Server) known(req *registrypb.WatchRequest, group string, revision, fingerprint uint64) watch.Known {
	if req.ClusterId != "" && req.ClusterId != s.store.ClusterID() {
		return watch.Known{Group: group}
	}
	return watch.Known{Group: group, Revision: revision, Fingerprint: fingerprint}
}

func (s *Server) knownOfPrefix(req *registrypb.WatchRequest, prefix string) ([]watch.Known, error) {
	if len(prefix) > fsm.MaxNameLength {
		return nil, prefixTooLong(prefix)
	}
	if len(req.Known) > maxKnown {
		return nil, &fsm.FieldError{Field: "known", Limit: fmt.Sprintf("at most %d groups", maxKnown), Got: fmt.Sprint(len(req.Known))}
	}
	known := make([]watch.Known, 0, len(req.Known))
	for _, k := range req.Known {
		if err := fsm.ValidateName("known.group", k.GetGroup()); err != nil {
			return nil, err
		}
		if strings.HasPrefix(k.GetGroup(), prefix) {
			known = append(known, s.known(req, k.GetGroup(), k.GetRevision(), k.GetFingerprint()))
		}
	}
	return known, nil
}

func prefixTooLong(prefix string) error {
	return &fsm.FieldError{Field: "prefix", Limit: fmt.Sprintf("at most %d bytes", fsm.MaxNameLength), Got: fmt.Sprintf("%d bytes", len(prefix))}
}

type groupSource struct {
	*watch.GroupWatch
	outbox
	counts  *metrics.Watches
	initial bool // the watcher has no position
}

func (g *groupSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	if !g.pending() {
		g.piece = nil
		step, wake := g.Poll()
		if wake != nil {
			return frames, wake, nil
		}
		g.counts.Step(len(step.Changes), step.Snapshot != nil, g.initial)
		g.initial = false
		g.put(step)
	}
	frames, err := g.take(frames)
	return frames, nil, err
}

// Progress is the watch's, once its steps were sent.
func (g *groupSource) Progress() (uint64, bool) {
	index, ok := g.GroupWatch.Progress()
	return index, ok && !g.pending()
}

type prefixSource struct {
	*watch.PrefixWatch
	outbox
	counts *metrics.Watches
}

func (p *prefixSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	if !p.pending() {
		p.piece = nil
		steps, wake := p.Poll()
		if wake != nil {
			return frames, wake, nil
		}
		for _, step := range steps {
			p.counts.Step(len(step.Changes), false, false) // most snapshots are of new groups
		}
		p.put(steps...)
	}
	frames, err := p.take(frames)
	return frames, nil, err
}

// Progress is the watch's, once its steps were sent.
func (p *prefixSource) Progress() (uint64, bool) {
	index, ok := p.PrefixWatch.Progress()
	return index, ok && !p.pending()
}

// groupsSource is the watch of the list of groups. The first list has all, and may be
// empty.
type groupsSource struct {
	*watch.GroupsWatch
	*encoder
	single bool
	list   *watch.List // the rest that is not sent yet; nil without one
	begun  bool        // a piece of the list was sent
}

func (g *groupsSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	if g.list == nil {
		list, wake := g.Poll()
		if list == nil {
			return frames, wake, nil
		}
		g.list, g.begun = list, false
	}
	if !g.single {
		return append(frames, g.next()), nil, nil
	}
	var parts []frame
	for size := 0; g.list != nil; {
		f := g.next()
		if size += f.data.Len(); size > g.limits.Answer {
			return frames, nil, g.tooLarge()
		}
		parts = append(parts, f)
	}
	f, err := g.join(parts)
	return append(frames, f), nil, err
}

// next returns the next piece of the list.
func (g *groupsSource) next() frame {
	f, more := g.listPiece(g.list, !g.begun)
	if g.begun = true; !more {
		g.list = nil
	}
	return f
}

// Progress is the watch's, once the list was sent.
func (g *groupsSource) Progress() (uint64, bool) {
	index, ok := g.GroupsWatch.Progress()
	return index, ok && g.list == nil
}

type nodesSource struct{ *watch.NodesWatch }

func (n nodesSource) poll(frames []frame) ([]frame, <-chan struct{}, error) {
	state, wake := n.Poll()
	if wake != nil {
		return frames, wake, nil
	}
	list := &registrypb.NodeList{Index: state.Index(), Leader: state.Leader()}
	for node := range state.Nodes {
		list.Nodes = append(list.Nodes, &registrypb.Node{Id: node.ID, Bind: node.Bind, Addr: node.Addr, Version: node.Version, Zone: node.Zone})
	}
	return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Nodes{Nodes: list}})), nil, nil
}

func progressFrame(index uint64, lag time.Duration) frame {
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{
		Index: index, Lag: durationpb.New(lag),
	}}})
}
