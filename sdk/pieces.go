package sdk

import (
	"fmt"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// maxElements bounds the elements of an assembled event: a group has no more members.
const maxElements = ring.MaxMembers

// assembly joins the pieces of events; see the API's WatchEvent.
type assembly struct {
	whole *registrypb.WatchEvent // the pieces so far; nil between events
}

// add returns the event that a message completes, or nil if more pieces follow. It
// keeps and changes the first piece.
func (a *assembly) add(e *registrypb.WatchEvent) (*registrypb.WatchEvent, error) {
	if a.whole == nil {
		if moreOf(e) {
			a.whole, e = e, nil
		}
		return e, nil
	}
	if partOf(a.whole) != partOf(e) {
		return nil, fmt.Errorf("%w: %v after a piece of %v", errGap, partOf(e), partOf(a.whole))
	}
	if n := a.append(e); n > maxElements {
		return nil, fmt.Errorf("%w: an event of more than %d elements", errGap, maxElements)
	}
	if moreOf(e) {
		return nil, nil
	}
	whole := a.whole
	a.whole = nil
	return whole, nil
}

// append appends a piece's lists and returns the number of elements.
func (a *assembly) append(e *registrypb.WatchEvent) int {
	switch w := a.whole.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		w.Snapshot.Members = append(w.Snapshot.Members, e.GetSnapshot().GetMembers()...)
		return len(w.Snapshot.Members)
	case *registrypb.WatchEvent_Delta:
		w.Delta.Put = append(w.Delta.Put, e.GetDelta().GetPut()...)
		w.Delta.Removed = append(w.Delta.Removed, e.GetDelta().GetRemoved()...)
		return max(len(w.Delta.Put), len(w.Delta.Removed))
	case *registrypb.WatchEvent_Groups:
		w.Groups.Groups = append(w.Groups.Groups, e.GetGroups().GetGroups()...)
		w.Groups.Removed = append(w.Groups.Removed, e.GetGroups().GetRemoved()...)
		return max(len(w.Groups.Groups), len(w.Groups.Removed))
	}
	return 0
}

// part identifies the event that a message is, or is a piece of.
type part struct {
	kind         string
	group        string
	from, number uint64
}

func partOf(e *registrypb.WatchEvent) part {
	switch e := e.Event.(type) {
	case *registrypb.WatchEvent_Snapshot:
		return part{"snapshot", e.Snapshot.GetGroup(), 0, e.Snapshot.GetRevision()}
	case *registrypb.WatchEvent_Delta:
		return part{"delta", e.Delta.GetGroup(), e.Delta.GetFrom(), e.Delta.GetRevision()}
	case *registrypb.WatchEvent_Groups:
		return part{"list of groups", "", 0, e.Groups.GetIndex()}
	}
	return part{kind: fmt.Sprintf("%T", e.Event)}
}

func moreOf(e *registrypb.WatchEvent) bool {
	return e.GetSnapshot().GetMore() || e.GetDelta().GetMore() || e.GetGroups().GetMore()
}
