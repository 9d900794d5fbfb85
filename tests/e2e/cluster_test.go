package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// seedNode is started with the flags of the first version of this program, which had
// neither TLS nor tokens, and nothing else: its data is where the program puts it.
type seedNode struct {
	id         string
	bind, addr int
	*process
}

func (n *seedNode) start(t *testing.T, dir string, more ...string) {
	t.Helper()
	args := []string{
		fmt.Sprintf("-bind=:%d", n.bind), fmt.Sprintf("-bind-advertise=%s", local(n.bind)), "-id=" + n.id,
		fmt.Sprintf("-addr=:%d", n.addr), fmt.Sprintf("-advertise=%s", local(n.addr)),
	}
	n.process = start(t, command{name: n.id, args: append(args, more...), dir: dir})
}

// statusJSON is what "cluster status --json" prints.
type statusJSON struct {
	Leader, Error string
	Term          uint64
	Nodes         []struct {
		ID, Role, Digest string
		Voter, Ready     bool
		AppliedIndex     uint64 `json:"applied_index"`
	}
}

// clusterStatus is what a node answers. The exit code says whether there is a leader.
func clusterStatus(t *testing.T, addr string) (st statusJSON) {
	t.Helper()
	a := cli(t, "cluster", "status", "--json", "-registries", addr)
	if err := json.Unmarshal([]byte(a.stdout), &st); err != nil || (st.Leader == "") != (a.code == 5) || (st.Leader == "") != (st.Error != "") {
		t.Fatalf("%v in %+v", err, a)
	}
	return st
}

// seedSettled waits until "cluster status --json" shows that many voters, a
// leader and an equal applied index, and compares the digests.
func seedSettled(t *testing.T, addr string, voters int) (st statusJSON) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%d voters", voters), func() error {
		if _, err := statusOf(t, addr); err != nil {
			return err // it may not listen yet
		}
		st = clusterStatus(t, addr)
		if st.Leader == "" || len(st.Nodes) != voters {
			return fmt.Errorf("%+v", st)
		}
		for _, n := range st.Nodes {
			if !n.Voter || !n.Ready || n.AppliedIndex != st.Nodes[0].AppliedIndex {
				return fmt.Errorf("%+v", st)
			}
		}
		return nil
	})
	for _, n := range st.Nodes {
		if n.Digest != st.Nodes[0].Digest || n.Digest == "" {
			t.Errorf("digests at index %d: %+v", n.AppliedIndex, st.Nodes)
		}
	}
	return st
}

// TestSeedCommands: the first version's commands form a cluster; a restart
// needs no -registries, and a node that restarts alone forms none of its own.
func TestSeedCommands(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	dir, p := t.TempDir(), freePorts(t, 6)
	nodes := []*seedNode{{id: "service-1", bind: p[0], addr: p[1]}, {id: "service-2", bind: p[2], addr: p[3]}, {id: "service-3", bind: p[4], addr: p[5]}}
	first := fmt.Sprintf("-registries=%s", local(nodes[0].bind))
	began := time.Now()
	nodes[0].start(t, dir)
	nodes[1].start(t, dir, first)
	seedSettled(t, local(nodes[0].addr), 2)
	t.Logf("two voters %v after the start", ms(time.Since(began)))
	began = time.Now()
	nodes[2].start(t, dir, first)
	for _, n := range nodes {
		seedSettled(t, local(n.addr), 3)
	}
	t.Logf("a third voter %v after its start", ms(time.Since(began)))
	if _, err := os.Stat(filepath.Join(dir, "registry-data", "service-3")); err != nil {
		t.Error(err)
	}
	created := keptMember(t, local(nodes[2].addr))
	before := seedSettled(t, local(nodes[0].addr), 3)
	for _, n := range nodes {
		t.Logf("%s ended %v after SIGTERM", n.id, ms(n.stop()))
	}

	// Alone it is a minority, not a new cluster.
	nodes[1].start(t, dir)
	eventually(t, patience, "the lone node's client port", func() error {
		_, err := statusOf(t, local(nodes[1].addr))
		return err
	})
	throughout(t, shorter(3*time.Second, time.Second), "a node that restarted alone", func() error {
		st, err := statusOf(t, local(nodes[1].addr))
		if err == nil && (st.Leader != "" || len(st.Nodes) != 3) {
			err = fmt.Errorf("forms a cluster of its own: %v", st)
		}
		return err
	})
	if a := cli(t, "match", "-timeout", "1s", "-registries", local(nodes[1].addr), "kept", "user-1"); a.code != 5 {
		t.Errorf("match on a node that has not caught up: %+v", a)
	}
	began = time.Now()
	nodes[0].start(t, dir)
	nodes[2].start(t, dir, "-registries=127.0.0.1:1") // ignored: it has state
	for _, n := range nodes {
		if st := seedSettled(t, local(n.addr), 3); st.Term <= before.Term || st.Nodes[0].AppliedIndex <= before.Nodes[0].AppliedIndex {
			t.Errorf("not a continuation: %+v after %+v", st, before)
		}
	}
	t.Logf("one cluster again %v after the others' start", ms(time.Since(began)))
	for _, n := range nodes {
		n.says("restarting with state", patience)
	}
	for _, n := range nodes {
		if got := memberOf(t, local(n.addr), "kept", "web-1"); got == nil || got.CreatedIndex != created {
			t.Errorf("%s: member after the restart: %v, was created at %d", n.id, got, created)
		}
	}
}

// shorter is d, or s with -short.
func shorter(d, s time.Duration) time.Duration {
	if testing.Short() {
		return s
	}
	return d
}

// keptMember registers a member that needs no heartbeat for as long as a test
// lasts, and returns the index of its creation.
func keptMember(t *testing.T, addr string) uint64 {
	t.Helper()
	err := registerMember(t.Context(), connect(t, addr), &registrypb.RegisterRequest{
		Group: "kept", Id: "web-1", Addr: "127.0.0.1:8080", Ttl: durationpb.New(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return memberOf(t, addr, "kept", "web-1").GetCreatedIndex()
}

// registerMember repeats the call while its outcome is unknown or there is no leader, as
// the API tells its callers: a busy machine costs a cluster its leader at any time.
func registerMember(ctx context.Context, conn *grpc.ClientConn, req *registrypb.RegisterRequest) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := registrypb.NewRegistryClient(conn).Register(ctx, req)
		if code := status.Code(err); code != codes.Unavailable && code != codes.Unknown || ctx.Err() != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// memberOf reads a member from one node, which must be up to date; nil if it
// is not there.
func memberOf(t *testing.T, addr, group, id string) *registrypb.Member {
	t.Helper()
	for _, m := range membersOf(t, addr, group) {
		if m.Id == id {
			return m
		}
	}
	return nil
}

func membersOf(t *testing.T, addr, group string) (members []*registrypb.Member) {
	t.Helper()
	client := registrypb.NewRegistryClient(connect(t, addr))
	eventually(t, patience, "read the members", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		resp, err := client.Members(ctx, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
		if members = resp.GetMembers(); err == nil && resp.GetReceipt().GetIndex() == 0 {
			err = errors.New("no receipt")
		}
		return err
	})
	return members
}
