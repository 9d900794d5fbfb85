package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// crashSim is a cluster whose nodes crash at chosen points of a write, while callers work.
// A crashed node sends nothing more, its connections break, its answers to callers do not
// arrive, and it comes back with what its disk had at that moment.
type crashSim struct {
	*history
	t   *testing.T
	c   *storetest.Cluster
	rng *rand.Rand
	// unsynced: the disk of a crashed node lacks the write of the crash point, although
	// it had reported its end.
	unsynced bool

	opened int // nodes besides the first three

	mu    sync.Mutex // guards the rest
	disks map[string]*crashDisk
	downs map[*storetest.Node]string // where the disk of a crashed node is
	plan  *crashPlan                 // nil: none
}

var founders = []string{"n1", "n2", "n3"}

// moment is when a node crashes, as seen from one write of its log.
type moment string

const (
	beforeWrite  moment = "before its write has ended"
	afterWrite   moment = "after its write"
	beforeApply  moment = "before it applies"
	afterApply   moment = "before it answers"
	afterAnswer  moment = "after it answered"
	beforeDelete moment = "before it deletes a suffix"
	duringDelete moment = "while another node deletes a suffix"
	afterDelete  moment = "after it deleted a suffix"
)

// crashPlan is an armed crash. It happens once.
type crashPlan struct {
	at      string // the node whose write or deletion is meant
	victim  string // the node that crashes
	when    moment
	entry   raft.LogType
	skip    int // such writes before
	batch   int // least number of entries in the write
	keep    int // how many of them the disk keeps of an unfinished write
	reached []string
	held    bool   // those reached have received the entries, and not written them
	onBegin func() // called when the write begins

	happened chan struct{} // closed by the crash

	// The rest is guarded by the simulation's lock.
	begun       bool
	first, last uint64        // entries of the write
	decided     bool          // the crash happens, or does not any more
	release     chan struct{} // closed when writes that are held may go on
	image       string        // the disk without the write
}

// crashDisk is the log of a node, from one start to the next.
type crashDisk struct {
	raft.LogStore
	sim              *crashSim
	id, dir          string
	files            sync.Mutex // held during changes of the files, and while they are copied
	down             atomic.Bool
	received, stored atomic.Uint64 // the last entry
}

// crashStable is a node's term and vote.
type crashStable struct {
	raft.StableStore
	disk *crashDisk
}

var errCrashed = errors.New("the node has crashed")

func newCrashSim(t *testing.T, rng *rand.Rand) *crashSim {
	s := &crashSim{t: t, rng: rng, disks: make(map[string]*crashDisk), downs: make(map[*storetest.Node]string)}
	s.c = storetest.New(t, s.edit)
	s.history = &history{c: s.c, down: s.crashed}
	s.end, s.stop = context.WithCancel(context.Background())
	for _, n := range s.c.Three() {
		s.watch(n)
	}
	s.c.AwaitKnown()
	s.callers(rng, 4)
	t.Cleanup(func() {
		s.stop()
		s.all.Wait()
	})
	return s
}

func (s *crashSim) edit(cfg *store.Config) {
	d := &crashDisk{sim: s, id: cfg.ID, dir: cfg.DataDir}
	s.mu.Lock()
	s.disks[cfg.ID] = d
	s.mu.Unlock()
	store.SegmentSize(cfg, 1<<20) // each crash copies it
	store.WrapLog(cfg, func(l raft.LogStore) raft.LogStore {
		d.LogStore = l
		return d
	})
	store.WrapStable(cfg, func(l raft.StableStore) raft.StableStore { return crashStable{l, d} })
	cfg.Observers = append(cfg.Observers, appliedAt{s, cfg.ID})
}

func (s *crashSim) watch(n *storetest.Node) {
	n.BeforeApply(func(index uint64) { s.applying(n.ID, index, beforeApply) })
}

// appliedAt observes what a node applies.
type appliedAt struct {
	sim *crashSim
	id  string
}

func (a appliedAt) Applied(u *fsm.Update) { a.sim.applying(a.id, u.State.Index(), afterApply) }
func (appliedAt) Restored(*fsm.State)     {}

func (s *crashSim) applying(id string, index uint64, when moment) {
	s.mu.Lock()
	p := s.plan
	due := p != nil && p.begun && p.victim == id && p.when == when && index >= p.last
	s.mu.Unlock()
	if due {
		s.execute(p)
	}
}

func (s *crashSim) crashed(n *storetest.Node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, down := s.downs[n]
	return down
}

func (s *crashSim) disk(id string) *crashDisk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disks[id]
}

// crash stops a node, as seen from outside, and keeps its disk, or the image if there is
// one.
func (s *crashSim) crash(id, image string) {
	n, d := s.c.Node(id), s.disk(id)
	s.c.Net.Crash(n.Bind)
	d.down.Store(true)
	if image == "" {
		image = d.copyFiles()
	}
	s.mu.Lock()
	s.downs[n] = image
	s.mu.Unlock()
	s.c.Abandon(n)
}

func (d *crashDisk) copyFiles() (dir string) {
	dir = d.sim.t.TempDir()
	d.files.Lock()
	defer d.files.Unlock()
	if err := os.CopyFS(dir, os.DirFS(d.dir)); err != nil {
		d.sim.t.Error(err)
	}
	return dir
}

// decide reports whether it is the first to decide about the plan, and the image that the
// plan has.
func (s *crashSim) decide(p *crashPlan) (first bool, image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = !p.decided
	p.decided = true
	return first, p.image
}

// execute carries the plan out; it runs on a goroutine of a node.
func (s *crashSim) execute(p *crashPlan) {
	if first, image := s.decide(p); first {
		s.crash(p.victim, image)
		close(p.happened)
	}
}

// arm sets a plan, calls start, and reports whether the crash happens within the time.
func (s *crashSim) arm(p *crashPlan, within time.Duration, start func()) bool {
	s.mu.Lock()
	p.happened, p.release = make(chan struct{}), make(chan struct{})
	s.plan = p
	s.mu.Unlock()
	start()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.happened:
		return true
	case <-timer.C:
	}
	if first, _ := s.decide(p); !first {
		<-p.happened
		return true
	}
	s.disarm()
	return false
}

// disarm ends the plan: writes that it holds go on.
func (s *crashSim) disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan != nil {
		close(s.plan.release)
		s.plan = nil
	}
}

// closeCrashed ends what is left of a crashed node.
func (s *crashSim) closeCrashed(n *storetest.Node) {
	store.After(10 * time.Millisecond) // raft answers what it has in its queue, and never once it has stopped
	_ = n.Close()                      // it may have failed
}

// restart brings a crashed node back with its disk.
func (s *crashSim) restart(id string) {
	old := s.c.Node(id)
	s.mu.Lock()
	disk := s.downs[old]
	s.mu.Unlock()
	if err := errors.Join(os.RemoveAll(old.Dir), os.Rename(disk, old.Dir)); err != nil {
		s.t.Fatal(err)
	}
	s.c.Net.Isolate(old.Bind) // until it is watched
	s.watch(s.c.Start(id, store.Formation{}))
	s.c.Net.Join(old.Bind)
}

// begins returns the plan if the write is the one that it means.
func (s *crashSim) begins(id string, logs []*raft.Log) *crashPlan {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plan
	if p == nil || p.decided || p.begun || p.at != id || len(logs) < p.batch || slices.ContainsFunc(logs, func(l *raft.Log) bool { return l.Type != p.entry }) {
		return nil
	}
	if p.skip > 0 {
		p.skip--
		return nil
	}
	p.begun, p.first, p.last = true, logs[0].Index, logs[len(logs)-1].Index
	if p.onBegin != nil {
		go p.onBegin()
	}
	return p
}

// rearm lets the plan wait for another write: this one did not go as planned.
func (s *crashSim) rearm(p *crashPlan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan == p && !p.decided {
		close(p.release)
		p.begun, p.release = false, make(chan struct{})
	}
}

// reaches waits until the nodes that the plan names have the entries.
func (s *crashSim) reaches(p *crashPlan) bool {
	return within(50*time.Millisecond, func() bool {
		return !slices.ContainsFunc(p.reached, func(id string) bool {
			d := s.disk(id)
			return p.held && d.received.Load() < p.last || !p.held && d.stored.Load() < p.last
		})
	})
}

func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); store.After(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// hold blocks a write of a node that the plan names until the crash.
func (s *crashSim) hold(id string, last uint64) {
	s.mu.Lock()
	p := s.plan
	var release chan struct{}
	if p != nil && p.held && p.begun && last >= p.first && slices.Contains(p.reached, id) {
		release = p.release
	}
	s.mu.Unlock()
	if release != nil {
		<-release
	}
}

// StoreLogs takes a few milliseconds, as on a disk. A follower begins later than the
// leader, and asks then whether it is to be held.
func (d *crashDisk) StoreLogs(logs []*raft.Log) error {
	s, last := d.sim, logs[len(logs)-1].Index
	p := s.begins(d.id, logs)
	d.received.Store(last)
	store.After(time.Duration(1+last%3) * time.Millisecond)
	s.hold(d.id, last)
	if p != nil && p.when == beforeWrite {
		s.inWrite(p, func() error { return d.write(logs[:p.keep]) })
	}
	if d.down.Load() {
		return errCrashed
	}
	if p != nil && s.unsynced {
		image := d.copyFiles()
		s.mu.Lock()
		p.image = image
		s.mu.Unlock()
	}
	if err := d.write(logs); err != nil {
		return err
	}
	d.stored.Store(last)
	if p != nil && p.when == afterWrite {
		s.inWrite(p, func() error { return nil })
	}
	if d.down.Load() {
		return errCrashed
	}
	return nil
}

// inWrite lets the node crash in its write, if the entries are where they should be.
func (s *crashSim) inWrite(p *crashPlan, before func() error) {
	if !s.reaches(p) {
		s.rearm(p)
		return
	}
	first, image := s.decide(p)
	if !first {
		return
	}
	if err := before(); err != nil {
		s.t.Error(err)
	}
	s.crash(p.victim, image)
	close(p.happened)
}

func (d *crashDisk) write(logs []*raft.Log) error {
	d.files.Lock()
	defer d.files.Unlock()
	if len(logs) == 0 {
		return nil
	}
	return d.LogStore.StoreLogs(logs)
}

func (d *crashDisk) DeleteRange(low, high uint64) error {
	s := d.sim
	s.mu.Lock()
	p := s.plan
	due := p != nil && p.at == d.id && (p.when == beforeDelete || p.when == afterDelete)
	s.mu.Unlock()
	if due && p.when == beforeDelete {
		s.execute(p)
	}
	if d.down.Load() {
		return errCrashed
	}
	if err := d.delete(low, high); err != nil {
		return err
	}
	if due && p.when == afterDelete {
		s.execute(p)
	}
	if d.down.Load() {
		return errCrashed
	}
	return nil
}

func (d *crashDisk) delete(low, high uint64) error {
	d.files.Lock()
	defer d.files.Unlock()
	return d.LogStore.DeleteRange(low, high)
}

func (s crashStable) Set(key, value []byte) error {
	s.disk.files.Lock()
	defer s.disk.files.Unlock()
	return s.StableStore.Set(key, value)
}

func (s crashStable) SetUint64(key []byte, value uint64) error {
	s.disk.files.Lock()
	defer s.disk.files.Unlock()
	return s.StableStore.SetUint64(key, value)
}
