package rpc

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/watch"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// encoder encodes steps, each once for all watchers.
type encoder struct {
	cluster string
	limits  Limits
	// The methods of these names, as values that are allocated once.
	encodeChange func(*watch.Change) any
	encodePiece  func(*watch.Piece)
}

func newEncoder(cluster string, limits Limits) *encoder {
	e := &encoder{cluster: cluster, limits: limits}
	e.encodeChange, e.encodePiece = e.change, e.piece
	return e
}

// change encodes a delta as one or more frames.
func (e *encoder) change(c *watch.Change) any {
	var frames []frame
	put, removed := c.Put, c.Removed
	for more := true; more; {
		delta := &registrypb.GroupDelta{
			Group: c.Group, From: c.From, Revision: c.Revision, Index: c.Index, Fingerprint: c.Fingerprint, Config: configToWire(c.Params),
		}
		room := e.limits.Piece - messageHead
		n := fitting(put, memberSize, &room)
		delta.Put = make([]*registrypb.Member, n)
		for i, m := range put[:n] {
			delta.Put[i] = memberToWire(m)
		}
		if put = put[n:]; len(put) == 0 {
			n = fitting(removed, nameSize, &room)
			delta.Removed, removed = removed[:n], removed[n:]
		}
		more = len(put)+len(removed) > 0
		delta.More = moreOf(frames == nil, more)
		frames = append(frames, encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: delta}}))
	}
	return frames
}

// piece encodes a piece of a snapshot as a frame.
func (e *encoder) piece(p *watch.Piece) {
	g := p.Snapshot.Group
	snap := &registrypb.GroupSnapshot{
		Group: g.Name, Revision: g.Revision, Index: p.Snapshot.Index, Fingerprint: g.Fingerprint(), ClusterId: e.cluster, Config: configToWire(g.Params),
	}
	room := e.limits.Piece - messageHead
	for m := range g.MembersAfter(p.After) {
		size := memberSize(m)
		if p.More = size > room && p.End != ""; p.More {
			break
		}
		room -= size
		snap.Members, p.End = append(snap.Members, memberToWire(m)), m.ID
	}
	snap.More = moreOf(p.After == "", p.More)
	p.Encoded = encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: snap}})
}

// encode cannot fail: the event was made from a validated state.
func encode(e *registrypb.WatchEvent) frame {
	data, err := proto.Marshal(e)
	if err != nil {
		panic(fmt.Errorf("rpc: encode a watch event: %w", err))
	}
	return newFrame(data)
}

// outbox holds the steps that are sent next. It encodes one piece of a snapshot at a
// time, so a blocked watcher keeps one piece and the group's state in memory.
type outbox struct {
	*encoder
	single bool // the watcher takes an event as one message
	steps  []watch.Step
	next   int          // of steps
	piece  *watch.Piece // the last one: kept while it is sent
}

func (o *outbox) put(steps ...watch.Step) { o.steps, o.next = append(o.steps[:0], steps...), 0 }

func (o *outbox) pending() bool { return o.next < len(o.steps) }

// take appends the next frames: one piece of a large snapshot, or small steps up to
// about that size.
func (o *outbox) take(frames []frame) ([]frame, error) {
	var err error
	for begin, sent := len(frames), 0; o.pending() && err == nil && sent < o.limits.Piece/2; {
		frames, err = o.step(frames)
		for ; begin < len(frames); begin++ {
			sent += frames[begin].data.Len()
		}
	}
	if !o.pending() {
		clear(o.steps)
	}
	return frames, err
}

// step appends the frames of the next step, or one piece of a snapshot.
func (o *outbox) step(frames []frame) ([]frame, error) {
	step := o.steps[o.next]
	if step.Snapshot != nil {
		return o.snapshot(frames, step.Snapshot)
	}
	o.next++
	if step.Unknown {
		return append(frames, encode(&registrypb.WatchEvent{
			Event:   &registrypb.WatchEvent_UnknownGroup{UnknownGroup: step.Group},
			Absence: &registrypb.GroupAbsence{Index: step.Index, ClusterId: o.cluster}})), nil
	}
	for _, c := range step.Changes {
		parts := c.Encoded(o.encodeChange).([]frame)
		if len(parts) > 1 && o.single {
			f, err := o.join(parts)
			if err != nil {
				return frames, err
			}
			frames = append(frames, f)
			continue
		}
		frames = append(frames, parts...)
	}
	return frames, nil
}

func (o *outbox) snapshot(frames []frame, s *watch.Snapshot) ([]frame, error) {
	if !o.single {
		return append(frames, o.pieceOf(s)), nil
	}
	var parts []frame
	for at, size := o.next, 0; o.next == at; {
		f := o.pieceOf(s)
		if size += f.data.Len(); size > o.limits.Answer {
			return frames, o.tooLarge()
		}
		parts = append(parts, f)
	}
	f, err := o.join(parts)
	return append(frames, f), err
}

// pieceOf returns the next piece of a snapshot.
func (o *outbox) pieceOf(s *watch.Snapshot) frame {
	after := ""
	if o.piece != nil && o.piece.Snapshot == s {
		after = o.piece.End
	}
	o.piece = s.Piece(after, o.encodePiece)
	if !o.piece.More {
		o.next++
	}
	return o.piece.Encoded.(frame)
}

// join makes one message of pieces: concatenated protobuf messages are one, with the
// lists appended and the last value of each other field.
func (e *encoder) join(parts []frame) (frame, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	var data mem.BufferSlice
	for _, f := range parts {
		data = append(data, f.data...)
	}
	if data.Len() > e.limits.Answer {
		return nil, e.tooLarge()
	}
	return &encodedFrame{data: data}, nil
}

func (e *encoder) tooLarge() error {
	return e.limits.tooLarge("pieces", "set where an event is more than", "false")
}

// listPiece encodes the groups that fit into a message, and removes them from the list.
func (e *encoder) listPiece(l *watch.List, first bool) (f frame, more bool) {
	room := e.limits.Piece - messageHead
	n := fitting(l.Groups, groupSize, &room)
	out := &registrypb.GroupList{Index: l.State.Index(), Groups: make([]*registrypb.Group, n)}
	for i, g := range l.Groups[:n] {
		out.Groups[i] = groupToWire(g)
	}
	if l.Groups = l.Groups[n:]; len(l.Groups) == 0 {
		n = fitting(l.Removed, nameSize, &room)
		out.Removed, l.Removed = l.Removed[:n], l.Removed[n:]
	}
	more = len(l.Groups)+len(l.Removed) > 0
	out.More = moreOf(first, more)
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_Groups{Groups: out}}), more
}
