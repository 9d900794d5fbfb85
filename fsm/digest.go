package fsm

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A digest is the sum modulo 2^64 of the XXH64 of every record. A change subtracts
// the old record and adds the new one, so it costs the record that changed and not
// the state.
//
// Each record starts with a tag, and every string with its length, so that no
// two different records have the same bytes.
const (
	tagGroup byte = iota + 1
	tagMember
	tagNode
	tagFence
	tagTerm
	tagToken
	tagStaged
	tagLeases
	tagLevel byte = 40
)

// record is a byte string under construction.
type record []byte

func (r record) str(s string) record {
	r = binary.AppendUvarint(r, uint64(len(s)))
	return append(r, s...)
}

func (r record) num(n uint64) record { return binary.AppendUvarint(r, n) }

func (r record) sum() uint64 { return xxhash.Sum64(r) }

func memberDigest(group string, m *Member) uint64 {
	r := make(record, 0, 256)
	r = append(r, tagMember).str(group).str(m.ID).str(m.Addr)
	r = r.num(uint64(m.Weight)).num(uint64(len(m.Meta)))
	for _, p := range m.Meta {
		r = r.str(p.Key).str(p.Value)
	}
	r = r.num(uint64(m.State)).str(m.Instance).num(m.LeaseID).num(m.Epoch)
	r = r.num(uint64(m.TTL)).num(m.CreatedIndex).num(m.ModifiedIndex)
	r = r.num(uint64(m.RegisteredMS))
	if m.Hold != 0 || m.Token != "" { // keeps the digest of states without them
		r = r.num(uint64(m.Hold))
	}
	if m.Token != "" {
		r = r.str(m.Token)
	}
	return r.sum()
}

// groupHeadDigest covers the group without its members.
func groupHeadDigest(g *Group) uint64 {
	r := append(make(record, 0, 64), tagGroup).str(g.Name)
	return r.num(uint64(g.Params.VirtualNodes)).num(uint64(g.Params.Bound)).num(g.Revision).sum()
}

func nodeDigest(n *Node) uint64 {
	r := append(make(record, 0, 128), tagNode).str(n.ID).str(n.Bind)
	r = r.str(n.Addr).str(n.Version).str(n.Incarnation)
	if n.Nonvoter {
		r = r.num(1)
	}
	if n.Zone != "" { // keeps the digest of nodes without one; the 2 tells it from num(1)
		r = r.num(2).str(n.Zone)
	}
	return r.sum()
}

func fenceDigest(f *Fence) uint64 {
	r := append(make(record, 0, 128), tagFence).str(f.Group).str(f.ID)
	return r.str(f.Instance).num(f.Index).sum()
}

func termDigest(term uint64, leader string) uint64 {
	return append(make(record, 0, 64), tagTerm).num(term).str(leader).sum()
}

func tokenDigest(t *Token) uint64 {
	r := append(make(record, 0, 256), tagToken).str(t.ID).str(t.Name).str(string(t.Hash[:]))
	r = r.num(uint64(len(t.Grants)))
	for _, g := range t.Grants {
		r = r.num(uint64(g.Rights)).str(g.Prefix)
	}
	r = r.num(uint64(t.ExpiresMS)).num(uint64(t.CreatedMS))
	r = r.str(string(t.PreviousHash[:])).num(uint64(t.PreviousExpiresMS))
	return r.num(t.CreatedIndex).num(t.ModifiedIndex).sum()
}

func stagedDigest(id uint64, number int, data []byte) uint64 {
	return append(make(record, 0, 64), tagStaged).num(id).num(uint64(number)).num(xxhash.Sum64(data)).sum()
}

// leasesDigest keeps the digest of states in which no restoration gave out lease ids.
func leasesDigest(restored uint64) uint64 {
	if restored == 0 {
		return 0
	}
	return append(make(record, 0, 16), tagLeases).num(restored).sum()
}

// levelDigest keeps the digest of states at level 1, which 0.1.0 has no word for.
func levelDigest(level uint32) uint64 {
	if level <= 1 {
		return 0
	}
	return append(make(record, 0, 16), tagLevel).num(uint64(level)).sum()
}
