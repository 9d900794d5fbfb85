package backup

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

// Version of the format that is written, and the only one that is read.
const Version = 1

const magic = "registry snapshot\n"

// The kinds of parts.
const (
	kindHeader = 'H'
	kindState  = 'S'
	kindEnd    = 'E'
)

const (
	headSize = 1 + 4 + 8
	maxPart  = 1 << 20
	// partSize is how much of the state the written parts have.
	partSize = 256 << 10
)

// Write writes a state. The caller sets those fields of the header that are not about
// the state.
func Write(w io.Writer, state *fsm.State, about *fsmpb.BackupHeader) error {
	state = state.WithoutStaged()
	if _, err := io.WriteString(w, magic); err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}
	parts := &partWriter{w: w}
	header, err := proto.Marshal(headerOf(state, about))
	if err == nil {
		err = parts.write(kindHeader, header)
	}
	if err == nil {
		out := bufio.NewWriterSize(stateWriter{parts}, partSize)
		if err = state.WriteSnapshot(out); err == nil {
			err = out.Flush()
		}
	}
	if err == nil {
		err = parts.write(kindEnd, nil)
	}
	if err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}
	return nil
}

func headerOf(s *fsm.State, about *fsmpb.BackupHeader) *fsmpb.BackupHeader {
	h := proto.Clone(about).(*fsmpb.BackupHeader)
	h.Version, h.Index, h.Term, h.Digest = Version, s.Index(), s.Term(), s.Digest()
	h.Groups, h.Members = uint64(s.GroupCount()), uint64(s.MemberCount())
	h.Nodes, h.Tokens, h.Fences = uint64(s.NodeCount()), uint64(s.TokenCount()), uint64(s.FenceCount())
	return h
}

type partWriter struct {
	w      io.Writer
	number uint64
	buf    []byte
}

func (p *partWriter) write(kind byte, data []byte) error {
	p.buf = append(appendHead(p.buf[:0], kind, p.number, data), data...)
	p.number++
	_, err := p.w.Write(p.buf)
	return err
}

func appendHead(b []byte, kind byte, number uint64, data []byte) []byte {
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return binary.LittleEndian.AppendUint64(b, checksum(kind, number, uint32(len(data)), data))
}

func checksum(kind byte, number uint64, length uint32, data []byte) uint64 {
	head := binary.LittleEndian.AppendUint64([]byte{kind}, number)
	sum := xxhash.New()
	_, _ = sum.Write(binary.LittleEndian.AppendUint32(head, length)) // a hash never fails
	_, _ = sum.Write(data)
	return sum.Sum64()
}

// stateWriter makes parts of what a buffer of partSize writes.
type stateWriter struct{ *partWriter }

func (s stateWriter) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += partSize {
		if err := s.write(kindState, b[n:min(n+partSize, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}
