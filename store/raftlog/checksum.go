package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"
)

// checkedLog adds a checksum to every stored entry and verifies it on reads: bbolt has
// none, and a changed term or type would make this node's state differ. The checksum is
// in the entry's Extensions, which raft reserves for log middleware, and is removed on
// reads. Entries without one are from before there were checksums.
type checkedLog struct {
	raft.LogStore
	summed bool // all entries have a checksum
}

// entrySum covers all fields of an entry except AppendedAt, which is for metrics only.
func entrySum(l *raft.Log) uint64 {
	head := make([]byte, 0, 17)
	head = binary.LittleEndian.AppendUint64(head, l.Index)
	head = binary.LittleEndian.AppendUint64(head, l.Term)
	d := xxhash.New()
	_, _ = d.Write(append(head, byte(l.Type))) // a hash never fails
	_, _ = d.Write(l.Data)
	return d.Sum64()
}

func (s checkedLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes copies: raft still uses the originals.
func (s checkedLog) StoreLogs(logs []*raft.Log) error {
	copies, out := make([]raft.Log, len(logs)), make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = binary.LittleEndian.AppendUint64(nil, entrySum(l))
		out[i] = &copies[i]
	}
	if err := s.LogStore.StoreLogs(out); err != nil {
		return fmt.Errorf("%w%s", err, Advice(err)) // added here, because raft's cache keeps only the text
	}
	return nil
}

// GetLog returns [ErrCorrupt] for an entry that differs from what was written.
func (s checkedLog) GetLog(index uint64, l *raft.Log) error {
	err := guardPanic(func() error { return s.LogStore.GetLog(index, l) })
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return err
	case err != nil:
		return fmt.Errorf("%w: log entry %d: %w", ErrCorrupt, index, err)
	case l.Index != index:
		return fmt.Errorf("%w: log entry %d has the index %d", ErrCorrupt, index, l.Index)
	case len(l.Extensions) == 0 && !s.summed:
		return nil
	case len(l.Extensions) != 8 || binary.LittleEndian.Uint64(l.Extensions) != entrySum(l):
		return fmt.Errorf("%w: log entry %d does not match its checksum", ErrCorrupt, index)
	}
	l.Extensions = nil
	return nil
}

// guardPanic turns bbolt's panic at a damaged page, or at a page beyond the end of the
// file, into an error.
func guardPanic(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return read()
}

// checkedStable adds a checksum to term and vote. Values without one are from before
// there were checksums.
type checkedStable struct{ raft.StableStore }

// valueMark begins a value with a checksum; no term and no address begins with it.
const valueMark = "\x00\x01\x02\x03"

func valueSum(key, value []byte) uint64 {
	d := xxhash.New()
	_, _ = d.Write(append(key[:len(key):len(key)], 0)) // a hash never fails
	_, _ = d.Write(value)
	return d.Sum64()
}

func (s checkedStable) Set(key, value []byte) error {
	out := append([]byte(valueMark), value...)
	return s.StableStore.Set(key, binary.LittleEndian.AppendUint64(out, valueSum(key, value)))
}

func (s checkedStable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s checkedStable) Get(key []byte) (value []byte, err error) {
	err = guardPanic(func() error {
		value, err = s.StableStore.Get(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	rest, ok := cutPrefix(value, valueMark)
	if !ok {
		for _, c := range value {
			if c < ' ' && len(value) != 8 {
				return nil, fmt.Errorf("%w: value of %s", ErrCorrupt, key)
			}
		}
		return value, nil
	}
	if len(rest) < 8 {
		return nil, fmt.Errorf("%w: value of %s", ErrCorrupt, key)
	}
	value, sum := rest[:len(rest)-8], binary.LittleEndian.Uint64(rest[len(rest)-8:])
	if sum != valueSum(key, value) {
		return nil, fmt.Errorf("%w: value of %s does not match its checksum", ErrCorrupt, key)
	}
	return value, nil
}

func cutPrefix(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}

func (s checkedStable) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: value of %s has %d bytes", ErrCorrupt, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
