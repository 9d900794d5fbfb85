package main

import (
	"strings"
	"testing"

	"github.com/werbenhu/registry/tests/systems"
)

func TestMeasure(t *testing.T) {
	program, err := systems.BuildRegistry(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("all members", func(t *testing.T) {
		row, err := measure(t.Context(), program, t.TempDir(), size{members: 2_000, groups: 10, saves: 1})
		if err != nil {
			t.Fatal(err)
		}
		if row.Members != 2_000 || row.Refused != "" || row.Snapshot == 0 || row.Peak < row.RSS ||
			row.Saves == 0 || row.P99 <= 0 || row.Beside <= 0 || row.besideSaves.Save <= 0 || row.Restore <= 0 {
			t.Errorf("%+v", row)
		}
		if got, want := strings.Count(row.String(), "\t"), strings.Count(header, "\t"); got != want {
			t.Errorf("%d columns, want %d: %q", got, want, row)
		}
	})
	t.Run("at the limit of a group", func(t *testing.T) { // 2^25 points
		row, err := measure(t.Context(), program, t.TempDir(), size{members: 10_000, groups: 1, virtualNodes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if row.Members != 8192 || !strings.Contains(row.Refused, "points of a ring") {
			t.Errorf("%+v", row)
		}
	})
	t.Run("every lease beats after the loss of the leader", func(t *testing.T) {
		nodes, err := systems.StartRegistry(t.Context(), program, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer nodes.Close()
		s, err := startServices(t.Context(), nodes, size{groups: 10, beat: 300})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		leader, err := nodes.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		took, err := s.loseLeader(t.Context(), nodes, leader)
		if err != nil || took <= 0 {
			t.Fatalf("%v, %v", took, err)
		}
		t.Logf("all renewed after %v", took)
	})
}

func TestBeatsCount(t *testing.T) {
	var b beats
	early := message{leases: []uint64{1, 2, 3}}
	b.answered(early, 0)
	all := b.count(2)
	b.answered(early, 0) // sent before
	now := message{sent: b.since.Add(1), leases: []uint64{1}}
	b.answered(now, 0)
	b.answered(now, 0)
	select {
	case <-all:
		t.Fatal("one lease of two was renewed")
	default:
	}
	now.leases = []uint64{2}
	b.answered(now, 0)
	<-all
	if renewed, lost := b.counted(); renewed != 2 || lost != 0 {
		t.Errorf("%d renewed, %d lost", renewed, lost)
	}
	all = b.count(2)
	b.answered(now, 1)
	<-all
	if renewed, lost := b.counted(); renewed != 0 || lost != 1 {
		t.Errorf("%d renewed, %d lost", renewed, lost)
	}
}
