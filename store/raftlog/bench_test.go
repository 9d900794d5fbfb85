package raftlog

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// benchLog opens a new log with checksums.
func benchLog(b *testing.B, kind string) checkedLog {
	b.Helper()
	dir := b.TempDir()
	files, err := Lock(dir)
	if err != nil {
		b.Fatal(err)
	}
	if err := files.Open(kind, hclog.NewNullLogger(), walSegmentSize); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := files.Close(); err != nil {
			b.Error(err)
		}
	})
	return files.entries()
}

// BenchmarkLogStore writes entries of 120 bytes with checksums, so many a call,
// to both logs by turns, so that a busy machine is as busy for both.
func BenchmarkLogStore(b *testing.B) {
	for _, size := range []int{1, 16, 64, 256, 1024} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			logs := map[string]checkedLog{Bolt: benchLog(b, Bolt), WAL: benchLog(b, WAL)}
			took := make(map[string]time.Duration)
			batch, data, next := make([]*raft.Log, size), bytes.Repeat([]byte("r"), 120), uint64(1)
			calls := 0
			for b.Loop() {
				for i := range batch {
					batch[i] = &raft.Log{Index: next, Term: 1, Data: data, AppendedAt: time.Now()}
					next++
				}
				for kind, log := range logs {
					start := time.Now()
					if err := log.StoreLogs(batch); err != nil {
						b.Fatal(err)
					}
					took[kind] += time.Since(start)
				}
				calls++
			}
			entries := float64(calls * size)
			b.ReportMetric(0, "ns/op") // of both together: says nothing
			b.ReportMetric(entries/took[Bolt].Seconds(), "boltdb-entries/s")
			b.ReportMetric(entries/took[WAL].Seconds(), "wal-entries/s")
			b.ReportMetric(took[Bolt].Seconds()/took[WAL].Seconds(), "wal/boltdb")
		})
	}
}

// BenchmarkVerifyLog reads a log as a start does.
func BenchmarkVerifyLog(b *testing.B) {
	for _, kind := range []string{Bolt, WAL} {
		b.Run(kind, func(b *testing.B) {
			log, data := benchLog(b, kind), bytes.Repeat([]byte("r"), 120)
			const entries, a = 32 << 10, 1024
			for i := uint64(0); i < entries; i += a {
				var batch []*raft.Log
				for j := range uint64(a) {
					batch = append(batch, &raft.Log{Index: i + j + 1, Term: 1, Data: data})
				}
				if err := log.StoreLogs(batch); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				for i := uint64(entries); i > 0; i-- {
					if err := log.GetLog(i, &raft.Log{}); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
