package main

import (
	"hash/crc32"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// The contenders of this file are written from the description of their algorithms, because their
// packages cannot be imported: one is internal, two are not on the module proxy.

// grpcRing follows the ring_hash balancer of gRPC (proposal A42): the ring has about least, at most most
// points, whatever the number of members, divided by weight. A point is looked up by halving over pointers.
type grpcRing struct {
	ids         []string
	least, most float64
	points      []*grpcPoint
}

type grpcPoint struct {
	index int
	hash  uint64
	key   string
	_     [2]uint64 // the rest of a 56-byte entry
}

func newGRPC(least, most int) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		g := &grpcRing{ids: slices.Clone(ids), least: float64(least), most: float64(most)}
		g.rebuild()
		return g, nil
	}
}

func (g *grpcRing) rebuild() {
	slices.Sort(g.ids)
	n := float64(len(g.ids))
	size := math.Min(math.Ceil(g.least/n)*n, g.most)
	g.points = nil
	done, target := 0.0, 0.0
	for _, id := range g.ids {
		target += size / n
		for i := 0; done < target; i++ {
			h := xxhash.Sum64String(id + "_" + strconv.Itoa(i))
			g.points = append(g.points, &grpcPoint{hash: h, key: id})
			done++
		}
	}
	sort.Slice(g.points, func(i, j int) bool { return g.points[i].hash < g.points[j].hash })
	for i, p := range g.points {
		p.index = i
	}
}

func (g *grpcRing) lookup(key string) string {
	h := xxhash.Sum64String(key)
	i := sort.Search(len(g.points), func(i int) bool { return g.points[i].hash >= h })
	if i == len(g.points) {
		i = 0
	}
	return g.points[i].key
}

func (g *grpcRing) join(id string) {
	g.ids = append(g.ids, id)
	g.rebuild()
}

// seedRing follows werbenhu/chash: 10,000 points a member, CRC32 of decimal(i) + id, all sorted again
// at each insertion; a key belongs to the point before it.
type seedRing struct {
	circle []uint32
	owners map[uint32]*string
}

func newSeed(ids []string) (contender, error) {
	s := &seedRing{owners: map[uint32]*string{}}
	for _, id := range ids {
		s.join(id)
	}
	return s, nil
}

func (s *seedRing) join(id string) {
	for i := range 10_000 {
		h := crc32.ChecksumIEEE([]byte(strconv.Itoa(i) + id))
		s.owners[h] = &id
		s.circle = append(s.circle, h)
	}
	sort.Slice(s.circle, func(i, j int) bool { return s.circle[i] < s.circle[j] })
}

func (s *seedRing) lookup(key string) string {
	var short [64]byte
	h := crc32.ChecksumIEEE(append(short[:0], key...))
	i := sort.Search(len(s.circle), func(i int) bool { return s.circle[i] > h })
	if i == 0 {
		i = len(s.circle)
	}
	return *s.owners[s.circle[i-1]]
}

// maglev follows section 3.4 of the Maglev paper (NSDI 2016): each member walks a permutation of the
// table, and they take turns at the next free slot.
type maglev struct {
	ids   []string
	table []int32
	size  uint64
}

func newMaglev(size uint64) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		m := &maglev{ids: slices.Clone(ids), size: size}
		m.fill()
		return m, nil
	}
}

func (m *maglev) fill() {
	slices.Sort(m.ids)
	m.table = slices.Repeat([]int32{-1}, int(m.size))
	next, skip := make([]uint64, len(m.ids)), make([]uint64, len(m.ids))
	for i, id := range m.ids {
		next[i] = xxhash.Sum64String(id+"/offset") % m.size
		skip[i] = xxhash.Sum64String(id+"/skip")%(m.size-1) + 1
	}
	for filled := uint64(0); filled < m.size; {
		for i := 0; i < len(m.ids) && filled < m.size; i++ {
			for m.table[next[i]] >= 0 {
				next[i] = (next[i] + skip[i]) % m.size
			}
			m.table[next[i]] = int32(i)
			filled++
		}
	}
}

func (m *maglev) lookup(key string) string {
	return m.ids[m.table[xxhash.Sum64String(key)%m.size]]
}

func (m *maglev) join(id string) {
	m.ids = append(m.ids, id)
	m.fill()
}
