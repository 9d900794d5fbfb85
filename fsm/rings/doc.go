// Package rings is a cache of the rings of groups, which are built on demand and
// kept within a memory budget.
//
//	var m *fsm.Machine
//	cache := rings.New(rings.Config{State: func() *fsm.State { return m.State() }})
//	m = fsm.New(cache) // the cache observes every change
//	defer cache.Close()
//	state := m.State()
//	view, staleness, err := cache.Get(ctx, state, state.Group("web"), rings.Freshness{})
//	owner := view.Member(view.Ring.Match("user-id-1")) // staleness: what the ring lacks
//
// # Promises
//
// A group that is not requested costs nothing. The first request builds its ring,
// once for all concurrent requests. A later ring is built from the previous one: at
// the next request, or after a change if the ring was requested since its last build.
//
// While the next ring is built, a reader gets the previous one, for at most
// [StaleLimit] after the change was applied, or as long as the last build took if
// that is longer. Then it waits. A reader may require a fresher ring ([Freshness]).
//
// At most one build of a group runs at a time, and it takes the newest revision, so
// several changes go into one ring. Builds that readers wait for go first, in the
// order of demand. Small and large rings have slots of their own: as many in all as
// there are processors, and at least one of each. A background build starts, after
// a build that took d, at the earliest 3 d later: a group that changes all the time
// is being built for a quarter of the time.
//
// # Limits
//
// The memory of all rings, and three times that of those under construction, stays
// within the budget. Rings are dropped that were not requested for [IdleAfter], and
// to make room: first those that were requested once, then the least recently used.
package rings
