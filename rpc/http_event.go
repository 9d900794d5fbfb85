package rpc

import (
	"fmt"
	"strconv"
	"strings"
	"weak"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// event is a frame as a server-sent event.
type event struct {
	text []byte
	// position: after this event a watcher of one group has the revision and the
	// fingerprint; revision 0: the group does not exist.
	position              bool
	revision, fingerprint uint64
}

// asEvent returns the frame as an event. It is made once for all that send it at the same
// time: the history of a group keeps its frames, but no text.
func (f *encodedFrame) asEvent() *event {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ev := f.event.Value(); ev != nil {
		return ev
	}
	ev := newEvent(f.data)
	f.event = weak.Make(ev)
	return ev
}

// newEvent makes the event of a frame. Its data are the field of the WatchEvent that is
// set, of which the event has the name.
func newEvent(data mem.BufferSlice) *event {
	m := new(registrypb.WatchEvent)
	if err := proto.Unmarshal(data.Materialize(), m); err != nil {
		panic(fmt.Errorf("rpc: decode a watch event: %w", err)) // this node has encoded it
	}
	ev := new(event)
	switch of := m.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		ev.position, ev.revision, ev.fingerprint = !of.Snapshot.GetMore(), of.Snapshot.Revision, of.Snapshot.Fingerprint
	case *registrypb.WatchEvent_Delta:
		ev.position, ev.revision, ev.fingerprint = !of.Delta.GetMore(), of.Delta.Revision, of.Delta.Fingerprint
	case *registrypb.WatchEvent_UnknownGroup:
		ev.position = true
	}
	r := m.ProtoReflect()
	fd := r.WhichOneof(r.Descriptor().Oneofs().ByName("event"))
	ev.text = fmt.Appendf(make([]byte, 0, 2*data.Len()+128), "event: %s\ndata: ", fd.Name())
	if fd.Message() != nil {
		ev.text = httpjson.Append(ev.text, r.Get(fd).Message().Interface())
	} else {
		ev.text = httpjson.AppendString(append(ev.text, `{"group":`...), m.GetUnknownGroup())
		ev.text = append(append(ev.text, ','), httpjson.Append(nil, m.GetAbsence())[1:]...)
	}
	ev.text = append(ev.text, "\n\n"...)
	return ev
}

// problemEvent is the last event of a stream that ends with an error.
func problemEvent(err error) []byte {
	return append(append([]byte("event: error\ndata: "), problemOf(err).json()...), "\n\n"...)
}

// lastEventID is the header in which a watcher sends the id of its last event.
const lastEventID = "Last-Event-ID"

// id is the line of the event's id: a position in a group, of a cluster.
func (ev *event) id(cluster string) []byte {
	if cluster == "" || !ev.position {
		return nil
	}
	return fmt.Appendf(nil, "id: %d-%016x-%s\n", ev.revision, ev.fingerprint, cluster)
}

// resume sets the position of a request from the id of the watcher's last event, if it
// sent one.
func resume(req *registrypb.WatchRequest, ids []string) error {
	if len(ids) == 0 || len(ids) == 1 && ids[0] == "" {
		return nil
	}
	bad := &fsm.FieldError{Field: lastEventID, Limit: "the id of an event of this watch", Got: fmt.Sprintf("%.64q", strings.Join(ids, ","))}
	parts := strings.SplitN(ids[0], "-", 3)
	if len(ids) > 1 || len(parts) < 3 || len(parts[1]) != 16 || parts[2] == "" {
		return bad
	}
	revision, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return bad
	}
	fingerprint, err := strconv.ParseUint(parts[1], 16, 64)
	if err != nil {
		return bad
	}
	req.Revision, req.Fingerprint, req.ClusterId = revision, fingerprint, parts[2]
	return nil
}
