// Package boltfile verifies the pages of a bbolt file without bbolt.
//
// bbolt trusts its pages: except the two meta pages they have no checksums. A damaged
// page makes it panic, on goroutines whose panic cannot be recovered, or read unmapped
// memory. This package follows every page that bbolt would follow, and checks every
// position and length before use. bbolt reads a file that it accepts without a fault.
// It does not verify the content of keys and values, which need checksums of their own.
//
//	err := boltfile.Check(file, size, func(bucket, key, value []byte) error {
//		keys++
//		return nil
//	})
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// ErrDamaged is the error for every damage.
var ErrDamaged = errors.New("damaged bbolt file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// The format, of version 2. A page is a header {id u64, flags u16, count u16,
// overflow u32} and its elements; overflow pages follow it without a header. All
// integers are in the byte order of the machine.
//
//	meta page      {magic u32, version u32, page size u32, flags u32, root {page u64, sequence u64},
//	               freelist u64, pages u64, transaction u64, FNV-1a of all that u64}
//	branch element {position u32, key size u32, page u64}, the position from the element's own
//	leaf element   {flags u32, position u32, key size u32, value size u32}
//	bucket         a leaf value {root page u64, sequence u64}; with root 0 its only page follows
const (
	magic          = 0xED0CDAED
	version        = 2
	headerSize     = 16
	elementSize    = 16
	bucketSize     = 16
	metaSize       = 64
	minPageSize    = 512
	maxPageSize    = 64 << 10
	noFreelist     = ^uint64(0)
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	flagBucket     = 0x01 // of a leaf element
	maxDepth       = 64
	maxPageExtents = 256 << 20 // bytes of one page with its overflow
)

var order = binary.NativeEndian

// Visit is called with every key and value of a bucket, in the order of the keys. The
// slices are valid during the call.
type Visit func(bucket, key, value []byte) error

// Check reads the file and calls visit for the content of its buckets, which have no
// nested buckets. Errors are an [ErrDamaged], those of r, or visit's.
func Check(r io.ReaderAt, size int64, visit Visit) error {
	m, err := readMeta(r, size)
	if err != nil {
		return err
	}
	if m.pages < 2 || m.pages > uint64(size)/uint64(m.pageSize) {
		return damaged("it has %d pages of %d bytes by its meta page, but is %d bytes long", m.pages, m.pageSize, size)
	}
	c := &checker{r: r, meta: m, seen: make([]uint64, m.pages/64+1), visit: visit}
	c.mark(0, 1)
	c.mark(1, 1)
	if m.freelist != noFreelist {
		p, err := c.page(m.freelist)
		if err != nil {
			return fmt.Errorf("freelist: %w", err)
		}
		if p.flags != flagFreelist {
			return damaged("page %d is no freelist", m.freelist)
		}
	}
	return c.tree(m.root, nil, bounds{}, 0)
}

type meta struct {
	pageSize              uint32
	root, freelist, pages uint64
	txid                  uint64
}

// readMeta takes the newer of the two meta pages that are valid, as bbolt does.
func readMeta(r io.ReaderAt, size int64) (meta, error) {
	var best meta
	found := false
	for _, at := range metaPositions(r, size) {
		m, ok := metaAt(r, size, at)
		if ok && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	if !found {
		return meta{}, damaged("no meta page is valid")
	}
	return best, nil
}

// metaPositions are the possible positions of meta pages: the second one is a page after
// the first, and only a valid meta page has the page size.
func metaPositions(r io.ReaderAt, size int64) []int64 {
	if m, ok := metaAt(r, size, 0); ok {
		return []int64{0, int64(m.pageSize)}
	}
	var at []int64
	for n := int64(minPageSize); n <= maxPageSize; n *= 2 {
		if m, ok := metaAt(r, size, n); ok && int64(m.pageSize) == n {
			at = append(at, n)
		}
	}
	return at
}

func metaAt(r io.ReaderAt, size, at int64) (meta, bool) {
	buf := make([]byte, headerSize+metaSize)
	if at+int64(len(buf)) > size {
		return meta{}, false
	}
	if _, err := r.ReadAt(buf, at); err != nil {
		return meta{}, false
	}
	b := buf[headerSize:] // bbolt accepts a meta page by its checksum and ignores its header
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSize-8]) // a hash never fails
	m := meta{
		pageSize: order.Uint32(b[8:]), root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]),
		pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}
	ok := order.Uint32(b) == magic && order.Uint32(b[4:]) == version && order.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= minPageSize && m.pageSize <= maxPageSize && m.pageSize&(m.pageSize-1) == 0
	return m, ok
}

type checker struct {
	r     io.ReaderAt
	meta  meta
	seen  []uint64 // a bit for each page
	visit Visit
}

// mark marks pages as used; false if one was used before.
func (c *checker) mark(id, n uint64) bool {
	for i := id; i < id+n; i++ {
		if c.seen[i/64]&(1<<(i%64)) != 0 {
			return false
		}
		c.seen[i/64] |= 1 << (i % 64)
	}
	return true
}

// page is a page in memory, with its overflow pages.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // from the header on
}

func parse(id uint64, data []byte) page {
	return page{id: id, flags: order.Uint16(data[8:]), count: int(order.Uint16(data[10:])), data: data}
}

// page reads a page and marks it as used.
func (c *checker) page(id uint64) (page, error) {
	if id < 2 || id >= c.meta.pages {
		return page{}, damaged("page %d is outside of 2 to %d", id, c.meta.pages-1)
	}
	at := int64(id) * int64(c.meta.pageSize)
	var header [headerSize]byte
	if _, err := c.r.ReadAt(header[:], at); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	if own := order.Uint64(header[:]); own != id {
		return page{}, damaged("page %d has the id %d", id, own)
	}
	n := uint64(order.Uint32(header[12:])) + 1
	if n > c.meta.pages-id || n*uint64(c.meta.pageSize) > maxPageExtents {
		return page{}, damaged("page %d has %d pages of overflow", id, n-1)
	}
	if !c.mark(id, n) {
		return page{}, damaged("page %d is used twice", id)
	}
	data := make([]byte, n*uint64(c.meta.pageSize))
	if _, err := c.r.ReadAt(data, at); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	return parse(id, data), nil
}

// element is the i-th element and the bytes at its position.
func (p page) element(i int, posAt int) (head, rest []byte, err error) {
	start := headerSize + i*elementSize
	if start+elementSize > len(p.data) {
		return nil, nil, damaged("page %d has no room for %d elements", p.id, p.count)
	}
	head = p.data[start : start+elementSize]
	at := uint64(start) + uint64(order.Uint32(head[posAt:]))
	if at < uint64(headerSize+p.count*elementSize) || at > uint64(len(p.data)) {
		return nil, nil, damaged("page %d: element %d lies at %d", p.id, i, at)
	}
	return head, p.data[at:], nil
}

// bounds limit the keys of a page: low ≤ key < high.
type bounds struct{ low, high []byte }

func (b bounds) check(p page, i int, last, key []byte) error {
	switch {
	case i > 0 && bytes.Compare(last, key) >= 0:
		return damaged("page %d: key %d is not greater than the previous one", p.id, i)
	case b.low != nil && bytes.Compare(key, b.low) < 0, b.high != nil && bytes.Compare(key, b.high) >= 0:
		return damaged("page %d: key %d is out of bounds", p.id, i)
	}
	return nil
}

// tree checks a page and all pages below it. bucket is nil in the tree of buckets.
func (c *checker) tree(id uint64, bucket []byte, b bounds, depth int) error {
	if depth > maxDepth {
		return damaged("page %d is %d levels deep", id, depth)
	}
	p, err := c.page(id)
	if err != nil {
		return err
	}
	switch p.flags {
	case flagLeaf:
		return c.leaf(p, bucket, b)
	case flagBranch:
		return c.branch(p, bucket, b, depth)
	}
	return damaged("page %d has the type %#x", id, p.flags)
}

func (c *checker) branch(p page, bucket []byte, b bounds, depth int) error {
	if p.count == 0 {
		return damaged("page %d is a branch without pages", p.id)
	}
	keys, pages := make([][]byte, p.count), make([]uint64, p.count)
	for i := range p.count {
		head, rest, err := p.element(i, 0)
		if err != nil {
			return err
		}
		size := uint64(order.Uint32(head[4:]))
		if size > uint64(len(rest)) {
			return damaged("page %d: key %d has %d bytes", p.id, i, size)
		}
		keys[i], pages[i] = rest[:size], order.Uint64(head[8:])
		if err := b.check(p, i, keys[max(i-1, 0)], keys[i]); err != nil {
			return err
		}
	}
	for i := range p.count {
		below := bounds{low: keys[i], high: b.high}
		if i+1 < p.count {
			below.high = keys[i+1]
		}
		if err := c.tree(pages[i], bucket, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(p page, bucket []byte, b bounds) error {
	var last []byte
	for i := range p.count {
		head, rest, err := p.element(i, 4)
		if err != nil {
			return err
		}
		ksize, vsize := uint64(order.Uint32(head[8:])), uint64(order.Uint32(head[12:]))
		if ksize+vsize > uint64(len(rest)) {
			return damaged("page %d: key and value %d have %d and %d bytes", p.id, i, ksize, vsize)
		}
		key, value := rest[:ksize], rest[ksize:ksize+vsize]
		if err := b.check(p, i, last, key); err != nil {
			return err
		}
		last = key
		isBucket := order.Uint32(head) == flagBucket
		if isBucket != (bucket == nil) || order.Uint32(head) > flagBucket {
			return damaged("page %d: element %d has the flags %#x", p.id, i, order.Uint32(head))
		}
		if isBucket {
			err = c.bucket(p, key, value)
		} else {
			err = c.visit(bucket, key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) bucket(p page, name, value []byte) error {
	if len(name) == 0 || len(value) < bucketSize {
		return damaged("page %d: a bucket of %d bytes named %q", p.id, len(value), name)
	}
	if root := order.Uint64(value); root != 0 {
		return c.tree(root, name, bounds{}, 0)
	}
	if len(value) < bucketSize+headerSize {
		return damaged("page %d: bucket %q has no page", p.id, name)
	}
	inner := parse(p.id, value[bucketSize:])
	if inner.flags != flagLeaf {
		return damaged("page %d: the page in bucket %q has the type %#x", p.id, name, inner.flags)
	}
	return c.leaf(inner, name, bounds{})
}
