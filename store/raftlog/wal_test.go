package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/store/storetest/seed"
)

const testSegmentSize = 1 << 10

// openedWAL opens the log in a directory.
func openedWAL(t *testing.T, dir string, mark uint64) *walLog {
	t.Helper()
	l, err := openWAL(dir, tailMark{Index: mark}, hclog.NewNullLogger(), testSegmentSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() }) // a second time
	return l
}

func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Data: []byte(strings.Repeat(fmt.Sprintf("%d ", term), 20+int(index%30)))}
}

func closeWAL(t *testing.T, l *walLog) {
	t.Helper()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}

// copied is a copy of a directory, as after a kill.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// awaitSegment waits until the next segment exists.
func awaitSegment(t *testing.T, l *walLog) {
	t.Helper()
	if err := l.DeleteRange(1<<60, 1<<60); err != nil { // removes nothing, but waits
		t.Fatal(err)
	}
}

// wantLog compares a log with what was written.
func wantLog(t *testing.T, l *walLog, want []*raft.Log) {
	t.Helper()
	first, ferr := l.FirstIndex()
	last, lerr := l.LastIndex()
	if ferr != nil || lerr != nil {
		t.Fatal(ferr, lerr)
	}
	if len(want) == 0 {
		if first != 0 || last != 0 {
			t.Fatalf("an empty log goes from %d to %d", first, last)
		}
		return
	}
	if first != want[0].Index || last != want[len(want)-1].Index {
		t.Fatalf("the log goes from %d to %d, want %d to %d", first, last, want[0].Index, want[len(want)-1].Index)
	}
	for _, w := range want {
		var got raft.Log
		if err := (checkedLog{LogStore: l, summed: true}).GetLog(w.Index, &got); err != nil || got.Term != w.Term || string(got.Data) != string(w.Data) {
			t.Fatalf("entry %d: %+v, %v", w.Index, got, err)
		}
	}
	for _, not := range []uint64{first - 1, last + 1} {
		if err := l.GetLog(not, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("entry %d: %v", not, err)
		}
	}
}

// Random appends, truncations at both ends, installed snapshots and kills: the log has
// what was written.
func TestWALHoldsWhatWasWritten(t *testing.T) {
	t.Parallel()
	r := seed.Rand(t)
	dir := t.TempDir()
	l := openedWAL(t, dir, 0)
	var want []*raft.Log
	next, term := uint64(1), uint64(1)
	for range 400 {
		switch r.IntN(8) {
		case 0: // a new leader replaces the end
			if term++; len(want) > 1 {
				from := 1 + r.IntN(len(want)-1)
				if err := l.DeleteRange(want[from].Index, want[len(want)-1].Index); err != nil {
					t.Fatal(err)
				}
				want = want[:from]
				next = want[from-1].Index + 1
			}
		case 1: // after a snapshot
			if len(want) > 1 {
				to := r.IntN(len(want) - 1)
				if err := l.DeleteRange(want[0].Index, want[to].Index); err != nil {
					t.Fatal(err)
				}
				want = want[to+1:]
			}
		case 2: // a snapshot was installed
			if len(want) > 0 && r.IntN(4) == 0 {
				if err := l.DeleteRange(want[0].Index, want[len(want)-1].Index); err != nil {
					t.Fatal(err)
				}
				want, next = nil, next+uint64(r.IntN(50))
			}
		case 3: // a kill
			awaitSegment(t, l)
			dir = copied(t, dir)
			closeWAL(t, l)
			mark := uint64(0)
			if len(want) > 0 {
				mark = want[len(want)-1].Index
			}
			l = openedWAL(t, dir, mark)
		default:
			batch := make([]*raft.Log, 1+r.IntN(6))
			for i := range batch {
				batch[i] = entry(next+uint64(i), term)
			}
			if err := (checkedLog{LogStore: l}).StoreLogs(batch); err != nil {
				t.Fatal(err)
			}
			want, next = append(want, batch...), next+uint64(len(batch))
		}
		wantLog(t, l, want)
	}
}

// grow writes entries one by one until the log has a number of segments. It returns them,
// and for each a copy of the directory from before its write.
func grow(t *testing.T, dir string, l *walLog, segments int) (all []*raft.Log, before []string) {
	t.Helper()
	for i := uint64(1); ; i++ {
		if n, err := filepath.Glob(filepath.Join(dir, walDir, "*.wal")); err != nil || len(n) >= segments {
			return all, before
		}
		before = append(before, copied(t, dir))
		all = append(all, entry(i, 1))
		if err := (checkedLog{LogStore: l}).StoreLogs(all[len(all)-1:]); err != nil {
			t.Fatal(err)
		}
		awaitSegment(t, l)
	}
}

// lastSegment is the path of the newest segment, and its content up to the zeros.
func lastSegment(t *testing.T, dir string) (path string, data []byte) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	path = found[len(found)-1]
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return path, []byte(strings.TrimRight(string(data), "\x00"))
}

// A write that a kill or a power cut interrupted at any byte is no damage: it is cleared,
// and the log accepts entries.
func TestWALClearsAnUnfinishedWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openedWAL(t, dir, 0)
	all, before := grow(t, dir, l, 2)
	closeWAL(t, l)
	for _, n := range []int{0, 1, len(all) / 2, len(all) - 1} { // the last one seals the segment
		whole, _ := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
		wrote, err := os.ReadFile(whole[0])
		if err != nil {
			t.Fatal(err)
		}
		path, old := lastSegment(t, before[n])
		end := len(wrote)
		if n+1 < len(all) {
			_, next := lastSegment(t, before[n+1])
			end = len(next)
		}
		for got := len(old); got < end; got += 5 {
			for _, torn := range []bool{false, true} {
				torso := copied(t, before[n])
				data := slices.Clone(wrote[:got])
				if torn { // only the end reached the disk
					data = slices.Concat(wrote[:len(old)], make([]byte, got-len(old)), wrote[got:end])
				}
				name := filepath.Join(torso, walDir, filepath.Base(path))
				writeOver(t, name, data)
				if torn && got == len(old) {
					continue // all of it
				}
				m := openedWAL(t, torso, uint64(n))
				wantLog(t, m, all[:n])
				instead := []*raft.Log{entry(uint64(n+1), 7), entry(uint64(n+2), 7)}
				if err := (checkedLog{LogStore: m}).StoreLogs(instead); err != nil {
					t.Fatalf("entry %d, %d of %d bytes, torn %v: %v", n+1, got-len(old), end-len(old), torn, err)
				}
				wantLog(t, m, slices.Concat(all[:n], instead))
				closeWAL(t, m)
				wantLog(t, openedWAL(t, torso, uint64(n+2)), slices.Concat(all[:n], instead))
			}
		}
	}
}

// writeOver changes the beginning of a file.
func writeOver(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A node that ended after a segment was full and before the next one existed starts
// again.
func TestWALFinishesAFullSegment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openedWAL(t, dir, 0)
	all, before := grow(t, dir, l, 2)
	closeWAL(t, l)
	// The list as it was before the last write, and the segment as it was after.
	list, err := os.ReadFile(filepath.Join(before[len(before)-1], walDir, walList))
	if err != nil {
		t.Fatal(err)
	}
	path, _ := lastSegment(t, dir)
	if err := errors.Join(os.Remove(path), os.WriteFile(filepath.Join(dir, walDir, walList), list, 0o600)); err != nil {
		t.Fatal(err)
	}
	l = openedWAL(t, dir, uint64(len(all)))
	wantLog(t, l, all)
	more := entry(uint64(len(all)+1), 2)
	if err := (checkedLog{LogStore: l}).StoreLogs([]*raft.Log{more}); err != nil {
		t.Fatal(err)
	}
	wantLog(t, l, append(all, more))
}

// Without room for the next segment the log refuses entries with the reason.
func TestWALWithoutRoomReturnsTheReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openedWAL(t, dir, 0)
	l.filer.create = func() error { return syscall.ENOSPC }
	var err error
	i := uint64(0)
	for ; err == nil && i < 1000; i++ {
		err = (checkedLog{LogStore: l}).StoreLogs([]*raft.Log{entry(i+1, 1)})
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("after %d entries: %v", i, err)
	}
	closeWAL(t, l)
	l = openedWAL(t, dir, i-1)
	if err := (checkedLog{LogStore: l}).StoreLogs([]*raft.Log{entry(i, 1)}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Entries in segments must have a checksum: without it they are damaged.
func TestWALEntriesHaveChecksums(t *testing.T) {
	t.Parallel()
	l := openedWAL(t, t.TempDir(), 0)
	if err := l.StoreLog(entry(1, 1)); err != nil {
		t.Fatal(err)
	}
	files := Files{wal: l}
	if err := files.entries().GetLog(1, &raft.Log{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}
