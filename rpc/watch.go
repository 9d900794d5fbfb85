package rpc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/watch"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Limits of how often a watcher without news is told how fresh its stream is.
const (
	defaultProgress = 5 * time.Second
	minProgress     = time.Second
	maxProgress     = time.Hour
)

// maxKnown bounds the groups that a watch of a prefix goes on from.
const maxKnown = 10_000

// source yields what a watcher is to be sent next, and what it has been sent.
type source interface {
	// poll appends frames, few at a time, or returns a channel that is closed
	// when to ask again.
	poll(frames []frame) ([]frame, <-chan struct{})
	// Level returns the applied index up to which everything was sent with the
	// frames of the last poll; ok is false when more is to come.
	Level() (index uint64, ok bool)
}

// Watch implements the public service. It sends on the caller's own goroutine
// and holds a position instead of a queue: a watcher that does not read blocks
// only itself, and is sent a snapshot if it fell too far behind meanwhile. It
// keeps the few frames from being forgotten that it is about to send, and what
// grpc holds for a stream, 64 KiB.
func (s *Server) Watch(req *registrypb.WatchRequest, stream grpc.ServerStreamingServer[registrypb.WatchEvent]) error {
	src, every, err := s.watchSource(req)
	if err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errStopping) })()
	defer s.whileServing(cancel)()
	// The first progress is due with the first state.
	w := &watcher{source: src, progress: s.progress, every: every, timer: time.NewTimer(every), late: true}
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

// watcher is one stream: its source, and when it is told how fresh it is.
type watcher struct {
	source
	progress func(index uint64) frame
	every    time.Duration
	timer    *time.Timer
	late     bool // progress is due
	frames   []frame
}

// next waits for what is to be sent: news, and progress where it is due and the
// watcher has everything up to some index. Under lasting change that is so
// whenever it keeps up.
func (w *watcher) next(ctx context.Context) ([]frame, error) {
	clear(w.frames)
	for ctx.Err() == nil {
		frames, wake := w.poll(w.frames[:0])
		select {
		case <-w.timer.C:
			w.late = true
		default:
		}
		if index, ok := w.Level(); ok && w.late {
			frames = append(frames, w.progress(index))
			w.late = false
			w.timer.Reset(w.every)
		}
		if len(frames) > 0 {
			w.frames = frames
			return frames, nil
		}
		if wake == nil {
			continue // news that make no frame
		}
		select {
		case <-wake:
		case <-w.timer.C:
			w.late = true
		case <-ctx.Done():
		}
	}
	return nil, context.Cause(ctx)
}

// whileServing cancels what streams from a state that turns out to be wrong.
func (s *Server) whileServing(cancel context.CancelCauseFunc) (stop func() bool) {
	serving := s.serving.Load()
	return context.AfterFunc(*serving, func() { cancel(context.Cause(*serving)) })
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
	hub, encoder := s.store.Watches(), encoder{s.store.ClusterID()}
	switch target := req.Target.(type) {
	case *registrypb.WatchRequest_Group:
		if err := fsm.ValidateName("group", target.Group); err != nil {
			return nil, 0, err
		}
		known := s.known(req, target.Group, req.Revision, req.Fingerprint)
		return &groupSource{hub.Group(known), encoder, s.metrics.Watches, req.Revision == 0}, every, nil
	case *registrypb.WatchRequest_Prefix:
		known, err := s.knownOfPrefix(req, target.Prefix)
		if err != nil {
			return nil, 0, err
		}
		return prefixSource{hub.Prefix(target.Prefix, known...), encoder, s.metrics.Watches}, every, nil
	case *registrypb.WatchRequest_Groups:
		return groupsSource{hub.Groups()}, every, nil
	case *registrypb.WatchRequest_Nodes:
		return nodesSource{hub.Nodes()}, every, nil
	}
	return nil, 0, &fsm.FieldError{Field: "target", Limit: "group, prefix, groups or nodes", Got: "none"}
}

// known is what the watcher has of a group: nothing that is of another cluster.
func (s *Server) known(req *registrypb.WatchRequest, group string, revision, fingerprint uint64) watch.Known {
	if req.ClusterId != "" && req.ClusterId != s.store.ClusterID() {
		return watch.Known{Group: group}
	}
	return watch.Known{Group: group, Revision: revision, Fingerprint: fingerprint}
}

func (s *Server) knownOfPrefix(req *registrypb.WatchRequest, prefix string) ([]watch.Known, error) {
	if len(prefix) > fsm.MaxNameLength {
		return nil, &fsm.FieldError{Field: "prefix", Limit: fmt.Sprintf("at most %d bytes", fsm.MaxNameLength), Got: fmt.Sprintf("%d bytes", len(prefix))}
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

type groupSource struct {
	*watch.GroupWatch
	encoder
	counts *metrics.Watches
	anew   bool // the watcher knows nothing of the group
}

func (g *groupSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	step, wake := g.Poll()
	if wake != nil {
		return frames, wake
	}
	g.counts.Step(len(step.Changes), step.Snapshot != nil, g.anew)
	g.anew = false
	return g.frames(frames, step), nil
}

type prefixSource struct {
	*watch.PrefixWatch
	encoder
	counts *metrics.Watches
}

func (p prefixSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	steps, wake := p.Poll()
	for _, step := range steps {
		p.counts.Step(len(step.Changes), false, false) // of its snapshots many begin a group
		frames = p.frames(frames, step)
	}
	return frames, wake
}

// groupsSource lists groups. The first list has all there are, and may be
// empty; it is one message, however many they are.
type groupsSource struct{ *watch.GroupsWatch }

func (g groupsSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	list, wake := g.Poll()
	if list == nil {
		return frames, wake
	}
	out := &registrypb.GroupList{Index: list.State.Index(), Removed: list.Removed, Groups: make([]*registrypb.Group, len(list.Groups))}
	for i, group := range list.Groups {
		out.Groups[i] = groupToWire(group)
	}
	return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Groups{Groups: out}})), nil
}

type nodesSource struct{ *watch.NodesWatch }

func (n nodesSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	state, wake := n.Poll()
	if wake != nil {
		return frames, wake
	}
	list := &registrypb.NodeList{Index: state.Index(), Leader: state.Leader()}
	for node := range state.Nodes {
		list.Nodes = append(list.Nodes, &registrypb.Node{Id: node.ID, Bind: node.Bind, Addr: node.Addr, Version: node.Version})
	}
	return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Nodes{Nodes: list}})), nil
}

func (s *Server) progress(index uint64) frame {
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{
		Index: index, Lag: durationpb.New(s.store.Lag()),
	}}})
}

// encoder makes frames of steps, each of them once for all watchers.
type encoder struct{ cluster string }

func (e encoder) frames(frames []frame, step watch.Step) []frame {
	if step.Unknown {
		return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: step.Group}}))
	}
	if step.Snapshot != nil {
		return append(frames, step.Snapshot.Encoded(e.snapshot).(frame))
	}
	for _, c := range step.Changes {
		frames = append(frames, c.Encoded(encodeChange).(frame))
	}
	return frames
}

func (e encoder) snapshot(s *watch.Snapshot) any {
	g := s.Group
	snap := &registrypb.GroupSnapshot{
		Group: g.Name, Revision: g.Revision, Index: s.Index, Fingerprint: g.Fingerprint(), ClusterId: e.cluster,
		Config: configToWire(g.Params), Members: make([]*registrypb.Member, 0, g.Len()),
	}
	for m := range g.Members {
		snap.Members = append(snap.Members, memberToWire(m))
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: snap}})
}

func encodeChange(c *watch.Change) any {
	delta := &registrypb.GroupDelta{
		Group: c.Group, From: c.From, Revision: c.Revision, Index: c.Index, Fingerprint: c.Fingerprint,
		Config: configToWire(c.Params), Put: make([]*registrypb.Member, len(c.Put)), Removed: c.Removed,
	}
	for i, m := range c.Put {
		delta.Put[i] = memberToWire(m)
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: delta}})
}

// encode cannot fail: what it is given was made from a validated state.
func encode(e *registrypb.WatchEvent) frame {
	data, err := proto.Marshal(e)
	if err != nil {
		panic(fmt.Errorf("rpc: encode a watch event: %w", err))
	}
	return newFrame(data)
}
