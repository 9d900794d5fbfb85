package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/registrypb"
)

func TestMatchManySplitsBatches(t *testing.T) {
	cl := newFakeCluster(t, 1)
	for i := range 5 {
		registerMember(t, cl, fmt.Sprintf("m%d", i))
	}
	c := cl.client(cl.target(), WithAttemptTimeout(10*time.Second)) // no batch is sent twice on a busy machine
	var mu sync.Mutex
	var sizes []int
	cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
		mu.Lock()
		defer mu.Unlock()
		if n := proto.Size(req.(proto.Message)); n > 1<<20 {
			t.Errorf("request of %d bytes", n)
		}
		if r, ok := req.(*registrypb.MatchManyRequest); ok {
			sizes = append(sizes, len(r.GetKeys()))
		}
		return nil
	})
	for name, tt := range map[string]struct {
		keys, length int
		want         string
	}{
		"one":         {1, 10, "[1]"},
		"just full":   {1000, 10, "[1000]"},
		"one over":    {1001, 10, "[1000 1]"},
		"by size":     {600, 4096, "[253 253 94]"},
		"more by far": {2500, 10, "[1000 1000 500]"},
	} {
		t.Run(name, func(t *testing.T) {
			sizes = nil
			keys := make([]string, tt.keys)
			for i := range keys {
				keys[i] = fmt.Sprintf("%0*d", tt.length, i)
			}
			var r Receipt
			got, err := c.MatchManyN(testContext(t), "g", keys, 2, WithReceipt(&r))
			if err != nil {
				t.Fatal(err)
			}
			if s := fmt.Sprint(sizes); s != tt.want {
				t.Errorf("batches %s, want %s", s, tt.want)
			}
			for i, k := range keys {
				if at := ownerIndex([]byte(k), 5); len(got[i]) != 2 || got[i][0].ID != fmt.Sprintf("m%d", at) || got[i][1].ID != fmt.Sprintf("m%d", (at+1)%5) {
					t.Fatalf("key %d: %v", i, got[i])
				}
			}
			if r.Node != "node-0" || r.Fingerprint != 42 {
				t.Errorf("receipt %+v", r)
			}
		})
	}
	if got, err := c.MatchMany(testContext(t), "g", nil); err != nil || len(got) != 0 {
		t.Errorf("no keys: %v, %v", got, err)
	}
}

func TestMalformedAnswersAreErrors(t *testing.T) {
	ms := []*registrypb.Member{{Id: "a"}}
	for name, resp := range map[string]*registrypb.MatchManyResponse{
		"no owners":      {Members: ms, OwnersPerKey: 0},
		"too few":        {Members: ms, OwnersPerKey: 1, Owners: []uint32{0}},
		"out of members": {Members: ms, OwnersPerKey: 1, Owners: []uint32{0, 1}},
		"huge":           {Members: ms, OwnersPerKey: 1 << 31, Owners: []uint32{0, 0}},
	} {
		if _, err := spread(resp, 2); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestReceiptsAndReadOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		registerMember(t, cl, "m1")
		c := cl.client(cl.target())
		var sent *registrypb.ReadOptions
		cl.nodes[0].script(func(_ context.Context, _ string, req any) error {
			sent = req.(*registrypb.MatchRequest).GetRead()
			return nil
		})
		var r Receipt
		if _, err := c.Match(testContext(t), "g", "k", Linearizable(), AtLeast(7), MaxStaleness(time.Second), WithReceipt(&r)); err != nil {
			t.Fatal(err)
		}
		if !sent.GetLinearizable() || sent.GetMinIndex() != 7 || sent.GetMaxStaleness().AsDuration() != time.Second {
			t.Errorf("sent %v", sent)
		}
		if want := (Receipt{Index: 101, Revision: 101, Fingerprint: 42, ClusterID: "cluster-1", Node: "node-0"}); r != want {
			t.Errorf("receipt %+v, want %+v", r, want)
		}
	})
}

// What one node has shown, the next must have reached.
func TestReadsNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		c := cl.client(cl.target())
		reg, err := c.Register(testContext(t), Service{Group: "g", ID: "m1", Addr: "m1:80"})
		if err != nil {
			t.Fatal(err)
		}
		defer reg.Close()
		cl.nodes[0].script(func(_ context.Context, method string, _ any) error {
			if method == "Match" {
				return because(registrypb.ErrorDetail_NOT_READY)
			}
			return nil
		})
		var index uint64
		cl.nodes[1].script(func(_ context.Context, _ string, req any) error {
			if m, ok := req.(*registrypb.MatchRequest); ok {
				index = m.GetRead().GetMinIndex()
			}
			return nil
		})
		if _, err := c.Match(testContext(t), "g", "k"); err != nil {
			t.Fatal(err)
		}
		if index != 101 {
			t.Errorf("min_index %d, want that of the registration, 101", index)
		}
	})
}

// A cluster whose log was lost answers again after one linearizable read.
func TestRebuiltClusterIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		registerMember(t, cl, "m1")
		c := cl.client(cl.target())
		c.observe(1_000_000)
		for _, n := range cl.nodes {
			n.script(func(_ context.Context, _ string, req any) error {
				if m, ok := req.(*registrypb.MatchRequest); ok && m.GetRead().GetMinIndex() > 200 {
					return because(registrypb.ErrorDetail_STALE)
				}
				return nil
			})
		}
		for range 2 {
			if _, err := c.Match(testContext(t), "g", "k"); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.seen.Load(); got != 101 {
			t.Errorf("remembers %d", got)
		}
		// What the caller itself demands stays demanded.
		if _, err := c.Match(testContext(t), "g", "k", AtLeast(1000)); !errors.Is(err, ErrStale) {
			t.Errorf("got %v", err)
		}
	})
}

// Nobody being fresh enough is an answer: it does not wait for the deadline.
func TestStaleEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 3)
		c := cl.client(cl.target())
		for _, n := range cl.nodes {
			n.script(func(context.Context, string, any) error { return because(registrypb.ErrorDetail_STALE) })
		}
		_, err := c.Match(testContext(t), "g", "k", MaxStaleness(time.Second))
		if !errors.Is(err, ErrStale) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, n := range cl.nodes {
			if got := n.count("Match"); got != 1 {
				t.Errorf("%s was asked %d times", n.id, got)
			}
		}
	})
}

func TestArgumentsThatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		c := cl.client(cl.target())
		ctx := testContext(t)
		for name, f := range map[string]func() error{
			"match of none":    func() error { _, err := c.MatchN(ctx, "g", "k", 0); return err },
			"request of 2 MiB": func() error { _, err := c.Match(ctx, "g", strings.Repeat("k", 2<<20)); return err },
			"id not UTF-8":     func() error { _, err := c.Register(ctx, Service{Group: "g", ID: "\xff", Addr: "a:1"}); return err },
			"group not UTF-8":  func() error { _, err := c.Match(ctx, "\xff", "k"); return err },
			"negative weight": func() error {
				_, err := c.Register(ctx, Service{Group: "g", ID: "i", Addr: "a:1", Weight: -1})
				return err
			},
			"negative TTL": func() error {
				_, err := c.Register(ctx, Service{Group: "g", ID: "i", Addr: "a:1", TTL: -1})
				return err
			},
		} {
			if err := f(); !errors.Is(err, ErrInvalidArgument) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if n := len(cl.nodes[0].calls); n != 0 {
			t.Errorf("%d methods were called", n)
		}
	})
}

func TestGroupsAndMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		registerMember(t, cl, "m1")
		registerMember(t, cl, "m2")
		c := cl.client(cl.target())
		g, ms, err := c.Group(testContext(t), "g")
		if err != nil {
			t.Fatal(err)
		}
		if want := (Group{Name: "g", VirtualNodes: 512, Bound: 1100, Members: 2, Revision: 102}); g != want || len(ms) != 2 || ms[1].ID != "m2" {
			t.Errorf("%+v %v", g, ms)
		}
		w, s := 3, StateDraining
		cl.nodes[0].script(func(_ context.Context, method string, req any) error {
			if r, ok := req.(*registrypb.UpdateMemberRequest); ok {
				if r.GetWeight() != 3 || r.GetState() != registrypb.MemberState_MEMBER_STATE_DRAINING {
					t.Errorf("sent %v", r)
				}
			}
			return nil
		})
		if rev, err := c.UpdateMember(testContext(t), "g", "m1", MemberUpdate{Weight: &w, State: &s}); err != nil || rev != 103 {
			t.Errorf("%d, %v", rev, err)
		}
		if st, err := c.Status(testContext(t), "g"); err != nil || st.Cluster != "fake" || len(st.Nodes) != 1 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}
