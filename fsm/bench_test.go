package fsm

import (
	"fmt"
	"io"
	"testing"
)

// members fills a machine, a thousand to a group.
func members(b *testing.B, n int) *log {
	b.Helper()
	l := newLog(b)
	for at := 0; at < n; {
		var entries []Entry
		for ; at < n && len(entries) < 1000; at++ {
			entries = append(entries, l.entry(register(newRegistration("g"+itoa(at/1000), "m"+itoa(at%1000), "10.0.0.1:80", "one"))))
		}
		l.m.Apply(entries)
	}
	return l
}

// BenchmarkApply measures the machine without observers.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		for _, batch := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("members=%d/batch=%d", n, batch), func(b *testing.B) {
				l := members(b, n)
				// Takeovers: each changes the member, the group and the fences.
				entries := make([]Entry, batch)
				round := 0
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					for i := range entries {
						at := (round*batch + i) * 7919 % n
						entries[i] = l.entry(register(newRegistration("g"+itoa(at/1000), "m"+itoa(at%1000), "10.0.0.1:80", "i"+itoa(round))))
					}
					round++
					b.StartTimer()
					l.m.Apply(entries)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/entry")
			})
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			s := members(b, n).m.State()
			b.SetBytes(int64(len(snapshotBytes(b, s))))
			for b.Loop() {
				if err := s.WriteSnapshot(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	n := 100_000
	if testing.Short() {
		n = 1_000
	}
	b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
		data := snapshotBytes(b, members(b, n).m.State())
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := New().Restore(newReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
