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
	// level tells whether all of a state was sent.
	level(*fsm.State) bool
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
	w := &watcher{source: src, state: s.store.State, progress: s.progress, every: every, timer: time.NewTimer(every)}
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
	state    func() *fsm.State
	progress func(*fsm.State) frame
	every    time.Duration
	timer    *time.Timer
	late     bool // progress is due
	frames   []frame
}

// next waits for what is to be sent: news, and progress where it is due and
// nothing more is on its way.
func (w *watcher) next(ctx context.Context) ([]frame, error) {
	clear(w.frames)
	for ctx.Err() == nil {
		frames, wake := w.poll(w.frames[:0])
		select {
		case <-w.timer.C:
			w.late = true
		default:
		}
		if state := w.state(); w.late && w.level(state) {
			frames = append(frames, w.progress(state))
			w.late = false
			w.timer.Reset(w.every)
		}
		if len(frames) > 0 {
			w.frames = frames
			return frames, nil
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
	reign := s.serving.Load()
	return context.AfterFunc(*reign, func() { cancel(context.Cause(*reign)) })
}

func (s *Server) watchSource(req *registrypb.WatchRequest) (source, time.Duration, error) {
	timing := fsm.WithRing
	if req.AtOnce {
		timing = fsm.AtOnce
	}
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
		known := fsm.KnownGroup{Name: target.Group, Revision: req.Revision, Fingerprint: req.Fingerprint}
		return &groupSource{s.store.Machine().WatchGroup(known, timing), s.metrics.Watches, req.Revision == 0}, every, nil
	case *registrypb.WatchRequest_Prefix:
		if len(target.Prefix) > fsm.MaxNameLength {
			return nil, 0, &fsm.FieldError{Field: "prefix", Limit: fmt.Sprintf("at most %d bytes", fsm.MaxNameLength), Got: fmt.Sprintf("%d bytes", len(target.Prefix))}
		}
		if len(req.Known) > maxKnown {
			return nil, 0, &fsm.FieldError{Field: "known", Limit: fmt.Sprintf("at most %d groups", maxKnown), Got: fmt.Sprint(len(req.Known))}
		}
		known := make([]fsm.KnownGroup, 0, len(req.Known))
		for _, k := range req.Known {
			if err := fsm.ValidateName("known.group", k.GetGroup()); err != nil {
				return nil, 0, err
			}
			if strings.HasPrefix(k.GetGroup(), target.Prefix) {
				known = append(known, fsm.KnownGroup{Name: k.GetGroup(), Revision: k.GetRevision(), Fingerprint: k.GetFingerprint()})
			}
		}
		return prefixSource{s.store.Machine().WatchPrefix(target.Prefix, timing, known...), s.metrics.Watches}, every, nil
	case *registrypb.WatchRequest_Groups:
		return newGroupsSource(s.store.Machine()), every, nil
	case *registrypb.WatchRequest_Nodes:
		return nodesSource{s.store.Machine().WatchNodes()}, every, nil
	}
	return nil, 0, &fsm.FieldError{Field: "target", Limit: "group, prefix, groups or nodes", Got: "none"}
}

type groupSource struct {
	*fsm.GroupWatch
	counts *metrics.Watches
	anew   bool // the watcher knows nothing of the group
}

func (g *groupSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	step, wake := g.Poll()
	if wake != nil {
		return frames, wake
	}
	g.counts.Step(len(step.Changes), step.View != nil, g.anew)
	g.anew = false
	return stepFrames(frames, step), nil
}

func (g *groupSource) level(s *fsm.State) bool { return g.Level(s) }

type prefixSource struct {
	*fsm.PrefixWatch
	counts *metrics.Watches
}

func (p prefixSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	steps, wake := p.Poll()
	for _, step := range steps {
		p.counts.Step(len(step.Changes), false, false) // of its snapshots many begin a group
		frames = stepFrames(frames, step)
	}
	return frames, wake
}

func (p prefixSource) level(s *fsm.State) bool { return p.Level(s) }

func stepFrames(frames []frame, step fsm.Step) []frame {
	if step.Unknown {
		return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: step.Group}}))
	}
	if step.View != nil {
		return append(frames, step.View.Encoded(func(v *fsm.RingView) any { return encodeView(step.Group, v) }).(frame))
	}
	for _, c := range step.Changes {
		frames = append(frames, c.Encoded(encodeChange).(frame))
	}
	return frames
}

func encodeView(group string, v *fsm.RingView) frame {
	snap := &registrypb.GroupSnapshot{
		Group: group, Revision: v.Revision, Index: v.Index, Fingerprint: v.Ring.Fingerprint(),
		Config: configToWire(v.Ring.Params()), Members: make([]*registrypb.Member, v.Ring.Len()),
	}
	for i := range snap.Members {
		snap.Members[i] = memberToWire(v.Member(i))
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: snap}})
}

func encodeChange(c *fsm.GroupChange) any {
	delta := &registrypb.GroupDelta{
		Group: c.Group, From: c.From, Revision: c.Revision, Index: c.Index, Fingerprint: c.Fingerprint,
		Config: configToWire(c.Params), Put: make([]*registrypb.Member, len(c.Put)), Removed: c.Removed,
	}
	for i, m := range c.Put {
		delta.Put[i] = memberToWire(m)
	}
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: delta}})
}

// groupsSource lists groups. The first list has all there are, and may be
// empty; it is one message, however many they are.
type groupsSource struct {
	machine *fsm.Machine
	watch   *fsm.PrefixWatch
	started bool
}

func newGroupsSource(m *fsm.Machine) *groupsSource {
	return &groupsSource{machine: m, watch: m.WatchPrefix("", fsm.WithRing)}
}

func (g *groupsSource) poll(frames []frame) ([]frame, <-chan struct{}) {
	steps, wake := g.watch.Poll()
	for !g.started && wake == nil { // all of the first list
		var more []fsm.Step
		more, wake = g.watch.Poll()
		steps = append(steps, more...)
	}
	if g.started && wake != nil {
		return frames, wake
	}
	g.started = true
	state := g.machine.State()
	list := &registrypb.GroupList{Index: state.Index()}
	named := make(map[string]bool, len(steps))
	for _, step := range steps {
		if named[step.Group] {
			continue
		}
		named[step.Group] = true
		if group := state.Group(step.Group); group != nil {
			list.Groups = append(list.Groups, groupToWire(group))
		} else {
			list.Removed = append(list.Removed, step.Group)
		}
	}
	return append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Groups{Groups: list}})), nil
}

func (g *groupsSource) level(s *fsm.State) bool { return g.watch.Level(s) }

type nodesSource struct{ *fsm.NodesWatch }

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

func (n nodesSource) level(*fsm.State) bool { return true }

func (s *Server) progress(state *fsm.State) frame {
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{
		Index: state.Index(), Lag: durationpb.New(s.store.Lag()),
	}}})
}

// encode cannot fail: what it is given was made from a validated state.
func encode(e *registrypb.WatchEvent) frame {
	data, err := proto.Marshal(e)
	if err != nil {
		panic(fmt.Errorf("rpc: encode a watch event: %w", err))
	}
	return newFrame(data)
}
