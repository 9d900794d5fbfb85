package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// FeatureLevel is the feature level that the cluster has, as far as this node has
// applied it.
func (s *Store) FeatureLevel() uint32 { return s.State().FeatureLevel() }

// levelTimeout bounds the question which level a node supports.
const levelTimeout = time.Second

// RaiseFeatureLevel raises the cluster's feature level, or leaves it if it is as new
// already. Only the leader does. 0 is the newest level that this node supports. If a
// node of the cluster does not support the level, or does not answer, the error is an
// [fsm.LevelError] that names it.
func (s *Store) RaiseFeatureLevel(ctx context.Context, level uint32) (uint32, error) {
	level = cmp.Or(level, s.cfg.FeatureLevel)
	if err := fsm.ValidateLevel(level); err != nil {
		return 0, err
	}
	l, err := s.leading(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.lockMembership(ctx); err != nil { // nobody joins meanwhile
		return 0, err
	}
	defer s.membership.Release(1)
	if have := s.FeatureLevel(); level <= have {
		_, err := l.confirm.wait(ctx)
		return have, err
	}
	behind, err := s.behindLevel(ctx, level)
	if err != nil {
		return 0, err
	}
	if len(behind) > 0 {
		return 0, &fsm.LevelError{
			Needed: level, Has: s.FeatureLevel(), What: fmt.Sprintf("level %d on all nodes", level),
			Advice: heldBack(behind) + "; upgrade, start or remove them first",
		}
	}
	if _, err := s.propose(ctx, raiseTo(level)); err != nil {
		return 0, err
	}
	s.log.Warn("feature level raised: earlier versions are refused from now on", "level", level)
	return s.FeatureLevel(), nil
}

func raiseTo(level uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_SetFeatureLevel{SetFeatureLevel: &fsmpb.SetFeatureLevel{Level: level}}}
}

// allow prepares a command for the log; see [fsm.State.AtLevel]. An error says which
// nodes hold the level back.
func (s *Store) allow(ctx context.Context, cmd *fsmpb.Command) error {
	err := s.State().AtLevel(cmd)
	refused, ok := errors.AsType[*fsm.LevelError](err)
	if !ok {
		return err
	}
	behind, err := s.behindLevel(ctx, refused.Needed)
	switch {
	case err != nil:
		return errors.Join(refused, err)
	case len(behind) == 0:
		refused.Advice = "all nodes support it; raise the level with: registry cluster feature-level -raise"
	default:
		refused.Advice = heldBack(behind) + "; upgrade them, then: registry cluster feature-level -raise"
	}
	return refused
}

func heldBack(nodes []string) string { return "held back by " + strings.Join(nodes, ", ") }

// behindLevel asks all nodes of the cluster, and describes those that do not support the
// level or do not answer.
func (s *Store) behindLevel(ctx context.Context, level uint32) ([]string, error) {
	servers, _, err := s.configuration()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var behind []string
	note := func(id raft.ServerID, format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		behind = append(behind, string(id)+" ("+fmt.Sprintf(format, args...)+")")
	}
	if s.cfg.FeatureLevel < level {
		note(raft.ServerID(s.cfg.ID), "version %s, level %d", s.cfg.Version, s.cfg.FeatureLevel)
	}
	ctx, cancel := context.WithTimeout(ctx, levelTimeout)
	defer cancel()
	s.eachPeer(servers, func(server raft.Server, _ Target) {
		h, err := s.cfg.Peers.Hello(ctx, string(server.Address))
		switch {
		case err != nil:
			note(server.ID, "does not answer")
		case h.ID != string(server.ID) || h.ClusterID != s.ClusterID():
			note(server.ID, "another node answers at its address %s", server.Address)
		case h.supports() < level:
			note(server.ID, "version %s, level %d", cmp.Or(h.Version, "unknown"), h.supports())
		}
	})
	slices.Sort(behind)
	return behind, nil
}

// supports is the newest level that the node supports. One of 0.1.0 does not say it.
func (h Hello) supports() uint32 { return max(h.FeatureLevel, 1) }

// checkLevel refuses a node that does not support the cluster's level.
func (s *Store) checkLevel(n Hello) error {
	if have := s.FeatureLevel(); n.supports() < have {
		return fmt.Errorf("%w: node %q is of version %s, which supports feature level %d, and the cluster is at level %d (registry %s or newer); start it with a newer version",
			ErrMembership, n.ID, cmp.Or(n.Version, "unknown"), n.supports(), have, since(have))
	}
	return nil
}

func since(level uint32) string { return fsm.Levels[level-1].Since }

// A data directory's format is its feature level and 1. Its level is that of the state,
// or was: so a version that does not support the level refuses to open it, as does
// 0.1.0, which reads format 2 only.
func (i identity) level() uint32 { return uint32(max(i.Format-1, 0)) }

func formatOf(level uint32) int { return int(level) + 1 }

func checkFormat(dir string, have identity, supported uint32) error {
	switch level := have.level(); {
	case level < 1:
		return fmt.Errorf("%w %s: its format is %d and this version reads %d and newer: the limits of the state have changed, so the nodes would differ; "+
			"start a new cluster on empty directories", ErrDataDir, dir, max(have.Format, 1), formatOf(1))
	case level > supported:
		return fmt.Errorf("%w %s: it is of feature level %d, and this version supports up to %d; start the node with the version that wrote it, or a newer one",
			ErrDataDir, dir, level, supported)
	}
	return nil
}

// levelWatch notes that the level was raised.
type levelWatch struct {
	raised chan struct{}
	seen   uint32 // of the goroutine that applies: it signals once for each level
}

func newLevelWatch() *levelWatch { return &levelWatch{raised: make(chan struct{}, 1), seen: 1} }

func (w *levelWatch) Applied(u *fsm.Update)  { w.look(u.State) }
func (w *levelWatch) Restored(st *fsm.State) { w.look(st) }

func (w *levelWatch) look(st *fsm.State) {
	if level := st.FeatureLevel(); level > w.seen {
		w.seen = level
		select {
		case w.raised <- struct{}{}:
		default:
		}
	}
}

// levelLoop saves the level in node.json when it was raised.
func (s *Store) levelLoop(ctx context.Context) {
	for {
		select {
		case <-s.levels.raised:
		case <-ctx.Done():
			return
		}
		if err := s.saveLevel(s.FeatureLevel()); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *Store) saveLevel(level uint32) error {
	s.identMu.Lock()
	defer s.identMu.Unlock()
	next := *s.ident.Load()
	if next.level() >= level {
		return nil
	}
	next.Format = formatOf(level)
	if err := next.save(s.cfg.DataDir); err != nil {
		return err
	}
	s.ident.Store(&next)
	return nil
}

// foundersLevel is the level that all founders support.
func foundersLevel(nodes []Hello) uint32 {
	level := uint32(fsm.NewestLevel)
	for _, n := range nodes {
		level = min(level, n.supports())
	}
	return level
}
