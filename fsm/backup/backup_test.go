package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store/storetest/seed"
)

// state has members of that number, a node and a token.
func state(tb testing.TB, members int) *fsm.State {
	tb.Helper()
	m := fsm.New()
	var index uint64
	apply := func(cmd *fsmpb.Command) {
		data, err := fsm.Encode(cmd)
		if err != nil {
			tb.Fatal(err)
		}
		index++
		if r := m.Apply([]fsm.Entry{{Index: index, Term: 1, Data: data}})[0]; r.Err != nil {
			tb.Fatal(r.Err)
		}
	}
	apply(&fsmpb.Command{Op: &fsmpb.Command_TermStart{TermStart: &fsmpb.TermStart{Node: "n1"}}})
	apply(&fsmpb.Command{Op: &fsmpb.Command_SetNode{SetNode: &fsmpb.SetNode{Node: &fsmpb.Node{Id: "n1", Bind: "n1:7370", Addr: "n1:9800"}}}})
	apply(&fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{First: true, Token: &fsmpb.Token{
		Id: []byte("12345678"), Name: "root", Hash: bytes.Repeat([]byte{7}, fsm.TokenHashSize), Grants: []*fsmpb.Grant{{Rights: uint32(fsm.Admin)}},
	}}}})
	for i := range members {
		apply(&fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
			Group: "web", Id: fmt.Sprintf("m%d", i), Addr: "10.0.0.1:80", Weight: 1, TtlMs: 10_000, Instance: []byte{1},
			Meta: []*fsmpb.Pair{{Key: "k", Value: strings.Repeat("v", i)}},
		}}})
	}
	return m.State()
}

func file(tb testing.TB, s *fsm.State) []byte {
	tb.Helper()
	var out bytes.Buffer
	if err := Write(&out, s, &fsmpb.BackupHeader{Cluster: "c", ClusterId: "1f", Node: "n1", NodeVersion: "v1", TimeMs: 1_700_000_000_000}); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestWriteAndRead(t *testing.T) {
	s := state(t, 3)
	data := file(t, s)
	f, err := Read(iotest.OneByteReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	if f.State.Digest() != s.Digest() || f.Header.Digest != s.Digest() || f.State.Index() != s.Index() || f.Size != int64(len(data)) || f.Parts != 3 {
		t.Errorf("%+v", f)
	}
	if h := f.Header; h.Cluster != "c" || h.ClusterId != "1f" || h.Members != 3 || h.Groups != 1 || h.Nodes != 1 || h.Tokens != 1 {
		t.Errorf("%v", h)
	}
	if h, err := ReadHeader(bytes.NewReader(data)); err != nil || !proto.Equal(h, f.Header) {
		t.Errorf("%v, %v", h, err)
	}
}

// TestFileOfManyParts crosses the borders of parts.
func TestFileOfManyParts(t *testing.T) {
	s := state(t, 1200) // the metadata takes 720 kB
	data := file(t, s)
	f, err := Read(bytes.NewReader(data))
	if err != nil || f.Parts < 4 || f.State.Digest() != s.Digest() {
		t.Fatalf("%+v, %v", f, err)
	}
	r := seed.Rand(t)
	for range 200 {
		refused(t, data, r.IntN(len(data)), byte(1+r.IntN(255)))
	}
}

func refused(t *testing.T, data []byte, at int, xor byte) {
	t.Helper()
	bad := bytes.Clone(data)
	bad[at] ^= xor
	_, err := Read(bytes.NewReader(bad))
	switch {
	case at < len(magic) && errors.Is(err, ErrFormat):
	case at >= len(magic) && errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), "part "):
	default:
		t.Fatalf("byte %d of %d changed by %#x: %v", at, len(data), xor, err)
	}
}

// TestEveryByteCounts: a file with any byte changed is refused.
func TestEveryByteCounts(t *testing.T) {
	data := file(t, state(t, 3))
	for at := range data {
		for _, xor := range []byte{1, 0x80, 0xff} {
			refused(t, data, at, xor)
		}
	}
}

// TestCutFile: a file that ends early, anywhere, is refused, as is one that goes on.
func TestCutFile(t *testing.T) {
	data := file(t, state(t, 3))
	for n := range data {
		_, err := Read(bytes.NewReader(data[:n]))
		if n < len(magic) && !errors.Is(err, ErrFormat) || n >= len(magic) && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "cut off")) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(data), 0))); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "follows its end") {
		t.Errorf("one byte more: %v", err)
	}
}

// resealed makes a file of those parts, with right checksums.
func resealed(parts ...[]byte) []byte {
	out := []byte(magic)
	for i, p := range parts {
		out = append(appendHead(out, p[0], uint64(i), p[1:]), p[1:]...)
	}
	return out
}

// partsOf are kind and data of each part.
func partsOf(data []byte) (parts [][]byte) {
	for data = data[len(magic):]; len(data) > 0; {
		n := int(binary.LittleEndian.Uint32(data[1:]))
		parts = append(parts, append([]byte{data[0]}, data[headSize:headSize+n]...))
		data = data[headSize+n:]
	}
	return parts
}

// TestRightChecksumsAreNotEnough: header and state must agree, in a known version.
func TestRightChecksumsAreNotEnough(t *testing.T) {
	s := state(t, 3)
	parts := partsOf(file(t, s))
	header := func(change func(*fsmpb.BackupHeader)) []byte {
		var h fsmpb.BackupHeader
		if err := proto.Unmarshal(parts[0][1:], &h); err != nil {
			t.Fatal(err)
		}
		change(&h)
		data, err := proto.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{kindHeader}, data...)
	}
	if _, err := Read(bytes.NewReader(resealed(parts...))); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file []byte
		want error
		text string
	}{
		"a later version":     {resealed(header(func(h *fsmpb.BackupHeader) { h.Version = 2 }), parts[1], parts[2]), ErrFormat, "has version 2, this version reads 1"},
		"another digest":      {resealed(header(func(h *fsmpb.BackupHeader) { h.Digest++ }), parts[1], parts[2]), ErrDamaged, "digest"},
		"another number":      {resealed(header(func(h *fsmpb.BackupHeader) { h.Members++ }), parts[1], parts[2]), ErrDamaged, "header says"},
		"the state of others": {resealed(parts[0], partsOf(file(t, state(t, 2)))[1], parts[2]), ErrDamaged, "digest"},
		"no state":            {resealed(parts[0], parts[2]), ErrDamaged, "record 0"},
		"two headers":         {resealed(parts[0], parts[0], parts[1], parts[2]), ErrDamaged, "does not belong there"},
		"no header":           {resealed(parts[1], parts[2]), ErrDamaged, "does not belong there"},
		"no end":              {resealed(parts[0], parts[1]), ErrDamaged, "cut off"},
		"an end with data":    {resealed(parts[0], parts[1], []byte{kindEnd, 1}), ErrDamaged, "does not belong there"},
		"an unknown kind":     {resealed(parts[0], []byte{'X'}, parts[1], parts[2]), ErrDamaged, "does not belong there"},
	} {
		if _, err := Read(bytes.NewReader(tt.file)); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLengthIsNotAllocatedUnread: a length from the file is bounded before memory is taken.
func TestLengthIsNotAllocatedUnread(t *testing.T) {
	data := append([]byte(magic), kindHeader, 0xff, 0xff, 0xff, 0xff)
	data = append(data, make([]byte, 8)...)
	if _, err := Read(bytes.NewReader(data)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("%v", err)
	}
}

func TestErrorsOfTheReaderAndWriterStay(t *testing.T) {
	data := file(t, state(t, 3))
	for _, n := range []int{0, 5, len(magic) + 3, len(data) / 2} {
		broken := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(io.ErrClosedPipe))
		if _, err := Read(broken); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if err := Write(failing{}, state(t, 1), &fsmpb.BackupHeader{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzRead(f *testing.F) {
	f.Add(file(f, state(f, 2)))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Read(bytes.NewReader(data))
		if err == nil && got.State.Digest() != got.Header.Digest {
			t.Errorf("accepted with digest %016x, header %016x", got.State.Digest(), got.Header.Digest)
		}
	})
}
