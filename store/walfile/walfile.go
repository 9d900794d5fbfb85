// Package walfile reads the tail segment of a hashicorp/raft-wal log and finds the end
// of its committed part.
//
// raft-wal verifies only the checksum of the last batch in the tail, and takes any
// unreadable frame for the end of an unfinished write. So damage in the middle silently
// truncates the log, and an unfinished seal leaves a segment that accepts no entries.
// This package verifies every batch. It distinguishes an unfinished write from damage
// where it can: an unfinished batch is the last one, so a valid batch after an invalid
// one means damage.
//
//	tail, err := walfile.Walk(file, size, walfile.ID{Base: 1, Segment: 1, Codec: codec})
//	// tail.Entries are committed; what follows tail.End is not
package walfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrDamaged is the error for every damage.
var ErrDamaged = errors.New("damaged segment")

// The format, of version 0; integers are little-endian. A file is a header and
// frames. Frames are padded to a multiple of 8 bytes, and zeros follow the last.
//
//	header  {magic u32, 0 u24, version u8, base index u64, segment id u64, codec u64}
//	entry   {1 u8, 0 u24, length u32, payload}
//	index   {2 u8, 0 u24, length u32, position of each entry u32…}: the segment is sealed
//	commit  {3 u8, 0 u24, CRC-32C of all bytes since the last commit, of the header too u32}
const (
	magic      = 0x58eb6b0d
	headerSize = 32
	frameSize  = 8
	typeEntry  = 1
	typeIndex  = 2
	typeCommit = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID is how the list of segments describes a segment.
type ID struct{ Base, Segment, Codec uint64 }

// Tail is the committed part of a segment.
type Tail struct {
	Entries uint64
	End     int64 // everything after it is not committed
	Index   int64 // position of the index; 0: not sealed
}

// Walk reads a segment that is not sealed in the list. Errors are an [ErrDamaged], or
// those of r.
func Walk(r io.ReaderAt, size int64, id ID) (Tail, error) {
	w := walker{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10), size: size}
	header := make([]byte, headerSize)
	if err := w.take(header); err != nil {
		return Tail{}, ignoreEnd(err)
	}
	if err := ignoreEnd(w.frames()); err != nil {
		return Tail{}, err
	}
	if w.good.End > 0 && !id.matches(header) {
		return Tail{}, fmt.Errorf("%w: the header belongs to another segment", ErrDamaged)
	}
	return w.good, nil
}

func (id ID) matches(header []byte) bool {
	return binary.LittleEndian.Uint32(header) == magic && binary.LittleEndian.Uint32(header[4:]) == 0 &&
		binary.LittleEndian.Uint64(header[8:]) == id.Base && binary.LittleEndian.Uint64(header[16:]) == id.Segment &&
		binary.LittleEndian.Uint64(header[24:]) == id.Codec
}

// ignoreEnd ignores the end of the file: it may be anywhere.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

type walker struct {
	r    *bufio.Reader
	size int64

	at     int64
	crc    uint32 // of the batch so far
	frame  int    // frames in the batch so far
	seen   Tail   // including the current batch
	good   Tail
	broken int64 // end of the first batch with a wrong checksum; 0: none
}

// take reads the next bytes of the batch.
func (w *walker) take(b []byte) error {
	if _, err := io.ReadFull(w.r, b); err != nil {
		return err
	}
	w.at += int64(len(b))
	w.crc = crc32.Update(w.crc, castagnoli, b)
	return nil
}

// frames reads up to the first invalid frame.
func (w *walker) frames() error {
	var head [frameSize]byte
	payload := make([]byte, 4<<10)
	for {
		sum := w.crc
		if err := w.take(head[:]); err != nil {
			return err
		}
		value := binary.LittleEndian.Uint32(head[4:])
		switch head[0] {
		case typeEntry:
			w.seen.Entries++
		case typeIndex:
			w.seen.Index = w.at
		case typeCommit:
			if err := w.commit(sum == value); err != nil {
				return err
			}
			continue
		default:
			return nil
		}
		w.frame++
		left := (int64(value) + frameSize - 1) / frameSize * frameSize
		if left > w.size-w.at {
			return nil
		}
		for left > 0 {
			n := min(left, int64(len(payload)))
			if err := w.take(payload[:n]); err != nil {
				return err
			}
			left -= n
		}
	}
}

// commit ends a batch.
func (w *walker) commit(valid bool) error {
	switch {
	case !valid && w.broken == 0:
		w.broken = w.at
	case valid && w.broken == 0:
		w.good = w.seen
		w.good.End = w.at
	case valid && w.frame > 0:
		return fmt.Errorf("%w: the batch that ends at %d does not match its checksum, and a valid one follows", ErrDamaged, w.broken)
	}
	w.crc, w.frame = 0, 0
	return nil
}
