package walfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

var id = ID{Base: 7, Segment: 3, Codec: 1}

func info(sizeLimit uint32) types.SegmentInfo {
	return types.SegmentInfo{ID: id.Segment, BaseIndex: id.Base, MinIndex: id.Base, Codec: id.Codec, SizeLimit: sizeLimit}
}

// write returns the bytes of a segment with batches of 1, 2, 3… entries, and the end of
// each batch.
func write(tb testing.TB, batches int, seal bool) (data []byte, ends []int64) {
	tb.Helper()
	dir := tb.TempDir()
	w, err := segment.NewFiler(dir, fs.New()).Create(info(16 << 10))
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Close()
	index := id.Base
	read := func() []byte {
		data, err := os.ReadFile(filepath.Join(dir, segment.FileName(info(0))))
		if err != nil {
			tb.Fatal(err)
		}
		return data
	}
	for n := 1; n <= batches; n++ {
		var batch []types.LogEntry
		for range n {
			batch = append(batch, types.LogEntry{Index: index, Data: bytes.Repeat([]byte{byte(index)}, 10+int(index)%20)})
			index++
		}
		if err := w.Append(batch); err != nil {
			tb.Fatal(err)
		}
		found, err := Walk(bytes.NewReader(read()), int64(len(read())), id)
		if err != nil || id.Base+found.Entries != index || found.Index != 0 {
			tb.Fatalf("after entry %d: %+v, %v", index-1, found, err)
		}
		ends = append(ends, found.End)
	}
	if seal {
		at, err := w.(*segment.Writer).ForceSeal()
		if err != nil {
			tb.Fatal(err)
		}
		found, err := Walk(bytes.NewReader(read()), int64(len(read())), id)
		if err != nil || found.Index != int64(at) || id.Base+found.Entries != index {
			tb.Fatalf("sealed at %d: %+v, %v", at, found, err)
		}
		ends = append(ends, found.End)
	}
	return read(), ends
}

func TestFindsTheCommittedPart(t *testing.T) {
	for _, batches := range []int{0, 1, 2, 9} {
		write(t, batches, false)
		if batches > 0 {
			write(t, batches, true)
		}
	}
}

// A truncated file has all batches before its end.
func TestCutFileKeepsWholeBatches(t *testing.T) {
	data, ends := write(t, 6, true)
	for size := range int(ends[len(ends)-1]) + 9 {
		want := int64(0)
		for _, end := range ends {
			if end <= int64(size) {
				want = end
			}
		}
		found, err := Walk(bytes.NewReader(data[:size]), int64(size), id)
		if err != nil || found.End != want {
			t.Fatalf("%d bytes: %+v, %v, want the end at %d", size, found, err, want)
		}
	}
}

// Damage is found, or it truncates the log like an unfinished write, which depends on
// whether the frames after it are readable. A changed batch is never accepted.
func TestChangedBytes(t *testing.T) {
	data, ends := write(t, 8, false)
	r := rand.New(rand.NewPCG(1, 2))
	damaged, shorter := 0, 0
	for at := range int(ends[len(ends)-1]) {
		bad := bytes.Clone(data)
		bad[at] ^= byte(1 + r.IntN(255))
		found, err := Walk(bytes.NewReader(bad), int64(len(bad)), id)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged++
		case err != nil:
			t.Fatalf("byte %d: %v", at, err)
		case slices.ContainsFunc(ends, func(end int64) bool { return int64(at) > end-frameSize && int64(at) < end-4 }):
			// Three unused bytes of a commit frame.
		case found.End > int64(at):
			t.Fatalf("byte %d: its batch is accepted", at)
		default:
			shorter++
		}
	}
	t.Logf("%d bytes are damage, %d truncate the log", damaged, shorter)
	if damaged < shorter {
		t.Errorf("only %d of %d bytes are found to be damage", damaged, damaged+shorter)
	}
}

func TestHeaderOfAnotherSegment(t *testing.T) {
	data, _ := write(t, 2, false)
	for _, other := range []ID{{8, 3, 1}, {7, 4, 1}, {7, 3, 2}} {
		if _, err := Walk(bytes.NewReader(data), int64(len(data)), other); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+v: %v", other, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	data, _ := write(f, 3, true)
	f.Add(data[:400])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := Walk(bytes.NewReader(data), int64(len(data)), id)
		if err == nil && found.End > int64(len(data)) {
			t.Errorf("%+v of %d bytes", found, len(data))
		}
	})
}
