package sdk

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// copyOf writes a copy of a small group that was current some time ago.
func copyOf(t *testing.T, age time.Duration) (path string, v *View) {
	t.Helper()
	ms := memberIDs(3)
	ms[1].State = registrypb.MemberState_MEMBER_STATE_HELD
	ms[2].Meta = map[string]string{"zone": "a"}
	v, err := buildView("g", nil, &step{
		reset: true, revision: 200, index: 205, cluster: "cluster-1", fingerprint: fakeRing(ms).Fingerprint(), params: fakeParams, put: membersFromProto(ms),
	})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "ring")
	if err := writeCopy(path, v, time.Now().Add(-age)); err != nil {
		t.Fatal(err)
	}
	return path, v
}

func TestDiskCopyIsTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, v := copyOf(t, time.Hour)
		c, err := readCopy("g", path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v.Members(), c.view.Members(), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		if c.view.Revision() != 200 || c.view.Index() != 205 || c.view.ClusterID() != "cluster-1" || c.view.Fingerprint() != v.Fingerprint() || ageOf(c.asOf).Round(time.Minute) != time.Hour {
			t.Errorf("%+v", c)
		}
		if _, err := readCopy("h", path); !errors.Is(err, ErrDiskCopy) {
			t.Errorf("of another group: %v", err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	})
}

// Every truncation and every flipped bit is noticed, and so is what follows.
func TestDamagedDiskCopyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, _ := copyOf(t, 0)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeCopy("g", data); err != nil {
			t.Fatal(err)
		}
		for n := range data {
			if _, err := decodeCopy("g", data[:n]); !errors.Is(err, ErrDiskCopy) {
				t.Fatalf("cut to %d of %d bytes: %v", n, len(data), err)
			}
		}
		for bit := range len(data) * 8 {
			bad := bytes.Clone(data)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := decodeCopy("g", bad); !errors.Is(err, ErrDiskCopy) {
				t.Fatalf("bit %d flipped: %v", bit, err)
			}
		}
		if _, err := decodeCopy("g", append(bytes.Clone(data), 0)); !errors.Is(err, ErrDiskCopy) {
			t.Errorf("with a byte more: %v", err)
		}
	})
}

// A copy of the version before is refused with its reason, and the ring starts
// without it.
func TestDiskCopyOfVersion1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, _ := copyOf(t, 0)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copy(data, copyMagic1)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readCopy("g", path); !errors.Is(err, ErrDiskCopy) || !strings.Contains(err.Error(), "version 1: its fingerprint had another meaning") {
			t.Errorf("got %v", err)
		}
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(4)...) // older than what the copy says
		r := openRing(t, cl.client(cl.target(), fastProgress), WithDiskCopy(path))
		if len(r.Members()) != 4 {
			t.Errorf("%d members", len(r.Members()))
		}
		_ = r.Close()
		if c, err := readCopy("g", path); err != nil || c.view.Revision() != r.Revision() {
			t.Errorf("not replaced: %v", err)
		}
	})
}

// The copy says which cluster the client is of: one that was formed anew, with
// the same members at the same revision by chance, is refused, and the copy serves.
func TestDiskCopySaysWhichCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, v := copyOf(t, 0)
		cl := newFakeWatched(t, 1)
		cl.id = "cluster-2"
		cl.mu.Lock()
		cl.writeAtLocked("g", v.Revision(), memberProtos(v))
		cl.mu.Unlock()
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c, WithDiskCopy(path))
		if now := r.View(); now.ClusterID() != "cluster-1" || !r.Stats().FromDisk || r.Stats().Rebuilds != 0 {
			t.Errorf("of %q, %+v", now.ClusterID(), r.Stats())
		}
		if _, err := c.Members(testContext(t), "g"); !errors.Is(err, ErrWrongCluster) {
			t.Errorf("members: %v", err)
		}
		r.Close()
		if copied, err := readCopy("g", path); err != nil || copied.view.ClusterID() != "cluster-1" {
			t.Errorf("the copy: %v", err)
		}
		// A client of another cluster does not use it.
		r = openRing(t, cl.client(cl.target(), fastProgress, WithCluster("fake/cluster-2")), WithDiskCopy(path))
		if now := r.View(); now.ClusterID() != "cluster-2" || r.Stats().FromDisk {
			t.Errorf("of %q, %+v", now.ClusterID(), r.Stats())
		}
	})
}

func FuzzDecodeCopy(f *testing.F) {
	ms := memberIDs(2)
	v, err := buildView("g", nil, &step{reset: true, revision: 1, fingerprint: fakeRing(ms).Fingerprint(), params: fakeParams, put: membersFromProto(ms)})
	if err != nil {
		f.Fatal(err)
	}
	data, err := encodeCopy(v, time.Unix(1, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := decodeCopy("g", data); err == nil && c.view.Fingerprint() != c.view.Ring().Fingerprint() {
			t.Error("fingerprint not checked")
		}
	})
}

// down is a client of a cluster that does not answer.
func down(t *testing.T, opts ...Option) *Client {
	t.Helper()
	cl := newFakeWatched(t, 2)
	for _, n := range cl.nodes {
		n.srv.Stop()
	}
	return cl.client(cl.target(), append(opts, fastProgress, WithCallTimeout(200*time.Millisecond))...)
}

func TestRingStartsFromDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		age    time.Duration
		opts   []RingOption
		change func(t *testing.T, path string)
		ok     bool
	}{
		"as it was":         {age: time.Hour, ok: true},
		"within the limit":  {age: time.Hour, opts: []RingOption{WithDiskCopyMaxAge(2 * time.Hour)}, ok: true},
		"too old":           {age: time.Hour, opts: []RingOption{WithDiskCopyMaxAge(time.Minute)}},
		"from the future":   {age: -time.Hour},
		"just ahead":        {age: -time.Second, ok: true},
		"there is none":     {change: func(t *testing.T, path string) { _ = os.Remove(path) }},
		"it is a directory": {change: func(t *testing.T, path string) { _, _ = os.Remove(path), os.Mkdir(path, 0o700) }},
		"it is empty":       {change: func(t *testing.T, path string) { _ = os.WriteFile(path, nil, 0o600) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path, v := copyOf(t, tt.age)
				if tt.change != nil {
					tt.change(t, path)
				}
				var log bytes.Buffer
				c := down(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				r, err := c.Ring(t.Context(), "g", append(tt.opts, WithDiskCopy(path))...)
				if !tt.ok {
					if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if m, err := r.Match("k"); err != nil || m.ID == "" || r.Revision() != v.Revision() {
					t.Errorf("%v, %v at %d", m, err, r.Revision())
				}
				if age := r.Age(); age < tt.age || age > max(tt.age, 0)+time.Minute {
					t.Errorf("age %v, want %v", age, tt.age)
				}
				if !r.Stats().FromDisk {
					t.Error("does not say that it is from disk")
				}
				newer, err := buildView("g", v, &step{revision: 210, fingerprint: v.Fingerprint(), params: fakeParams})
				if err != nil {
					t.Fatal(err)
				}
				if err := writeCopy(path, newer, time.Now()); err != nil { // by another process
					t.Fatal(err)
				}
				_ = r.Close()
				_ = c.Close()
				if again, err := readCopy("g", path); err != nil || again.view.Revision() != 210 {
					t.Errorf("a process that heard nothing changed the copy: %+v, %v", again, err)
				}
			})
		})
	}
}

// A limit on the age counts the time before the restart.
func TestMaxAgeOfARingFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, _ := copyOf(t, time.Hour)
		r, err := down(t).Ring(t.Context(), "g", WithDiskCopy(path), WithMaxAge(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Match("k"); !errors.Is(err, ErrStale) {
			t.Errorf("got %v", err)
		}
	})
}

// Without a maximum age no timer looks at the age of a copy: it would fire at once, for ever.
func TestNoMaxAgeOfARingFromDisk(t *testing.T) {
	path, _ := copyOf(t, time.Hour)
	r, err := down(t).Ring(t.Context(), "g", WithDiskCopy(path))
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale != nil {
		t.Error("a timer runs")
	}
}

func TestDiskCopyAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ring")
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(4)...)
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c, WithDiskCopy(path))
		last := cl.write("g", memberIDs(5)...)
		wait(t, r, last)
		want, _ := r.Match("k")
		_ = r.Close() // writes what is newest
		cl.nodes[0].srv.Stop()

		c = cl.client(cl.target(), fastProgress)
		r = openRing(t, c, WithDiskCopy(path))
		if m, err := r.Match("k"); err != nil || m.ID != want.ID || r.Revision() != last || r.Age() > time.Minute {
			t.Errorf("%v, %v", m, err)
		}
		changes := make(chan RingChange, 1)
		r.OnChange(func(c RingChange) { changes <- c })
		age := r.Age()
		cl.nodes[0] = cl.start("node-0", cl.nodes[0].addr)
		eventually(t, "a node confirms the copy", func() bool { return !r.Stats().FromDisk && r.Age() < age+time.Minute })
		last = cl.write("g", memberIDs(6)...)
		if got := <-changes; got.To != last || r.Stats().Snapshots != 0 {
			t.Errorf("not resumed from the copy: %+v, %+v", got, r.Stats())
		}
	})
}

// The copy is not served once a node has answered, and a node that is behind
// it is not accepted.
func TestDiskCopyAgainstNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, v := copyOf(t, time.Minute)
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(7)...) // revision 103
		cl.nodes[0].pin("g")
		cl.mu.Lock()
		cl.writeAtLocked("g", v.Revision(), memberProtos(v))
		cl.writeAtLocked("g", 210, memberIDs(8))
		cl.mu.Unlock()
		c := cl.client(cl.target(), fastProgress)
		r := openRing(t, c, WithDiskCopy(path))
		if r.Revision() != v.Revision() || !r.Stats().FromDisk {
			t.Errorf("at %d", r.Revision())
		}
		cl.nodes[0].unpin()
		wait(t, r, 210)
		r.useCopy() // late
		if r.Revision() != 210 {
			t.Errorf("the copy replaced what a node said: at %d", r.Revision())
		}
		_ = r.Close()
		if again, err := readCopy("g", path); err != nil || again.view.Revision() != 210 {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

func memberProtos(v *View) []*registrypb.Member {
	var out []*registrypb.Member
	for _, m := range v.Members() {
		out = append(out, memberToProto(m))
	}
	return out
}

// A failed write leaves the copy as it was.
func TestDiskCopyThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "missing", "ring")
		cl := newFakeWatched(t, 1)
		cl.write("g", memberIDs(4)...)
		r := openRing(t, cl.client(cl.target(), fastProgress), WithDiskCopy(path))
		eventually(t, "the failure is counted", func() bool { return r.Stats().DiskErrors > 0 })
		if _, err := r.Match("k"); err != nil {
			t.Error(err)
		}
	})
}
