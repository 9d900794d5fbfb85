package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/werbenhu/registry/store/storetest/seed"
)

// write returns the bytes of a file with two buckets, one large and one inline, after
// many transactions.
func write(tb testing.TB, entries int) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "b.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range entries {
		err := db.Update(func(tx *bbolt.Tx) error {
			logs, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			conf, err := tx.CreateBucketIfNotExists([]byte("conf"))
			if err != nil {
				return err
			}
			size := 20 + i%300
			if i%97 == 0 {
				size = 10_000 // overflow pages
			}
			return errors.Join(
				logs.Put(binary.BigEndian.AppendUint64(nil, uint64(i+1)), bytes.Repeat([]byte{byte(i)}, size)),
				conf.Put([]byte("term"), fmt.Append(nil, i)))
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func check(data []byte) (got map[string]string, err error) {
	got = make(map[string]string)
	err = Check(bytes.NewReader(data), int64(len(data)), func(bucket, key, value []byte) error {
		got[string(bucket)+"/"+string(key)] = string(value)
		return nil
	})
	return got, err
}

// open reads the file with bbolt.
func open(tb testing.TB, path string, data []byte) (got map[string]string, err error) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	got = make(map[string]string)
	return got, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				got[string(name)+"/"+string(k)] = string(v)
				return nil
			})
		})
	})
}

func TestReadsWhatBboltReads(t *testing.T) {
	for _, entries := range []int{0, 1, 3, 500, 3000} {
		data := write(t, entries)
		want, err := open(t, filepath.Join(t.TempDir(), "c.db"), data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := check(data)
		if err != nil {
			t.Fatalf("%d entries: %v", entries, err)
		}
		if len(got) != len(want) || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d entries: %d keys, bbolt reads %d", entries, len(got), len(want))
		}
	}
}

// The header of a meta page has no checksum and bbolt ignores it: a change there does not
// invalidate the page.
func TestHeaderOfAMetaPageIsIgnored(t *testing.T) {
	data := write(t, 400)
	want, err := check(data)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 2 * headerSize {
		bad := bytes.Clone(data)
		bad[at/headerSize*4096+at%headerSize] ^= 0xff
		got, err := check(bad)
		read, openErr := open(t, filepath.Join(t.TempDir(), "c.db"), bad)
		if err != nil || openErr != nil || fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(read) != fmt.Sprint(want) {
			t.Errorf("byte %d of page %d: %d keys, bbolt reads %d, want %d; %v, %v", at%headerSize, at/headerSize, len(got), len(read), len(want), err, openErr)
		}
	}
}

// bbolt reads an accepted file without a panic, with the same content. A panic on one of
// bbolt's goroutines ends this test's process.
func TestAcceptedFilesDoNotPanic(t *testing.T) {
	r := seed.Rand(t)
	data := write(t, 400)
	path := filepath.Join(t.TempDir(), "c.db")
	accepted, refused := 0, 0
	for range 1500 {
		bad := bytes.Clone(data)
		at := r.IntN(len(bad))
		if r.IntN(2) == 0 { // where the pages' headers and elements are
			at = r.IntN(len(bad)/4096)*4096 + r.IntN(200)
		}
		bad[at] ^= byte(1 + r.IntN(255))
		got, err := check(bad)
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d: %v", at, err)
			}
			continue
		}
		accepted++
		want, err := open(t, path, bad)
		if err != nil {
			t.Fatalf("byte %d: accepted, but bbolt returns %v", at, err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("byte %d: accepted, but bbolt reads other content", at)
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if refused < 100 || accepted < 100 {
		t.Errorf("%d accepted, %d refused: the test shows nothing", accepted, refused)
	}
}

func TestTruncatedFilesAreRefused(t *testing.T) {
	data := write(t, 400)
	for _, n := range []int{0, 1, 100, 4096, 8192, 10_000, len(data) / 2, len(data) - 1} {
		if _, err := check(data[:n]); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes: %v", n, err)
		} else if err == nil && n < len(data)/2 {
			t.Errorf("%d of %d bytes are accepted", n, len(data))
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(write(f, 3))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = check(data) })
}
