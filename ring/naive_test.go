package ring

import (
	"encoding/binary"
	"math/big"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// naive is the specification of the package comment written down as plainly as possible: strings,
// sorting, linear search and big integers. It shares no code with the ring.
type naive struct {
	params  Params
	members []Member // by id
	points  []naivePoint
	bound   int // in force
}

type naivePoint struct {
	hash      uint64
	id, owner string
	index     int
}

// naiveHash is the hash of a point's name. Tests replace it together with appendPointHashes.
var naiveHash = func(name string) uint64 { return xxhash.Sum64([]byte(name)) }

func newNaive(p Params, members []Member) *naive {
	n := &naive{params: p, members: append([]Member(nil), members...)}
	sort.Slice(n.members, func(i, j int) bool { return n.members[i].ID < n.members[j].ID })
	for _, m := range n.members {
		if m.State == Draining {
			continue
		}
		for i := 0; i < p.VirtualNodes*m.Weight; i++ {
			n.points = append(n.points, naivePoint{naiveHash(m.ID + "_" + strconv.Itoa(i)), m.ID, m.ID, i})
		}
	}
	sort.Slice(n.points, func(i, j int) bool {
		a, b := n.points[i], n.points[j]
		if a.hash != b.hash {
			return a.hash < b.hash
		}
		if a.id != b.id {
			return a.id < b.id
		}
		return a.index < b.index
	})
	n.applyBound()
	return n
}

// position returns the index of the first point at or after a hash.
func (n *naive) position(hash uint64) int {
	for i, p := range n.points {
		if p.hash >= hash {
			return i
		}
	}
	return 0
}

func (n *naive) owner(hash uint64) string {
	if len(n.points) == 0 {
		return ""
	}
	return n.points[n.position(hash)].owner
}

func (n *naive) owners(hash uint64, count int) (ids []string) {
	if len(n.points) == 0 || count <= 0 {
		return nil
	}
	at := n.position(hash)
	ids = []string{n.points[at].owner}
	for i := range n.points {
		id := n.points[(at+i)%len(n.points)].id
		known := false
		for _, other := range ids {
			known = known || other == id
		}
		if !known && len(ids) < count {
			ids = append(ids, id)
		}
	}
	return ids
}

// arc is the number of hashes that belong to a point.
func (n *naive) arc(i int) *big.Int {
	whole := new(big.Int).Lsh(big.NewInt(1), 64)
	if i > 0 {
		return new(big.Int).Sub(big.NewInt(0).SetUint64(n.points[i].hash), big.NewInt(0).SetUint64(n.points[i-1].hash))
	}
	last := new(big.Int).SetUint64(n.points[len(n.points)-1].hash)
	return whole.Sub(whole, last).Add(whole, new(big.Int).SetUint64(n.points[0].hash))
}

func (n *naive) shares() map[string]*big.Int {
	shares := map[string]*big.Int{}
	for _, m := range n.members {
		shares[m.ID] = new(big.Int)
	}
	for i, p := range n.points {
		shares[p.owner].Add(shares[p.owner], n.arc(i))
	}
	return shares
}

func (n *naive) applyBound() {
	n.bound = n.params.Bound
	if n.bound == 0 || len(n.points) == 0 {
		return
	}
	for !n.tryBound() {
		for i := range n.points {
			n.points[i].owner = n.points[i].id
		}
		n.bound = 1000 + 2*(n.bound-1000)
	}
}

func (n *naive) tryBound() bool {
	total := 0
	for _, m := range n.members {
		if m.State != Draining {
			total += m.Weight
		}
	}
	shares, limits := n.shares(), map[string]*big.Int{}
	var shed []int
	for _, m := range n.members {
		limit := new(big.Int).Lsh(big.NewInt(int64(n.bound*m.Weight)), 64)
		limits[m.ID] = limit.Div(limit, big.NewInt(int64(1000*total)))
		for index := n.params.VirtualNodes*m.Weight - 1; index >= 0 && shares[m.ID].Cmp(limit) > 0; index-- {
			for i, p := range n.points {
				if p.id == m.ID && p.index == index && n.arc(i).Sign() > 0 {
					shares[m.ID].Sub(shares[m.ID], n.arc(i))
					shed = append(shed, i)
				}
			}
		}
	}
	mix := func(i int) uint64 {
		return xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, n.points[i].hash))
	}
	sort.Slice(shed, func(a, b int) bool { return mix(shed[a]) < mix(shed[b]) })
	for _, i := range shed {
		placed := false
		for step := 1; step <= 4096 && step < len(n.points) && !placed; step++ {
			id := n.points[(i+step)%len(n.points)].id
			if after := new(big.Int).Add(shares[id], n.arc(i)); after.Cmp(limits[id]) <= 0 {
				shares[id], n.points[i].owner, placed = after, id, true
			}
		}
		if !placed {
			return false
		}
	}
	return true
}

// fingerprint looks at the inputs alone, so that it needs no points.
func (n *naive) fingerprint() uint64 {
	count, sum := 0, new(big.Int)
	for _, m := range n.members {
		if m.State != Draining {
			hash := xxhash.Sum64([]byte(string([]byte{byte(len(m.ID))}) + m.ID + naiveBytes(n.params.VirtualNodes*m.Weight)))
			sum.Add(sum, new(big.Int).SetUint64(hash))
			count++
		}
	}
	sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 64))
	text := naiveBytes(1) + naiveBytes(n.params.VirtualNodes) + naiveBytes(n.params.Bound) + naiveBytes(count)
	text += naiveBytes(int(sum.Uint64()&0xffffffff)) + naiveBytes(int(sum.Uint64()>>32))
	return xxhash.Sum64([]byte(text))
}

// naiveBytes is a u32, little endian.
func naiveBytes(v int) string {
	return string([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

func (n *naive) digest() uint64 {
	var out []byte
	var ids []string
	for _, m := range n.members {
		if m.State != Draining {
			ids = append(ids, m.ID)
		}
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(ids)))
	for _, id := range ids {
		out = append(out, byte(len(id)))
		out = append(out, id...)
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(n.points)))
	for _, p := range n.points {
		out = binary.LittleEndian.AppendUint64(out, p.hash)
		out = binary.LittleEndian.AppendUint32(out, uint32(sort.SearchStrings(ids, p.owner)))
	}
	return xxhash.Sum64(out)
}
