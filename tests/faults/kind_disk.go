//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
)

// A node that ends by itself takes its clients' connections with it: on a busy
// machine a member with a TTL of 1 s may be lost, so NoLoss is for slow disks.
var diskKinds = []Kind{
	{Name: "slow-sync-leader", About: "every sync of the leader takes 50 ms longer, for 5 s", Needs: needsStrace, Inject: slowSync(theLeader)},
	{Name: "slow-sync-follower", About: "every sync of a follower takes 50 ms longer, for 5 s", Needs: needsStrace, Inject: slowSync(aFollower), NoLoss: true},
	{Name: "failing-sync-leader", About: "syncs of the leader fail: it ends and says so, and is started again", Needs: needsStrace, Inject: failingSync(theLeader), Expect: nodeFails},
	{Name: "failing-sync-follower", About: "syncs of a follower fail: it ends and says so, and is started again", Needs: needsStrace, Inject: failingSync(aFollower), Expect: nodeFails},
	{Name: "hanging-sync-leader", About: "a sync of the leader hangs: it ends after 10 s and says so, and is started again", Needs: needsStrace, Inject: hangingSync(theLeader), Expect: nodeFails},
	{Name: "hanging-sync-follower", About: "a sync of a follower hangs: it ends after 10 s and says so, and is started again", Needs: needsStrace, Inject: hangingSync(aFollower), Expect: nodeFails},
	{Name: "full-disk-leader", About: "the leader's disk is full: it ends and says so, also when it starts on it; with room it is back", Needs: needsMounts, Inject: fullDisk(true), Expect: nodeFails},
	{Name: "full-disk-follower", About: "a follower's disk is full: it ends and says so, also when it starts on it; with room it is back", Needs: needsMounts, Inject: fullDisk(false), Expect: nodeFails},
	{Name: "damaged-log", About: "a killed node's log is changed, cut or set back: it is refused, and comes back by remove and join", Inject: damagedLog(anyDamage)},
	{Name: "damaged-entries", About: "a killed node's log entries are changed, and its pages are not: it is refused, and comes back by remove and join", Inject: damagedLog(changedEntries)},
	{Name: "damaged-snapshot", About: "a killed node's newest snapshot is damaged: it starts from the older one", Config: manySnapshots, Inject: damagedSnapshot(anyByte)},
	{Name: "changed-snapshot-meta", About: "a killed node's newest snapshot says another index in its meta.json: it starts from the older one", Config: manySnapshots, Inject: damagedSnapshot(otherIndex)},
}

// nodeFails is what a node says that ends because of its disk.
var nodeFails = regexp.MustCompile(`node fails.*storage failed`)

type chooser func(*Run, context.Context) (*cluster.Node, error)

func theLeader(r *Run, ctx context.Context) (*cluster.Node, error) { return r.Leader(ctx) }
func aFollower(r *Run, ctx context.Context) (*cluster.Node, error) { return r.Follower(ctx) }

func slowSync(who chooser) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		n, err := who(r, ctx)
		if err != nil {
			return err
		}
		r.Fault([]*cluster.Node{n}, "slow syncs of %s", n.ID)
		stop, err := r.tamper(ctx, n, "delay_exit=50000")
		if err != nil {
			return err
		}
		err = r.Hold(ctx, 5*time.Second)
		r.Heal("syncs of %s as before", n.ID)
		return errors.Join(err, stop())
	}
}

func failingSync(who chooser) func(context.Context, *Run) error {
	return breakingSync(who, "error=EIO", "storage failed", "input/output error")
}

func hangingSync(who chooser) func(context.Context, *Run) error {
	return breakingSync(who, "delay_enter=60000000", "storage failed", "has not returned for 10s")
}

// breakingSync has a node end by itself, and starts it again.
func breakingSync(who chooser, how string, words ...string) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error {
		n, err := who(r, ctx)
		if err != nil {
			return err
		}
		since := logSize(n)
		r.Fault([]*cluster.Node{n}, "syncs of %s: %s", n.ID, how)
		stop, err := r.tamper(ctx, n, how)
		if err != nil {
			return err
		}
		// Its last words, and then its end, which strace holds up.
		err = within(ctx, mendLimit, func() error { return says(n, since, append(words, "node "+n.ID+" ended")...) })
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		if err := r.endsSaying(ctx, n, since, words...); err != nil {
			return err
		}
		r.Heal("%s starts again", n.ID)
		return n.Start()
	}
}

// fullDisk ends a node by a full disk, which a low-water mark would prevent.
func fullDisk(leads bool) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) (err error) {
		n, err := r.Follower(ctx)
		if err != nil {
			return err
		}
		r.Fault([]*cluster.Node{n}, "%s moves to a small disk", n.ID)
		if err := n.Kill(); err != nil {
			return err
		}
		room, back, err := smallDisk(n)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.Kill(), back(), n.Start()) }()
		const noMark = "-min-free-disk=0"
		if err := errors.Join(n.Start(noMark), r.Cluster.AwaitHealth(ctx)); err != nil {
			return err
		}
		if leads {
			if err := r.transfer(ctx, n); err != nil {
				return err
			}
		}
		since := logSize(n)
		if err := fill(n.Dir); err != nil {
			return err
		}
		stop := r.growLog(ctx, r.Cluster.Others(n)[0])
		err = r.endsSaying(ctx, n, since, "storage failed", "no space left on device", "free some space")
		if stop(); err != nil {
			return err
		}
		since = logSize(n) // the disk is still full, but for what an unfinished write had taken
		stop = r.growLog(ctx, r.Cluster.Others(n)[0])
		err = errors.Join(n.Start(noMark), r.endsSaying(ctx, n, since, "no space left on device", "free some space"))
		if stop(); err != nil {
			return err
		}
		r.Heal("room on the disk of %s", n.ID)
		return errors.Join(room(), n.Start(), r.Cluster.AwaitHealth(ctx))
	}
}

// growLog writes large entries through a node until it is stopped, or a bound is
// reached: the log's file has pages that are free, and a node with a full disk
// goes on until it has used them up.
func (r *Run) growLog(ctx context.Context, via *cluster.Node) (stop func()) {
	const callers, calls, batch = 4, 40, 50
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := 0; n < calls && ctx.Err() == nil; n++ {
				req := &registrypb.RegisterManyRequest{}
				for m := range batch { // an entry each
					id := fmt.Sprintf("caller-%d-%02d", i, m)
					req.Registrations = append(req.Registrations, &registrypb.RegisterRequest{
						Group: fmt.Sprintf("large-%d", r.Seed), Id: id, Addr: "10.8.0.1:80", Ttl: durationpb.New(time.Hour),
						Instance: fmt.Appendf(nil, "%-16s", id), Meta: map[string]string{"x": strings.Repeat(string(rune('a'+n%26)), 8000)},
					})
				}
				call, done := context.WithTimeout(ctx, 5*time.Second)
				_, _ = via.Registry().RegisterMany(call, req) // that it is tried is enough
				done()
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// damage is what a log may suffer while its node does not run. old is a copy
// from before the node's last entries.
type damage struct {
	name string
	do   func(r *Run, path string, old []byte) error
}

var damages = []damage{
	{"cut to a half", func(_ *Run, path string, _ []byte) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".wal" { // its end is empty
			data = bytes.TrimRight(data, "\x00")
		}
		return os.Truncate(path, int64(len(data)/2))
	}},
	{"pages changed", func(r *Run, path string, _ []byte) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".wal" {
			at := r.Rand.IntN(len(bytes.TrimRight(data, "\x00")) - 16)
			for i := range data[at : at+16] { // one byte might be one that nobody reads
				data[at+i] ^= 0x55
			}
			return os.WriteFile(path, data, 0o600)
		}
		for at := 2 * 4096; at < len(data); at += 4096 {
			data[at+r.Rand.IntN(16)] ^= 0x55
		}
		return os.WriteFile(path, data, 0o600)
	}},
	{"set back", func(_ *Run, path string, old []byte) error { return os.WriteFile(path, old, 0o600) }},
}

func anyDamage(r *Run) damage { return damages[r.Rand.IntN(len(damages))] }

// changedEntries changes a letter in the names of the load's groups.
func changedEntries(*Run) damage {
	return damage{"changed in its entries", func(_ *Run, path string, _ []byte) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		changed := bytes.ReplaceAll(data, []byte("-linear-"), []byte("-lineaq-"))
		if bytes.Equal(data, changed) {
			return fmt.Errorf("%s has no entry of the load", path)
		}
		return os.WriteFile(path, changed, 0o600)
	}}
}

// logFile has the newest entries of a node.
func logFile(n *cluster.Node) string {
	segments, _ := filepath.Glob(filepath.Join(n.Dir, "wal", "*.wal")) // the pattern is right
	if len(segments) > 0 {
		return segments[len(segments)-1]
	}
	return filepath.Join(n.Dir, "raft.db")
}

func damagedLog(choose func(*Run) damage) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error { return damageLog(ctx, r, choose(r)) }
}

func damageLog(ctx context.Context, r *Run, d damage) error {
	n := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
	path := logFile(n)
	r.Fault([]*cluster.Node{n}, "log of %s is %s", n.ID, d.name)
	if err := n.Kill(); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := errors.Join(n.Start(), r.Cluster.AwaitHealth(ctx), r.Hold(ctx, time.Second), n.Kill(), d.do(r, path, old)); err != nil {
		return err
	}
	since := logSize(n)
	if err := errors.Join(n.Start(), r.endsSaying(ctx, n, since, "damaged", "registry cluster remove "+n.ID)); err != nil {
		return err
	}
	return r.rejoin(ctx, n)
}

// anyByte changes one byte of a snapshot. A kill that came before the checksum of
// meta.json leaves only the index and the term in it to compare: then it changes
// the state.
func anyByte(r *Run, dir string) (file string, data []byte, err error) {
	file = []string{"state.bin", "meta.json"}[r.Rand.IntN(2)]
	if _, err := os.Stat(filepath.Join(dir, "meta.sum")); err != nil {
		file = "state.bin"
	}
	if data, err = os.ReadFile(filepath.Join(dir, file)); err == nil {
		data[r.Rand.IntN(len(data))] ^= 0x20
	}
	return file, data, err
}

var snapshotIndex = regexp.MustCompile(`"Index":\d+`)

// otherIndex changes the last digit of a snapshot's index, to another digit.
func otherIndex(_ *Run, dir string) (file string, data []byte, err error) {
	file = "meta.json"
	if data, err = os.ReadFile(filepath.Join(dir, file)); err != nil {
		return file, nil, err
	}
	at := snapshotIndex.FindIndex(data)
	if at == nil {
		return file, nil, fmt.Errorf("%s/%s names no index", dir, file)
	}
	data[at[1]-1] ^= 1
	return file, data, nil
}

func damagedSnapshot(damage func(r *Run, dir string) (string, []byte, error)) func(context.Context, *Run) error {
	return func(ctx context.Context, r *Run) error { return damageSnapshot(ctx, r, damage) }
}

func damageSnapshot(ctx context.Context, r *Run, damage func(r *Run, dir string) (string, []byte, error)) error {
	n := r.Cluster.Nodes[r.Rand.IntN(len(r.Cluster.Nodes))]
	var found []string
	err := within(ctx, mendLimit, func() (err error) {
		found, err = snapshotFolders(n)
		if err == nil && len(found) < 2 {
			err = fmt.Errorf("%s has %d snapshots", n.ID, len(found))
		}
		return err
	})
	if err != nil {
		return err
	}
	r.Fault([]*cluster.Node{n}, "newest snapshot of %s is damaged", n.ID)
	if err := n.Kill(); err != nil {
		return err
	}
	if found, err = snapshotFolders(n); err != nil {
		return err
	}
	dir := found[len(found)-1]
	file, data, err := damage(r, dir)
	if err != nil {
		return err
	}
	since := logSize(n)
	r.Heal("%s starts with a damaged %s", n.ID, file)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, file), data, 0o600), n.Start()); err != nil {
		return err
	}
	return within(ctx, mendLimit, func() error {
		said, err := os.ReadFile(n.Log)
		if err != nil || !strings.Contains(string(said[since:]), "it is set aside") {
			return fmt.Errorf("%s does not say that a snapshot is damaged: %v", n.ID, err)
		}
		return nil
	})
}

// snapshotFolders are those that are whole, the oldest first.
func snapshotFolders(n *cluster.Node) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(n.Dir, "snapshots", "*-*-*"))
	found = slices.DeleteFunc(found, func(path string) bool { return strings.HasSuffix(path, ".tmp") })
	slices.SortFunc(found, func(a, b string) int {
		return slices.Compare(numbers(a), numbers(b))
	})
	return found, err
}

// numbers are the term, the index and the time in a snapshot's name.
func numbers(path string) []uint64 {
	var n [3]uint64
	_, _ = fmt.Sscanf(filepath.Base(path), "%d-%d-%d", &n[0], &n[1], &n[2]) // a foreign name sorts first
	return n[:]
}
