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

// The low-water mark of the disk. New members and groups are refused while the
// leader's own disk is below its mark, because all that is written goes there
// first and a leader that runs full costs the cluster an election; and while so
// many voters are below theirs that the rest is no majority, because then the
// cluster would stand still when theirs run full. One follower below its mark
// stops nothing: the cluster can spare it. Heartbeats write nothing; members that
// are there may register anew, change, leave and expire: what they add to the
// log goes with the next snapshot.
type diskWatch struct {
	mu  sync.Mutex // guards the rest
	low *DiskLowError
	// lowVoters are other voters below their marks, as the leader heard.
	lowVoters []string
}

// DiskLowError says whose disk is below its low-water mark.
type DiskLowError struct {
	Nodes []string
	Free  uint64 // bytes, of a single node
	Mark  uint64 // bytes
}

func (e *DiskLowError) Error() string {
	if len(e.Nodes) > 1 {
		return fmt.Sprintf("%v on nodes %s, and the others are no majority: no new members or groups until some have %s free (-min-free-disk)",
			ErrDiskLow, strings.Join(e.Nodes, ", "), mebibytes(e.Mark))
	}
	return fmt.Sprintf("%v on node %s: %s free, %s; while it leads there are no new members or groups; free space there, or have another node lead (registry cluster transfer)",
		ErrDiskLow, e.Nodes[0], mebibytes(e.Free), e.Limit())
}

// Limit says what has to be free.
func (e *DiskLowError) Limit() string {
	return fmt.Sprintf("at least %s free (-min-free-disk)", mebibytes(e.Mark))
}

// Is makes errors.Is(err, ErrDiskLow) true.
func (e *DiskLowError) Is(target error) bool { return target == ErrDiskLow }

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

const (
	// diskEvery is how often a node looks at its disk, and the leader asks for
	// the followers'.
	diskEvery = time.Second
	// diskSlack is the part of the mark that must be free above it before the
	// mark counts as left.
	diskSlack = 10
)

// LowDisk says that this node's disk is below its mark, or nil.
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
	blind := false
	for {
		free, err := s.cfg.diskFree(s.cfg.DataDir)
		if err == nil {
			s.noteDisk(free)
		} else if !blind {
			s.log.Warn("cannot tell how much disk is free", "dir", s.cfg.DataDir, "error", err)
		}
		blind = err != nil
		if !pause(ctx, diskEvery) {
			return
		}
	}
}

// noteDisk logs when the mark is reached and when it is left.
func (s *Store) noteDisk(free uint64) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	mark := s.cfg.MinFreeDisk
	was := s.disk.low != nil
	switch {
	case free < mark, was && free < mark+mark/diskSlack:
		s.disk.low = &DiskLowError{Nodes: []string{s.cfg.ID}, Free: free, Mark: mark}
		if !was {
			s.log.Error("disk is nearly full", "dir", s.cfg.DataDir, "free", mebibytes(free), "min_free_disk", mebibytes(mark))
		}
	default:
		s.disk.low = nil
		if was {
			s.log.Info("disk has room again", "dir", s.cfg.DataDir, "free", mebibytes(free), "min_free_disk", mebibytes(mark))
		}
	}
}

// followersDiskLoop keeps track of the other voters' disks. Of one that does
// not answer the last word stands: it writes nothing meanwhile.
func (s *Store) followersDiskLoop(l *leadership) {
	if s.cfg.MinFreeDisk == 0 {
		return
	}
	known := make(map[raft.ServerID]bool)
	for {
		if voters, err := s.voters(); err == nil {
			s.askDisks(l, voters, known)
		}
		if !pause(l.ctx, diskEvery) {
			return
		}
	}
}

func (s *Store) askDisks(l *leadership, voters []raft.Server, known map[raft.ServerID]bool) {
	ctx, cancel := context.WithTimeout(l.ctx, peerTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var low []string
	for _, v := range voters {
		if v.ID == raft.ServerID(s.cfg.ID) {
			continue
		}
		wg.Go(func() {
			is, err := s.cfg.Peers.LowDisk(ctx, s.target(string(v.Address), string(v.ID)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				known[v.ID] = is
			}
			if known[v.ID] {
				low = append(low, string(v.ID))
			}
		})
	}
	wg.Wait()
	slices.Sort(low)
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.lowVoters = low
}

// roomFor refuses, on the leader, what makes the state grow while disks run
// full.
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

// grows says whether a command adds a member or a group.
func (s *Store) grows(cmd *fsmpb.Command) bool {
	state := s.State()
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		g := state.Group(op.Register.Group)
		return g == nil || g.Member(op.Register.Id) == nil
	case *fsmpb.Command_SetGroup:
		return state.Group(op.SetGroup.Group) == nil
	}
	return false
}
