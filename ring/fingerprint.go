package ring

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Version is the version of the ring's specification in the package comment. It is part of every
// fingerprint, so rings of two formulas never share one.
const Version = 1

// Inputs is the sum of the members that have points, for the fingerprint. A change of a member costs two
// hashes, whatever the number of members. The zero value is that of a set without members.
type Inputs struct {
	members uint32 // that have points
	sum     uint64 // of inputHash, modulo 2^64
}

// Add counts a member with so many points. One without points changes nothing.
func (in *Inputs) Add(id string, points int) {
	if points > 0 {
		in.members++
		in.sum += inputHash(id, points)
	}
}

// Remove takes out a member that Add counted with so many points.
func (in *Inputs) Remove(id string, points int) {
	if points > 0 {
		in.members--
		in.sum -= inputHash(id, points)
	}
}

// Fingerprint returns the fingerprint of the members and the parameters, as the package comment
// specifies it: XXH64 over, little endian, u32 Version, u32 virtual nodes, u32 bound, u32 members with
// points, u64 sum of their hashes.
func (in Inputs) Fingerprint(p Params) uint64 {
	le := binary.LittleEndian
	var buf [24]byte
	le.PutUint32(buf[0:], Version)
	le.PutUint32(buf[4:], uint32(p.VirtualNodes))
	le.PutUint32(buf[8:], uint32(p.Bound))
	le.PutUint32(buf[12:], in.members)
	le.PutUint64(buf[16:], in.sum)
	return xxhash.Sum64(buf[:])
}

// inputHash is XXH64 over u8 length of the id, the id, u32 points, little endian.
func inputHash(id string, points int) uint64 {
	var buf [1 + MaxIDLength + 4]byte
	b := append(append(buf[:0], uint8(len(id))), id...)
	return xxhash.Sum64(binary.LittleEndian.AppendUint32(b, uint32(points)))
}

// InputsOf returns the sum of the members. Their ids are at most MaxIDLength bytes.
func InputsOf(p Params, members []Member) Inputs {
	var in Inputs
	for _, m := range members {
		in.Add(m.ID, m.Points(p.VirtualNodes))
	}
	return in
}

// Fingerprint returns the fingerprint of the ring's inputs. Equal fingerprints mean equal owners of every
// key, unless ids were chosen so that two sums collide. It does not cover the points; see Digest. Each
// call hashes every member.
func (r *Ring) Fingerprint() uint64 { return InputsOf(r.params, r.members).Fingerprint(r.params) }
