package watch

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/werbenhu/registry/fsm"
)

// hubNames bounds the names of changed groups that the hub keeps for watchers of many
// groups.
const hubNames = 4096

// Hub observes a state machine: it is an fsm.Observer.
type Hub struct {
	// applied is the state's index, stored after all feeds have its changes.
	applied atomic.Uint64

	mu    sync.Mutex // before feed.mu; guards the rest
	state *fsm.State // the newest of which all feeds have the changes
	feeds map[string]*feed

	names []string // of the last changed groups
	total uint64   // changes of groups so far
	wakes wakes    // closed and replaced at the next change

	closed bool
	wg     sync.WaitGroup // goroutines that wake watchers
}

// wakes are channels that watchers wait on; nil while none does.
type wakes struct {
	any     chan struct{} // a group changed
	created chan struct{} // groups were created, or the state was replaced
	nodes   chan struct{} // nodes or the leader changed
}

// NewHub returns a hub for a machine that is empty.
func NewHub(empty *fsm.State) *Hub {
	return &Hub{state: empty, feeds: make(map[string]*feed)}
}

// Applied adds the changes to the feeds and wakes the watchers.
func (h *Hub) Applied(u *fsm.Update) {
	changes := make([]*Change, len(u.Groups)) // nil: the group was deleted
	created := false
	for i := range u.Groups {
		if u.Groups[i].Next != nil {
			changes[i] = newChange(&u.Groups[i], u.State.Index())
		}
		created = created || u.Groups[i].Prev == nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.state
	h.state = u.State
	wake := make([]chan struct{}, 0, len(changes)+3)
	for i, c := range changes {
		if c == nil {
			wake = append(wake, h.dropLocked(u.Groups[i].Prev.Name))
			h.names = append(h.names, u.Groups[i].Prev.Name)
			continue
		}
		wake = append(wake, h.feed(u.Groups[i].Next).publish(c, u.State.GroupCount()))
		h.names = append(h.names, c.Group)
	}
	h.applied.Store(u.State.Index())
	if over := len(h.names) - hubNames; over > 0 {
		h.names = h.names[over:] // append releases the rest in time
	}
	h.total += uint64(len(changes))
	if len(changes) > 0 {
		wake = append(wake, take(&h.wakes.any))
	}
	if created {
		wake = append(wake, take(&h.wakes.created))
	}
	if old.NodesVersion() != u.State.NodesVersion() {
		wake = append(wake, take(&h.wakes.nodes))
	}
	h.wakeLocked(wake)
}

// Restored drops the history of the previous state.
func (h *Hub) Restored(s *fsm.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = s
	wake := []chan struct{}{take(&h.wakes.any), take(&h.wakes.created), take(&h.wakes.nodes)}
	for _, f := range h.feeds {
		wake = append(wake, f.end())
	}
	h.applied.Store(s.Index())
	h.feeds = make(map[string]*feed)
	h.names, h.total = nil, h.total+hubNames+1 // watchers of many groups have missed some
	h.wakeLocked(wake)
}

// Close waits for the goroutines that wake watchers. It wakes nobody: watchers have
// contexts.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.wg.Wait()
}

// wakeLocked closes the channels on another goroutine than Apply's, because that takes
// a while for thousands of watchers.
func (h *Hub) wakeLocked(wake []chan struct{}) {
	wake = slices.DeleteFunc(wake, func(c chan struct{}) bool { return c == nil })
	if len(wake) == 0 || h.closed {
		return
	}
	h.wg.Go(func() {
		for _, c := range wake {
			close(c)
		}
	})
}

func (h *Hub) feed(g *fsm.Group) *feed {
	f := h.feeds[g.Name]
	if f == nil {
		f = &feed{head: Known{g.Name, g.Revision, g.Fingerprint()}}
		h.feeds[g.Name] = f
	}
	return f
}

// dropLocked ends the feed of a deleted group. It returns the channel that its
// watchers wait on, or nil. A group that is created again has another feed.
func (h *Hub) dropLocked(group string) (wake chan struct{}) {
	f := h.feeds[group]
	if f == nil {
		return nil
	}
	delete(h.feeds, group)
	return f.end()
}

// changedSince returns the names of the groups that changed after the first seen
// changes; ok is false if some of them are no longer kept.
func (h *Hub) changedSince(seen uint64) (names []string, ok bool) {
	missed := h.total - seen
	if missed > uint64(len(h.names)) {
		return nil, false
	}
	return slices.Clone(h.names[uint64(len(h.names))-missed:]), true
}

// take returns a channel and replaces it by nil.
func take(c *chan struct{}) chan struct{} {
	taken := *c
	*c = nil
	return taken
}

// wait returns the channel that the next take returns.
func wait(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}
