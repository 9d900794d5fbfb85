package ring

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Digest returns a digest of the points, computed at the first call: XXH64 over the ids that have points
// and over the ordered list of (hash, owner), in the byte layout of the package comment. It shows whether
// two rings have the same points. For a large ring the first call takes longer than a change of the ring.
func (r *Ring) Digest() uint64 { return r.digestOnce() }

// Verify reports whether the points in memory still have that digest; it costs as much as computing it.
// It does not find damage from before the first call of Digest or Verify.
func (r *Ring) Verify() bool { return r.digest() == r.digestOnce() }

// digest writes to XXH64, all integers little endian:
//
//	u32 members with points; for each, in the order of ids: u8 length of the id, the id
//	u32 points; for each, in ring order: u64 hash, u32 number of the owner in the list above
func (r *Ring) digest() uint64 {
	d := xxhash.New()
	le := binary.LittleEndian
	number := make([]uint32, len(r.members))
	buf := le.AppendUint32(nil, uint32(r.owners))
	next := uint32(0)
	for m, member := range r.members {
		if member.State == Draining {
			continue
		}
		number[m] = next
		next++
		buf = append(append(buf, uint8(len(member.ID))), member.ID...)
	}
	buf = le.AppendUint32(buf, uint32(r.table.n))
	d.Write(buf) // a Digest's Write never fails
	r.table.writePoints(d, number)
	return d.Sum64()
}

// writePoints writes every point in order: u64 hash, u32 number of its owner. It has its own loop over
// the buckets for speed: the digest of a large ring takes longer than a change of the ring.
func (t *table) writePoints(d *xxhash.Digest, number []uint32) {
	const size = 12
	var buf [1024 * size]byte
	mask, b, o := t.mask(), t.b&63, t.o&63
	n := 0
	for bucket := range 1 << t.b {
		from, to := t.start[bucket], t.start[bucket+1]
		top := uint64(bucket) << ((64 - b) & 63)
		heads, tails := t.head[from:to], t.tail[from:to]
		for i, head := range heads {
			rest := uint64(head&^mask)<<32 | uint64(tails[i])<<o
			point := buf[n : n+size : n+size]
			binary.LittleEndian.PutUint64(point, top|rest>>b)
			binary.LittleEndian.PutUint32(point[8:], number[head&mask])
			if n += size; n == len(buf) {
				d.Write(buf[:])
				n = 0
			}
		}
	}
	d.Write(buf[:n])
}

// Bytes returns the memory of the ring in bytes: at most 9 for a point, 32 and its id for a member,
// and 8 for each arc that the bound moved.
func (r *Ring) Bytes() int {
	n := r.table.bytes() + 8*len(r.moved)
	for _, m := range r.members {
		n += 32 + len(m.ID)
	}
	return n
}
