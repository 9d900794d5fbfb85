package store_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// An unknown peer with the cluster id sends messages that would end the process, at once
// or when they are applied, or set the term to the maximum.
func TestNodeSurvivesBadMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		for _, n := range c.Nodes() {
			s := newUnknownPeer(t, c, n)
			header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(leader.ID), Addr: []byte(leader.Bind)}
			last := n.State().Index()
			for name, entry := range map[string]*raft.Log{
				"configuration": {Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: []byte("x")},
				"command":       {Index: last + 1, Term: term, Type: raft.LogCommand, Data: []byte("x")},
				"missing entry": nil,
			} {
				var resp raft.AppendEntriesResponse
				err := s.AppendEntries(raft.ServerID(n.ID), raft.ServerAddress(n.Bind), &raft.AppendEntriesRequest{
					RPCHeader: header, Term: term, PrevLogEntry: last, PrevLogTerm: term, Entries: []*raft.Log{entry}, LeaderCommitIndex: last + 1,
				}, &resp)
				if err == nil || resp.Success {
					t.Errorf("%s to %s: accepted: %+v", name, n.ID, resp)
				}
			}
			var snap raft.InstallSnapshotResponse
			if err := s.InstallSnapshot(raft.ServerID(n.ID), raft.ServerAddress(n.Bind), &raft.InstallSnapshotRequest{
				RPCHeader: header, SnapshotVersion: 1, Term: term, LastLogIndex: last, LastLogTerm: term, Configuration: []byte{0xc1}, Size: 1,
			}, &snap, strings.NewReader("x")); err == nil {
				t.Errorf("a snapshot to %s: accepted", n.ID)
			}
			var vote raft.RequestVoteResponse
			if err := s.RequestVote(raft.ServerID(n.ID), raft.ServerAddress(n.Bind), &raft.RequestVoteRequest{
				RPCHeader: header, Term: math.MaxUint64, LastLogIndex: math.MaxUint64, LastLogTerm: math.MaxUint64, LeadershipTransfer: true,
			}, &vote); err == nil || vote.Granted {
				t.Errorf("the last term's vote from %s: %+v", n.ID, vote)
			}
		}
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		if now := c.Leader().Term(); now != term {
			t.Errorf("the term went from %d to %d", term, now)
		}
	})
}

// Silent connections with the cluster id keep no peer out and cause no election.
func TestSilentStreamsKeepNoPeerOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		leader := c.Leader()
		term := leader.Term()
		for _, n := range c.Nodes() {
			for range 2 * store.MaxStreams {
				conn, err := c.Net.Dial("n9:7370", n.Bind, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if _, err := conn.Write([]byte(n.ClusterID())); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, n := range c.Nodes() { // each accepts a new connection
			if _, err := newUnknownPeer(t, c, n).heartbeat(0); err != nil {
				t.Errorf("%s: %v", n.ID, err)
			}
		}
		c.Write(register("web", "a", time.Minute))
		c.AwaitSame()
		if now := c.Leader(); now.ID != leader.ID || now.Term() != term {
			t.Errorf("%s leads in term %d, before %s in term %d", now.ID, now.Term(), leader.ID, term)
		}
	})
}

// A leader whose followers answer heartbeats and store no entries fails, so that another
// node can lead.
func TestLeaderWithoutProgressFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := newDisks()
		c := storetest.New(t, disks.edit, func(cfg *store.Config) {
			if cfg.ID != "n1" {
				cfg.MaxHang = time.Hour
			}
		})
		c.Three()
		leader := c.Leader()
		if leader.ID != "n1" {
			if err := leader.Transfer(c.Context(), "n1"); err != nil {
				t.Fatal(err)
			}
			leader = c.LeaderOf("n1")
		}
		for id, disk := range disks {
			if id != "n1" {
				disk.stall.Store(int64(time.Minute))
			}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := leader.Write(ctx, setGroup("web", 64)); !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Errorf("a write without a quorum: %v", err)
		}
		select {
		case <-leader.Failed():
		case <-time.After(time.Minute):
			t.Error("the node still leads")
		}
		if took := time.Since(began); !errors.Is(leader.Failure(), store.ErrStuck) || took > 20*time.Second {
			t.Errorf("failed after %s with %v", took, leader.Failure())
		}
		for _, disk := range disks {
			disk.stall.Store(0)
		}
	})
}
