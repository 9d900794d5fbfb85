// Package rings builds the rings of groups when they are asked for, and keeps
// those that go on being asked for, within a budget of memory.
//
//	var m *fsm.Machine
//	cache := rings.New(rings.Config{State: func() *fsm.State { return m.State() }})
//	m = fsm.New(cache) // the cache is told of every change
//	defer cache.Close()
//	state := m.State()
//	view, behind, err := cache.Get(ctx, state, state.Group("web"), rings.Need{})
//	owner := view.Member(view.Ring.Match("user-id-1")) // behind: what the ring lacks
//
// # Promises
//
// A group that nobody asks about costs nothing. The first question builds its ring,
// once for all who ask; later changes are built from the ring before, by the next
// question, or at once where the ring was asked for since the last build.
//
// A reader that does not ask for more is answered from the ring before while the
// next one is built, for at most [StaleLimit] after the change was applied, or for
// as long as the last build took if that is longer. Then it waits.
//
// At most one build of a group runs at a time, and it takes the newest revision:
// changes that came meanwhile go into one ring. Builds that readers wait for go
// first, in the order of demand, in slots that small and large rings do not take
// from each other: as many in all as there are processors, and two on one. One that
// nobody waits for begins, after a build that took d, at the earliest 3 d later: a
// group that changes all the time is being built for a quarter of the time.
//
// # Limits
//
// As many rings are built at once as there are processors, and two at least: one
// small and one large.
//
// The memory of all rings, and three times that of those under construction, stays
// within the budget: rings not asked for since [IdleAfter] go, and others before
// their time, those that were asked for once first, then the least recently used.
package rings
