package store

import (
	"context"
	"errors"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

const (
	// emptyBatch bounds the groups that are deleted in one check.
	emptyBatch = 1000
	// maxEmptyCheck is the longest time between two checks.
	maxEmptyCheck = 10 * time.Second
)

// emptyGroups are groups without members, and since when this leader knows them to be empty.
type emptyGroups map[string]emptyGroup

type emptyGroup struct {
	revision uint64
	since    time.Time
}

// next returns the groups that are empty in a state, and the deletions of those that were
// so for that long. A group that has settings of its own is not among them: they would be
// lost with it.
func (e emptyGroups) next(state *fsm.State, now time.Time, after time.Duration) (next emptyGroups, due []Write) {
	next = make(emptyGroups)
	for g := range state.Groups {
		if g.Len() > 0 || g.Params != ring.DefaultParams() {
			continue
		}
		known, ok := e[g.Name]
		if !ok || known.revision != g.Revision { // a member came and went
			known = emptyGroup{revision: g.Revision, since: now}
		}
		next[g.Name] = known
		if now.Sub(known.since) >= after && len(due) < emptyBatch {
			op := &fsmpb.DeleteGroup{Group: g.Name, ExpectedRevision: g.Revision}
			due = append(due, Write{Command: &fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: op}}})
		}
	}
	return next, due
}

// deleteEmptyLoop runs on the leader. It deletes the groups that have been empty for
// [Config.DeleteEmptyAfter], counted from when this leader first saw it.
func (s *Store) deleteEmptyLoop(l *leadership) {
	after := s.cfg.DeleteEmptyAfter
	if after == 0 {
		return
	}
	var empty emptyGroups
	log := every(maxEmptyCheck)
	for pause(l.ctx, min(maxEmptyCheck, after/10)) {
		var due []Write
		empty, due = empty.next(s.State(), time.Now(), after)
		if err := s.deleteEmpty(l.ctx, due); err != nil && l.ctx.Err() == nil && log() {
			s.log.Warn("could not delete empty groups", "error", err)
		}
	}
}

// deleteEmpty deletes groups at the revisions at which they are empty.
func (s *Store) deleteEmpty(ctx context.Context, due []Write) error {
	var errs []error
	deleted, first := uint64(0), ""
	for i, out := range s.WriteMany(ctx, due) {
		switch {
		case out.Err == nil:
			if deleted++; deleted == 1 {
				first = due[i].Command.GetDeleteGroup().Group
			}
		case errors.Is(out.Err, fsm.ErrRevisionMismatch), errors.Is(out.Err, fsm.ErrUnknownGroup): // it changed since
		default:
			errs = append(errs, out.Err)
		}
	}
	if deleted > 0 {
		s.counters.emptyDeleted.Add(deleted)
		s.log.Info("deleted empty groups", "count", deleted, "group", first)
	}
	return errors.Join(errs...)
}
