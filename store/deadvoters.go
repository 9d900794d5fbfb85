package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The leader removes dead voters by itself, if [Config.RemoveDeadAfter] is set. It asks
// every voter about once a second. A voter is unreachable while it neither answers nor
// acknowledges heartbeats. One that was so for RemoveDeadAfter is removed, if
//
//  1. at least MinVoters voters are left;
//  2. a majority of those is healthy: they answer, and have applied what was committed
//     at the check before;
//  3. every other voter is healthy, or has been unreachable for as long;
//  4. the last removal was as long ago.
//
// A new leader counts from its election, and one whose process was paused from then on.

// DeadVoter is a voter that the leader does not reach.
type DeadVoter struct {
	ID          string
	Unreachable time.Duration // since the last contact, or since this node leads
	RemovedIn   time.Duration // if nothing changes; without a meaning if it is kept
	Kept        string        // why the leader does not remove it; empty: it does
}

// DeadVoters are the voters that this node does not reach, in the order of their
// removal, as it last checked. None, unless it leads and removes dead voters.
func (s *Store) DeadVoters() []DeadVoter {
	s.dead.mu.Lock()
	defer s.dead.mu.Unlock()
	return s.dead.plan
}

type deadVoters struct {
	mu   sync.Mutex // guards plan
	plan []DeadVoter
}

func (d *deadVoters) publish(plan []DeadVoter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan = plan
}

// voterCheck is what a check found of another voter.
type voterCheck struct {
	id      string
	contact time.Time
	reached bool
	problem string // of a voter that is reached; empty: it is healthy
}

// removalRules decide which dead voters are removed.
type removalRules struct {
	after     time.Duration
	minVoters int
}

// plan says what happens to the voters that are not reached. No time before since counts.
func (r removalRules) plan(now, since time.Time, others []voterCheck) []DeadVoter {
	var dead []voterCheck
	healthy, problem := 1, "" // this node
	for _, v := range others {
		switch {
		case !v.reached:
			dead = append(dead, v)
			if v.contact.After(since) {
				since = v.contact // rule 3
			}
		case v.problem != "":
			problem = v.problem
		default:
			healthy++
		}
	}
	slices.SortFunc(dead, func(a, b voterCheck) int { return cmp.Or(a.contact.Compare(b.contact), cmp.Compare(a.id, b.id)) })
	due, left := since.Add(r.after), len(others) // voters, when the next one is removed
	plan := make([]DeadVoter, len(dead))
	for i, v := range dead {
		d := DeadVoter{ID: v.id, Unreachable: now.Sub(v.contact)}
		switch {
		case left < r.minVoters:
			d.Kept = fmt.Sprintf("%d voters would be left, and -min-voters is %d", left, r.minVoters)
		case healthy < left/2+1:
			d.Kept = fmt.Sprintf("%d voters would be left, and %d of them are healthy", left, healthy)
		case problem != "":
			d.Kept = problem
		default:
			d.RemovedIn = max(0, due.Sub(now))
			due, left = now.Add(d.RemovedIn+r.after), left-1 // rule 4
		}
		plan[i] = d
	}
	return plan
}

// voterWatch is the state of one leadership's checks.
type voterWatch struct {
	since    time.Time // no time before counts
	checked  time.Time // end of the last check
	contacts map[raft.ServerID]time.Time
	index    uint64 // committed a pause ago or more; a voter that has not applied it is behind
}

// removeDeadLoop runs on the leader.
func (s *Store) removeDeadLoop(l *leadership) {
	if s.cfg.RemoveDeadAfter == 0 {
		return
	}
	defer s.dead.publish(nil)
	w := &voterWatch{since: time.Now(), checked: time.Now()}
	log := every(10 * time.Second)
	for pause(l.ctx, s.checkVotersEvery()) {
		index := s.raft.CommitIndex()
		plan := s.checkVoters(l, w)
		var err error
		if removes(plan) {
			err = s.removeDead(l, w) // checks against the same index
		}
		w.index = index
		err = errors.Join(err, s.endRemovals(l))
		if err != nil && l.ctx.Err() == nil && log() {
			s.log.Warn("could not remove a dead voter", "error", err)
		}
	}
}

func (s *Store) checkVotersEvery() time.Duration { return min(time.Second, s.cfg.RemoveDeadAfter/10) }

// removes reports whether the first of the dead voters is to be removed now.
func removes(plan []DeadVoter) bool {
	return len(plan) > 0 && plan[0].Kept == "" && plan[0].RemovedIn == 0
}

// checkVoters asks all other voters at once, and publishes what is to happen to those
// that are not reached.
func (s *Store) checkVoters(l *leadership, w *voterWatch) []DeadVoter {
	voters, err := s.voters()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, voterTimeout)
	defer cancel()
	var mu sync.Mutex // guards others
	var others []voterCheck
	s.eachPeer(voters, func(v raft.Server, node Target) {
		applied, err := s.cfg.Peers.Applied(ctx, node)
		c := voterCheck{id: string(v.ID), reached: err == nil}
		if err != nil {
			c.problem = fmt.Sprintf("%s answers heartbeats only", v.ID)
		} else if applied < w.index {
			c.problem = fmt.Sprintf("%s is behind", v.ID)
		}
		mu.Lock()
		defer mu.Unlock()
		others = append(others, c)
	})
	if l.ctx.Err() != nil {
		return nil
	}
	now := time.Now()
	if late := now.Sub(w.checked) - s.checkVotersEvery() - voterTimeout; late > s.cfg.RemoveDeadAfter/2 {
		w.since = now // this process was paused
	}
	w.note(others, now, s.staleness)
	w.checked = now
	plan := removalRules{s.cfg.RemoveDeadAfter, s.cfg.MinVoters}.plan(now, w.since, others)
	s.logDead(plan, others)
	s.dead.publish(plan)
	return plan
}

// note sets the last contact of each voter, by this check or by heartbeats since the one
// before. A new voter was reached just now.
func (w *voterWatch) note(others []voterCheck, now time.Time, acks *staleness) {
	contacts := make(map[raft.ServerID]time.Time, len(others))
	for i := range others {
		c := &others[i]
		id := raft.ServerID(c.id)
		last, known := w.contacts[id]
		switch acked := acks.acked(id); {
		case c.reached || !known:
			last = now
		case acked.After(last):
			last, c.reached = acked, acked.After(w.checked)
		}
		c.contact, contacts[id] = last, last
	}
	w.contacts = contacts
}

// logDead logs when a voter is no longer reached, and when it is reached again.
func (s *Store) logDead(plan []DeadVoter, others []voterCheck) {
	was := s.DeadVoters()
	for _, d := range plan {
		if !slices.ContainsFunc(was, func(w DeadVoter) bool { return w.ID == d.ID }) {
			s.log.Warn("voter is unreachable", "id", d.ID, "removed_in", d.RemovedIn, "kept", d.Kept)
		}
	}
	for _, d := range was {
		if slices.ContainsFunc(others, func(c voterCheck) bool { return c.id == d.ID && c.reached }) {
			s.log.Info("voter is reached again", "id", d.ID, "unreachable", d.Unreachable)
		}
	}
}

// removeDead checks once more while nobody else can change the configuration, and then
// removes the first of the dead voters.
func (s *Store) removeDead(l *leadership, w *voterWatch) error {
	if err := s.lockMembership(l.ctx); err != nil {
		return err
	}
	defer s.membership.Release(1)
	plan := s.checkVoters(l, w)
	if !removes(plan) {
		return nil
	}
	d := plan[0]
	err := s.removeLocked(l.ctx, l, d.ID)
	w.checked = time.Now()
	if s.cfg.Removed != nil {
		s.cfg.Removed(d.ID, err)
	}
	if err != nil {
		return err
	}
	w.since = w.checked // rule 4
	s.counters.deadRemoved.Add(1)
	s.log.Warn("removed a dead voter", "id", d.ID, "unreachable", d.Unreachable)
	return nil
}

// endRemovals ends the removals that changed the configuration and not the state, of a
// leader that ended in between. Until then the node's id cannot be used again.
func (s *Store) endRemovals(l *leadership) error {
	if len(s.onlyRecorded()) == 0 {
		return nil
	}
	if err := s.lockMembership(l.ctx); err != nil { // a removal or a join may be under way
		return err
	}
	defer s.membership.Release(1)
	var errs []error
	for _, id := range s.onlyRecorded() {
		errs = append(errs, s.forgetNode(l.ctx, id))
	}
	return errors.Join(errs...)
}

// onlyRecorded are the nodes of the state that are not in the configuration.
func (s *Store) onlyRecorded() (ids []string) {
	state := s.State() // before the configuration, to which a node is added first
	servers, _, err := s.configuration()
	if err != nil {
		return nil
	}
	for n := range state.Nodes {
		if !slices.ContainsFunc(servers, func(server raft.Server) bool { return string(server.ID) == n.ID }) {
			ids = append(ids, n.ID)
		}
	}
	return ids
}
