package fsm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func newReader(data []byte) *bytes.Reader { return bytes.NewReader(data) }

// roundTrip restores the machine's snapshot into another and compares.
func roundTrip(t *testing.T, m *Machine) {
	t.Helper()
	other := newLog(t).m
	if err := other.Restore(newReader(snapshotBytes(t, m.State()))); err != nil {
		t.Fatal(err)
	}
	sameState(t, "restored", m, other)
}

// smallState has one of every record.
func smallState(tb testing.TB) *log {
	l := newLog(tb)
	l.term = 2
	l.must(termStart("n1"))
	l.must(setNode(&fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9800", Version: "v1.0.0", Incarnation: "INCARNATION", Nonvoter: true}))
	l.must(setGroup("db", 128, 1250, 0))
	s := newRegistration("web", "a", "10.0.0.1:80", "one")
	s.Meta = []*fsmpb.Pair{{Key: "zone", Value: "b"}}
	l.must(register(s))
	l.must(register(newRegistration("web", "b", "[::1]:80", "two")))
	l.must(updateMember("web", "b", 3, 2))
	l.must(register(newRegistration("web", "b", "[::1]:80", "three")))
	return l
}

// tokenState is smallState with tokens, and a member that belongs to one. smallState
// stays as it is: the golden snapshots are of it.
func tokenState(tb testing.TB) *log {
	l := smallState(tb)
	l.must(rootToken())
	l.must(createToken(newTestToken("agents", grant(Register, "we"), grant(Discover, ""))))
	l.must(rotateToken("agents", "new", 1_800_000_000_000))
	l.must(as("agents", false, register(newRegistration("web", "c", "[::1]:81", "four"))))
	l.must(createToken(newTestToken("gone", grant(Discover, ""))))
	l.must(revokeToken("gone"))
	return l
}

func TestSnapshotOfEveryRecord(t *testing.T) {
	roundTrip(t, newLog(t).m)
	l := tokenState(t)
	roundTrip(t, l.m)
	s, err := ReadSnapshot(iotest.OneByteReader(newReader(snapshotBytes(t, l.m.State()))))
	if err != nil {
		t.Fatal(err)
	}
	if s.Term() != 2 || s.Leader() != "n1" || s.Index() != l.index || s.Digest() != l.m.State().Digest() {
		t.Errorf("%+v", s)
	}
	if got, want := s.TokensRevision(), l.m.State().TokensRevision(); got != want || want != l.index {
		t.Errorf("tokens at revision %d, were at %d", got, want)
	}
}

// A node keeps its zone over a snapshot and a restoration of another state. One that
// names none has the record of versions without zones.
func TestZoneInASnapshot(t *testing.T) {
	l := newLog(t)
	n1 := &fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2"}
	l.must(setNode(n1))
	before := l.m.State()
	l.must(featureLevel(2))
	l.must(setNode(&fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Zone: "eu-1"}))
	roundTrip(t, l.m)
	s, err := ReadSnapshot(newReader(snapshotBytes(t, l.m.State())))
	if err != nil || s.Node("n1").Zone != "eu-1" || s.NodesGroup().Revision != l.index {
		t.Errorf("%+v, nodes at revision %d of %d: %v", s.Node("n1"), s.NodesGroup().Revision, l.index, err)
	}
	l.restore(before, true)
	if n := l.m.State().Node("n1"); n.Zone != "eu-1" {
		t.Errorf("after a restoration: %+v", n)
	}
	l.must(setNode(n1))
	if got, want := l.m.State().Node("n1").digest, before.Node("n1").digest; got != want {
		t.Errorf("without a zone the node has digest %x, in an earlier version %x", got, want)
	}
}

func refused(t *testing.T, m *Machine, data []byte, what string, at int) {
	t.Helper()
	before := m.State()
	err := m.Restore(newReader(data))
	if !errors.Is(err, ErrCorruptSnapshot) {
		t.Fatalf("%s %d: got %v, want ErrCorruptSnapshot", what, at, err)
	}
	if m.State() != before {
		t.Fatalf("%s %d: the old state is gone", what, at)
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	good := snapshotBytes(t, tokenState(t).m.State())
	rec := &recorder{}
	l := newLog(t, rec)
	l.must(register(newRegistration("old", "a", "10.0.0.1:80", "one")))
	for n := range good {
		refused(t, l.m, good[:n], "cut to", n)
	}
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		refused(t, l.m, bad, "bit", bit)
	}
	refused(t, l.m, append(bytes.Clone(good), 0), "one byte more than", len(good))
	refused(t, l.m, append(bytes.Clone(good), good...), "twice", len(good))
	if rec.restored != 0 {
		t.Error("observers were notified of a restore that failed")
	}
	if err := l.m.Restore(newReader(good)); err != nil {
		t.Fatal(err)
	}
}

// newTestSnapshot writes records as WriteSnapshot does.
func newTestSnapshot(w io.Writer) *snapshotWriter {
	return &snapshotWriter{buf: bufio.NewWriter(w), sum: xxhash.New()}
}

// forge makes a snapshot with right checksums, and with a right digest but for
// what is added to it, of records that no machine wrote.
func forge(t *testing.T, digest uint64, records ...*fsmpb.SnapshotRecord) []byte {
	t.Helper()
	group := ""
	for _, r := range records {
		if g := r.GetGroup(); g != nil {
			group = g.Name
			digest += groupHeadDigest(&Group{Name: g.Name, Params: ring.Params{VirtualNodes: int(g.VirtualNodes)}, Revision: g.Revision})
		}
		if in := r.GetToken(); in != nil {
			digest += tokenDigest(newToken(in))
		}
		if m := r.GetMember(); m != nil {
			digest += memberDigest(group, &Member{ID: m.Id, Addr: m.Addr, Weight: m.Weight, State: ring.State(m.State), ModifiedIndex: m.ModifiedIndex})
		}
	}
	var buf bytes.Buffer
	w := newTestSnapshot(&buf)
	w.header(&fsmpb.SnapshotHeader{Version: snapshotVersion, Index: 9})
	for _, r := range records {
		w.write(r)
	}
	w.trailer(digest)
	if w.err != nil {
		t.Fatal(w.err)
	}
	return buf.Bytes()
}

func TestImpossibleSnapshotsAreRefused(t *testing.T) {
	group := func(name string, nodes uint32) *fsmpb.SnapshotRecord {
		return &fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Group{Group: &fsmpb.Group{Name: name, VirtualNodes: nodes, Revision: 1}}}
	}
	member := func(m *fsmpb.Member) *fsmpb.SnapshotRecord {
		return &fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Member{Member: m}}
	}
	header := &fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Header{Header: &fsmpb.SnapshotHeader{Version: snapshotVersion}}}
	token := func(edit func(*fsmpb.Token)) *fsmpb.SnapshotRecord {
		t := newTestToken("a", grant(Admin, ""))
		edit(t)
		return &fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Token{Token: t}}
	}
	asItIs := func(*fsmpb.Token) {}
	good := &fsmpb.Member{Id: "a", Addr: "a:1", Weight: 1, ModifiedIndex: 1}
	l := newLog(t)
	for name, records := range map[string][]*fsmpb.SnapshotRecord{
		"no record":               {{}},
		"a second header":         {header},
		"a group twice":           {group("web", 64), group("web", 64)},
		"parameters of no ring":   {group("web", 65)},
		"a member without group":  {member(good)},
		"a member without weight": {group("web", 64), member(&fsmpb.Member{Id: "a", ModifiedIndex: 1})},
		"a member of no state":    {group("web", 64), member(&fsmpb.Member{Id: "a", Weight: 1, State: 3, ModifiedIndex: 1})},
		"a member too heavy":      {group("web", 64), member(&fsmpb.Member{Id: "a", Weight: 1001, ModifiedIndex: 1})},
		"a member without id":     {group("web", 64), member(&fsmpb.Member{Weight: 1, ModifiedIndex: 1})},
		"no token":                {{Record: &fsmpb.SnapshotRecord_Token{}}},
		"a token twice":           {token(asItIs), token(asItIs)},
		"a token's name twice":    {token(asItIs), token(func(t *fsmpb.Token) { t.Id = tokenID("b") })},
		"a token without a hash":  {token(func(t *fsmpb.Token) { t.Hash = nil })},
		"a token of a short id":   {token(func(t *fsmpb.Token) { t.Id = t.Id[1:] })},
		"no previous hash":        {token(func(t *fsmpb.Token) { t.PreviousExpiresMs = 1 })},
		"a right of no name":      {token(func(t *fsmpb.Token) { t.Grants[0].Rights = 16 })},
		"a record that is huge":   {group("web", 64), member(&fsmpb.Member{Id: "a", Weight: 1, Addr: string(make([]byte, maxSnapshotRecord))})},
	} {
		t.Run(name, func(t *testing.T) { refused(t, l.m, forge(t, 0, records...), "forged", 0) })
	}
	t.Run("another digest", func(t *testing.T) {
		refused(t, l.m, forge(t, 1, group("web", 64), member(good)), "forged", 0)
		if err := newLog(t).m.Restore(newReader(forge(t, 0, group("web", 64), member(good)))); err != nil {
			t.Errorf("the same with its own digest: %v", err)
		}
	})
	t.Run("another version", func(t *testing.T) {
		var buf bytes.Buffer
		w := newTestSnapshot(&buf)
		w.header(&fsmpb.SnapshotHeader{Version: snapshotVersion + 1})
		w.trailer(0)
		refused(t, l.m, buf.Bytes(), "version", snapshotVersion+1)
	})
	t.Run("the version before", func(t *testing.T) {
		var buf bytes.Buffer
		w := newTestSnapshot(&buf)
		w.header(&fsmpb.SnapshotHeader{Version: 1})
		w.trailer(0)
		refused(t, l.m, buf.Bytes(), "version", 1)
		if _, err := ReadSnapshot(&buf); !strings.Contains(err.Error(), "version is 1, this program reads 2") {
			t.Errorf("does not name both versions: %v", err)
		}
	})
	t.Run("a length that is no length", func(t *testing.T) {
		refused(t, l.m, bytes.Repeat([]byte{0xff}, 20), "varint", 0)
	})
}

// A record with the most that Validate lets through can be read back.
func TestLargestRecordFitsASnapshot(t *testing.T) {
	l := newLog(t)
	long := string(bytes.Repeat([]byte("x"), MaxNameLength))
	s := newRegistration(long, long, long[:200]+":80", long[:MaxInstance])
	for i := range MaxMetaPairs {
		s.Meta = append(s.Meta, &fsmpb.Pair{Key: long[:10] + string(rune('A'+i)), Value: long[:100]})
	}
	node := setNode(&fsmpb.Node{Id: long, Bind: "a:1", Addr: "a:1", Version: long, Incarnation: long, Zone: long})
	token := newTestToken(long)
	for range MaxGrants {
		token.Grants = append(token.Grants, grant(Register, long))
	}
	for _, cmd := range []*fsmpb.Command{register(s), node, rootToken(), createToken(token)} {
		if err := Validate(cmd); err != nil {
			t.Fatal(err)
		}
		l.must(cmd)
	}
	roundTrip(t, l.m)
}

func TestSnapshotReportsTheWritersError(t *testing.T) {
	l := tokenState(t)
	size := len(snapshotBytes(t, l.m.State()))
	for n := range size {
		err := l.m.State().WriteSnapshot(&limitedWriter{left: n})
		if !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("disk full after %d bytes: got %v", n, err)
		}
	}
}

type limitedWriter struct{ left int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, io.ErrShortWrite
	}
	w.left -= len(p)
	return len(p), nil
}

const goldenSnapshot = "../testdata/snapshots/v2.snap"

// What the golden file holds. These never change, because a node of any
// version that reads the file must agree with the others.
const (
	goldenDigest      = 0x9496224fc6e5535a
	goldenFingerprint = 0x04d7302694ad4a81 // of group web
	goldenRing        = 0x00a23ed047fa3012 // digest of the ring of group web
)

// The snapshot of this version is read by every later one. The file is
// written with -update, and never again once a release wrote its like.
func TestOldSnapshotIsRead(t *testing.T) {
	if *update {
		if err := os.MkdirAll(filepath.Dir(goldenSnapshot), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(goldenSnapshot, snapshotBytes(t, smallState(t).m.State()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	old := newLog(t).m
	if err := old.Restore(newReader(data)); err != nil {
		t.Fatal(err)
	}
	s := old.State()
	if s.Digest() != goldenDigest {
		t.Errorf("digest %#016x, want %#016x", s.Digest(), uint64(goldenDigest))
	}
	if s.GroupCount() != 2 {
		t.Errorf("%d groups, want 2", s.GroupCount())
	}
	if n := s.Node("n1"); n == nil || n.Zone != "" {
		t.Errorf("node %+v", n)
	}
	if got := s.NodesGroup().Revision; got != s.Index() {
		t.Errorf("the nodes are at revision %d, want the index, %d", got, s.Index())
	}
	web := s.Group("web")
	if got := web.Fingerprint(); got != goldenFingerprint {
		t.Errorf("fingerprint %#016x, want %#016x", got, uint64(goldenFingerprint))
	}
	if got := builtDigest(t, web); got != goldenRing {
		t.Errorf("ring has digest %#016x, want %#016x", got, uint64(goldenRing))
	}
	m := s.Group("web").Member("a")
	if s.Term() != 2 || s.Node("n1") == nil || !s.fences.has("web", "b", "two") || m == nil || m.Meta[0] != (Pair{"zone", "b"}) {
		t.Errorf("%+v, member %+v", s, m)
	}
	var first fsmpb.SnapshotRecord
	if err := protodelim.UnmarshalFrom(newReader(data), &first); err != nil || first.GetHeader().GetVersion() != snapshotVersion {
		t.Errorf("first record %v, %v", &first, err)
	}
}
