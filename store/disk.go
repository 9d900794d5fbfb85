package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// diskWatch applies the low-water mark of the disk. New members and groups are
// refused while the leader's disk is below its mark, because every entry is written
// there first and a leader with a full disk costs an election; and while the voters
// above their marks are no majority, because the cluster would stop when the others'
// disks are full, and restorations of snapshots. A single follower below its mark stops nothing. Heartbeats write
// nothing. Existing members may register again, change, leave and expire: a snapshot
// removes what they add to the log.
type diskWatch struct {
	mu  sync.Mutex // guards the rest
	low *DiskLowError
	// lowVoters are the other voters below their marks, as the leader last heard.
	lowVoters []string
}

// DiskLowError names the nodes whose disks are below their low-water marks.
type DiskLowError struct {
	Nodes []string
	Free  uint64 // bytes, of a single node
	Mark  uint64 // bytes
}

func (e *DiskLowError) Error() string {
	if len(e.Nodes) > 1 {
		return fmt.Sprintf("%v on nodes %s, and the others are no majority: new members and groups are refused until enough nodes have %s free (-min-free-disk)",
			ErrDiskLow, strings.Join(e.Nodes, ", "), mebibytes(e.Mark))
	}
	return fmt.Sprintf("%v on node %s: %s free, %s; while it leads, new members and groups are refused; free space there, or let another node lead (registry cluster transfer)",
		ErrDiskLow, e.Nodes[0], mebibytes(e.Free), e.Limit())
}

// Limit is the required free space.
func (e *DiskLowError) Limit() string {
	return fmt.Sprintf("at least %s free (-min-free-disk)", mebibytes(e.Mark))
}

// Is makes errors.Is(err, ErrDiskLow) true.
func (e *DiskLowError) Is(target error) bool { return target == ErrDiskLow }

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

const (
	// diskEvery is how often a node checks its disk, and the leader asks the followers.
	diskEvery = time.Second
	// diskSlack: the alarm ends when 1/diskSlack more than the mark is free.
	diskSlack = 10
)

// LowDisk returns a [DiskLowError] while this node's disk is below its mark.
func (s *Store) LowDisk() error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.disk.low == nil {
		return nil
	}
	return s.disk.low
}

func (s *Store) diskLoop(ctx context.Context) {
	if s.cfg.MinFreeDisk == 0 {
		return
	}
	failing := false
	for {
		free, err := s.cfg.diskFree(s.cfg.DataDir)
		if err == nil {
			s.noteDisk(free)
		} else if !failing {
			s.log.Warn("cannot read the free disk space", "dir", s.cfg.DataDir, "error", err)
		}
		failing = err != nil
		if !pause(ctx, diskEvery) {
			return
		}
	}
}

// noteDisk updates the alarm, and logs when it begins and ends.
func (s *Store) noteDisk(free uint64) {
	mark := s.cfg.MinFreeDisk
	was := s.LowDisk() != nil
	var low *DiskLowError
	if free < mark || was && free < mark+mark/diskSlack {
		low = &DiskLowError{Nodes: []string{s.cfg.ID}, Free: free, Mark: mark}
	}
	s.disk.mu.Lock()
	s.disk.low = low
	s.disk.mu.Unlock()
	switch {
	case low != nil && !was:
		s.log.Error("disk is nearly full", "dir", s.cfg.DataDir, "free", mebibytes(free), "min_free_disk", mebibytes(mark))
	case low == nil && was:
		s.log.Info("disk has room again", "dir", s.cfg.DataDir, "free", mebibytes(free), "min_free_disk", mebibytes(mark))
	}
}

// followersDiskLoop keeps track of the other voters' disks. For a voter that does not
// answer the last report counts: it writes nothing meanwhile.
func (s *Store) followersDiskLoop(l *leadership) {
	if s.cfg.MinFreeDisk == 0 {
		return
	}
	reported := make(map[raft.ServerID]bool)
	for {
		if voters, err := s.voters(); err == nil {
			s.askDisks(l, voters, reported)
		}
		if !pause(l.ctx, diskEvery) {
			return
		}
	}
}

func (s *Store) askDisks(l *leadership, voters []raft.Server, reported map[raft.ServerID]bool) {
	ctx, cancel := context.WithTimeout(l.ctx, peerTimeout)
	defer cancel()
	var mu sync.Mutex // guards reported and low
	var low []string
	s.eachPeer(voters, func(v raft.Server, node Target) {
		isLow, err := s.cfg.Peers.LowDisk(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			reported[v.ID] = isLow
		}
		if reported[v.ID] {
			low = append(low, string(v.ID))
		}
	})
	slices.Sort(low)
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.lowVoters = low
}

// roomFor refuses, on the leader, new members and groups while disks are low.
func (s *Store) roomFor(cmd *fsmpb.Command) error {
	s.disk.mu.Lock()
	low, others := s.disk.low, s.disk.lowVoters
	s.disk.mu.Unlock()
	if low == nil && len(others) == 0 || !s.grows(cmd) {
		return nil
	}
	if low != nil {
		return low
	}
	voters, err := s.voters()
	if err != nil {
		return err
	}
	if len(voters)-len(others) < len(voters)/2+1 {
		return &DiskLowError{Nodes: others, Mark: s.cfg.MinFreeDisk}
	}
	return nil
}

// grows reports whether a command adds a member or a group, or begins a restoration.
func (s *Store) grows(cmd *fsmpb.Command) bool {
	state := s.State()
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		g := state.Group(op.Register.Group)
		return g == nil || g.Member(op.Register.Id) == nil
	case *fsmpb.Command_SetGroup:
		return state.Group(op.SetGroup.Group) == nil
	case *fsmpb.Command_RestoreBegin:
		return true
	}
	return false
}
