package backup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
)

var (
	// ErrFormat: it is no snapshot file, or one of another version.
	ErrFormat = errors.New("not a snapshot file that this version reads")
	// ErrDamaged: the file is not what was written.
	ErrDamaged = errors.New("snapshot file is damaged")
)

// File is a snapshot file.
type File struct {
	Header *fsmpb.BackupHeader
	State  *fsm.State
	Parts  uint64 // with header and end
	Size   int64  // in bytes
}

// Read reads and checks a file. Its errors are [ErrFormat] and [ErrDamaged], those of r,
// and *[fsm.FieldError] for a value out of its limit.
func Read(r io.Reader) (*File, error) {
	parts, err := open(r)
	if err != nil {
		return nil, err
	}
	state, err := fsm.ReadSnapshot(parts)
	if parts.err != nil { // it says where
		return nil, parts.err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := checkHeader(parts.header, state); err != nil {
		return nil, err
	}
	if err := fsm.New().State().WithLevel(fsm.NewestLevel).CheckRestore(state); err != nil {
		return nil, err
	}
	return &File{Header: parts.header, State: state, Parts: parts.number, Size: parts.offset}, nil
}

// ReadHeader reads and checks the header alone.
func ReadHeader(r io.Reader) (*fsmpb.BackupHeader, error) {
	parts, err := open(r)
	if err != nil {
		return nil, err
	}
	return parts.header, nil
}

// checkHeader compares what the header says with the state.
func checkHeader(h *fsmpb.BackupHeader, s *fsm.State) error {
	if h.Digest != s.Digest() {
		return fmt.Errorf("%w: its state has digest %016x, the header says %016x", ErrDamaged, s.Digest(), h.Digest)
	}
	if want := headerOf(s, h); !proto.Equal(want, h) {
		return fmt.Errorf("%w: the header says %v, of its state that is %v", ErrDamaged, h, want)
	}
	return nil
}

// partReader reads the state of a file.
type partReader struct {
	r      *bufio.Reader
	header *fsmpb.BackupHeader
	number uint64 // of the next part
	offset int64  // of the next byte
	left   []byte // of the last part
	buf    []byte
	err    error // the first one, but for the end
}

// open reads up to the header.
func open(r io.Reader) (*partReader, error) {
	p := &partReader{r: bufio.NewReaderSize(r, 64<<10)}
	start := make([]byte, len(magic))
	n, err := io.ReadFull(p.r, start)
	p.offset = int64(n)
	if n < len(magic) && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if string(start) != magic {
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrFormat, magic)
	}
	_, data, err := p.next()
	if err != nil {
		return nil, err
	}
	p.header = &fsmpb.BackupHeader{}
	if err := proto.Unmarshal(data, p.header); err != nil {
		return nil, fmt.Errorf("%w: part 0 is no header: %w", ErrDamaged, err)
	}
	if p.header.Version != Version {
		return nil, fmt.Errorf("%w: its format has version %d, this version reads %d", ErrFormat, p.header.Version, Version)
	}
	return p, nil
}

// Read implements io.Reader for the records of the state. It ends with io.EOF after the
// end of a whole file.
func (p *partReader) Read(b []byte) (int, error) {
	for len(p.left) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		kind, data, err := p.next()
		switch {
		case err != nil:
			p.err = err
		case kind == kindState:
			p.left = data
		default:
			if _, err := p.r.ReadByte(); err == io.EOF {
				return 0, io.EOF
			}
			p.err = fmt.Errorf("%w: something follows its end at byte %d", ErrDamaged, p.offset)
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// next reads a part. Its data is valid until the next call.
func (p *partReader) next() (kind byte, data []byte, err error) {
	var head [headSize]byte
	if err := p.full(head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.LittleEndian.Uint32(head[1:])
	if length > maxPart {
		return 0, nil, p.damaged("has %d bytes, at most %d are allowed", length, maxPart)
	}
	if cap(p.buf) < int(length) {
		p.buf = make([]byte, length)
	}
	data = p.buf[:length]
	if err := p.full(data); err != nil {
		return 0, nil, err
	}
	if sum := checksum(head[0], p.number, length, data); sum != binary.LittleEndian.Uint64(head[5:]) {
		return 0, nil, p.damaged("does not have its checksum")
	}
	if !p.expects(head[0], length) {
		return 0, nil, p.damaged("is of kind %q with %d bytes, which does not belong there", head[0], length)
	}
	p.number++
	p.offset += int64(headSize + len(data))
	return head[0], data, nil
}

// expects reports whether the next part may be of that kind and length.
func (p *partReader) expects(kind byte, length uint32) bool {
	switch kind {
	case kindHeader:
		return p.number == 0
	case kindState:
		return p.number > 0
	case kindEnd:
		return p.number > 0 && length == 0
	}
	return false
}

// full fills b.
func (p *partReader) full(b []byte) error {
	n, err := io.ReadFull(p.r, b)
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return p.damaged("was cut off, %d bytes are missing of it at least", len(b)-n)
	}
	return err
}

// damaged is about the next part.
func (p *partReader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: part %d, at byte %d, %s", ErrDamaged, p.number, p.offset, fmt.Sprintf(format, args...))
}
