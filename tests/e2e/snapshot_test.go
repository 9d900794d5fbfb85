package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

var (
	snapshotSeed = flag.Uint64("snapshot-seed", 0, "seed of TestSnapshotKills; 0 draws one")
	snapshotRuns = flag.Int("snapshot-runs", 3, "runs of each kind of TestSnapshotKills")
)

// backupOf is what "snapshot inspect -json" says.
type backupOf struct {
	ClusterID     string `json:"cluster_id"`
	Index         uint64 `json:"index"`
	Members       int    `json:"members"`
	LargestGroups []struct {
		Members     int    `json:"members"`
		Fingerprint string `json:"fingerprint"`
	} `json:"largest_groups"`
}

func inspect(t *testing.T, path string) (b backupOf) {
	t.Helper()
	if err := json.Unmarshal([]byte(ok(t, "snapshot", "inspect", "-json", path)), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// killed is a cluster whose snapshots are interrupted, with a file of it.
type killed struct {
	*cluster
	r    *rand.Rand
	file string
	has  backupOf // of the file
	// saving and restoring are how long that takes when nothing interrupts it.
	saving, restoring time.Duration
}

// snapshotMembers have metadata, so that a file has several parts.
const snapshotMembers = 300

// TestSnapshotKills: whatever is killed during a save or a restoration, and whenever, the
// file and the state are those of before or those of after.
//
//	go -C tests test ./e2e -run TestSnapshotKills -v -snapshot-runs 20
func TestSnapshotKills(t *testing.T) {
	t.Parallel()
	seed := *snapshotSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -snapshot-seed=%d", seed)
	k := &killed{cluster: startCluster(t, 3), r: rand.New(rand.NewPCG(seed, 2)), file: filepath.Join(t.TempDir(), "state.snapshot")}
	var all sync.WaitGroup
	for _, from := range []int{0, snapshotMembers / 3, 2 * snapshotMembers / 3} {
		all.Go(func() {
			for i := range snapshotMembers / 3 {
				k.register(fmt.Sprintf("m%d", from+i))
			}
		})
	}
	all.Wait()
	began := time.Now()
	ok(t, "snapshot", "save", "-registries", k.addrs(), k.file)
	k.saving = time.Since(began)
	k.has = inspect(t, k.file)
	began = time.Now()
	ok(t, "snapshot", "restore", "-yes", "-registries", k.addrs(), k.file)
	k.restoring = time.Since(began)
	for i := range *snapshotRuns {
		k.killSave(i)
		k.killRestore(i)
		k.killNewCluster(i)
	}
}

func (k *killed) register(id string) {
	conn := newConn(k.t, k.nodes[0].addr)
	defer conn.Close()
	err := registerMember(k.t.Context(), conn, &registrypb.RegisterRequest{
		Group: "web", Id: id, Addr: "127.0.0.1:8080", Ttl: durationpb.New(time.Hour), Meta: map[string]string{"k": strings.Repeat("v", 4000)},
	})
	if err != nil {
		k.t.Errorf("register %s: %v", id, err)
	}
}

// after waits for a random part of a duration, and some more.
func (k *killed) after(d time.Duration) time.Duration {
	wait := time.Duration(k.r.Int64N(int64(d) * 5 / 4))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	<-timer.C
	return wait
}

// killSave kills the command, or the node that it may ask.
func (k *killed) killSave(i int) {
	k.t.Helper()
	what := "the command"
	victim := k.nodes[k.r.IntN(3)]
	command := start(k.t, command{name: fmt.Sprintf("save-%d", i), args: []string{"snapshot", "save", "-registries", k.addrs(), k.file}})
	at := k.after(k.saving)
	if k.r.IntN(2) == 0 {
		what = victim.id
		victim.kill()
	} else {
		command.killIfRuns()
	}
	command.ends(patience)
	got := inspect(k.t, k.file) // whole, of before or of after
	if got.Members != k.has.Members || got.LargestGroups[0] != k.has.LargestGroups[0] {
		k.t.Errorf("save %d, %s killed after %v: the file has %+v, want %+v", i, what, at, got, k.has)
	}
	k.t.Logf("save %d, %s killed after %v: exit code %d", i, what, ms(at), command.code)
	k.back(victim)
}

// back starts a node again if it was killed.
func (k *killed) back(n *node) {
	k.t.Helper()
	if n.hasEnded() {
		if n == k.nodes[0] {
			n.start()
		} else {
			n.start("-registries", k.nodes[0].bind)
		}
	}
	k.settled(3)
}

// killRestore kills the command, the leader or a follower while a file is restored that
// lacks a member.
func (k *killed) killRestore(i int) {
	k.t.Helper()
	extra := fmt.Sprintf("extra-%d", i)
	k.register(extra)
	leader, others := k.leader()
	victim := []*node{nil, leader, others[0]}[k.r.IntN(3)]
	what := "the command"
	if victim != nil {
		what = victim.id
	}
	command := start(k.t, command{name: fmt.Sprintf("restore-%d", i), args: []string{"snapshot", "restore", "-yes", "-registries", k.addrs(), k.file}})
	at := k.after(k.restoring)
	if victim != nil {
		victim.kill()
	} else {
		command.killIfRuns()
	}
	command.ends(patience)
	if victim != nil {
		k.back(victim)
	}
	k.settled(3)
	members := len(membersOf(k.t, k.nodes[2].addr, "web"))
	restored := members == snapshotMembers && memberOf(k.t, k.nodes[2].addr, "web", extra) == nil
	if untouched := members == snapshotMembers+1; !restored && (!untouched || command.code == 0) {
		k.t.Errorf("restore %d, %s killed after %v: %d members, exit code %d", i, what, at, members, command.code)
	}
	if _, f := rings(k.t, k.nodes[1].addr, "web"); restored && fmt.Sprintf("%016x", f) != k.has.LargestGroups[0].Fingerprint {
		k.t.Errorf("restore %d: fingerprint %016x, the file has %+v", i, f, k.has)
	}
	k.t.Logf("restore %d, %s killed after %v: exit code %d, restored %t", i, what, ms(at), command.code, restored)
	if !restored {
		ok(k.t, "snapshot", "restore", "-yes", "-registries", k.addrs(), k.file)
	}
}

// killNewCluster kills a node that starts with the file, and starts it again.
func (k *killed) killNewCluster(i int) {
	k.t.Helper()
	n := newNode(k.t, fmt.Sprintf("new-%d", i))
	n.start("-restore", k.file)
	at := k.after(time.Second)
	n.kill()
	n.start("-restore", k.file)
	c := &cluster{t: k.t, nodes: []*node{n}}
	st := c.settled(1)
	if members := len(membersOf(k.t, n.addr, "web")); members != snapshotMembers || st.ClusterId == k.has.ClusterID {
		k.t.Errorf("new cluster %d, killed after %v: %d members, cluster id %s", i, at, members, st.ClusterId)
	}
	left, err := filepath.Glob(filepath.Join(n.dir, "snapshots", "*"))
	if err != nil || len(left) != 1 {
		k.t.Errorf("new cluster %d: %v, %v", i, left, err)
	}
	k.t.Logf("new cluster %d, killed after %v", i, ms(at))
	n.stop()
	if err := os.RemoveAll(n.dir); err != nil {
		k.t.Error(err)
	}
}
