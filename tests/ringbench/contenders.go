package main

import (
	"sync/atomic"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
	"github.com/dgryski/go-rendezvous"
	"github.com/golang/groupcache/consistenthash"
	lafikl "github.com/lafikl/consistent"
	"github.com/serialx/hashring"
	stathat "stathat.com/c/consistent"

	"github.com/werbenhu/registry/ring"
)

// contender is a library with members in it. lookup may run in several goroutines, join may not.
type contender interface {
	lookup(key string) string
	join(id string)
}

// batcher is a contender that looks many keys up at once.
type batcher interface {
	batch(dst []int32, keys []string) []int32
}

// entry says how to build a contender.
type entry struct {
	name  string
	note  string
	most  int    // members; 0 is no limit
	why   string // what happens above it
	build func(ids []string) (contender, error)
}

// entries are all contenders, this ring first.
var entries = []entry{
	{"**werbenhu/registry ring**, 256 points", "", 0, "", ours(ring.Params{VirtualNodes: 256})},
	{"**werbenhu/registry ring**, 1024 points", "", 0, "", ours(ring.Params{VirtualNodes: 1024})},
	{"**werbenhu/registry ring**, 256 points, bound 1.10", "", 0, "", ours(ring.Params{VirtualNodes: 256, Bound: 1100})},
	{"werbenhu/chash, 10,000 points", "a", 100, "slow: each insertion sorts all points again", newSeed},
	{"buraksezer/consistent, 271 partitions", "", 250, "panics: not enough room to distribute partitions", newBuraksezer(271)},
	{"buraksezer/consistent, 20,011 partitions", "", 0, "", newBuraksezer(20011)},
	{"stathat/consistent, 20 points", "", 1000, "slow: each insertion sorts all points again", newStathat(20)},
	{"stathat/consistent, 256 points", "", 100, "slow: each insertion sorts all points again", newStathat(256)},
	{"serialx/hashring, weight 1", "", 0, "", newSerialx(1)},
	{"serialx/hashring, weight 256", "", 0, "", newSerialx(256)},
	{"lafikl/consistent, 10 points", "", 1000, "slow: each insertion sorts all points again", newLafikl},
	{"groupcache consistenthash, 50 points", "", 0, "", newGroupcache(50)},
	{"groupcache consistenthash, 256 points", "", 0, "", newGroupcache(256)},
	{"grpc-go ring_hash, ring of 1,024 to 4,096", "b", 0, "", newGRPC(1024, 4096)},
	{"dgryski/go-rendezvous (no ring)", "", 1000, "slow: a lookup looks at every member", newRendezvous},
	{"dgryski/go-jump (no ring)", "c", 0, "", newJump},
	{"Maglev, table of 65,537 (no ring)", "d", 1000, "the table should have 100 slots a member", newMaglev(65537)},
	{"Maglev, table of 655,373 (no ring)", "d", 0, "", newMaglev(655373)},
}

// registryRing is this module's ring, published as its users do.
type registryRing struct {
	params  ring.Params
	members []ring.Member
	ring    atomic.Pointer[ring.Ring]
}

func ours(p ring.Params) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		r := &registryRing{params: p}
		for _, id := range ids {
			r.members = append(r.members, ring.Member{ID: id, Weight: 1})
		}
		built, err := ring.New(p, r.members)
		r.ring.Store(built)
		return r, err
	}
}

func (r *registryRing) lookup(key string) string {
	now := r.ring.Load()
	return now.Member(now.Match(key)).ID
}

func (r *registryRing) batch(dst []int32, keys []string) []int32 {
	return r.ring.Load().MatchBatch(dst, keys)
}

func (r *registryRing) join(id string) {
	r.members = append(r.members, ring.Member{ID: id, Weight: 1})
	next, err := r.ring.Load().With(r.params, r.members)
	if err != nil {
		panic(err) // the ids are ours
	}
	r.ring.Store(next)
}

type xxh struct{}

func (xxh) Sum64(data []byte) uint64 { return xxhash.Sum64(data) }

type burakMember string

func (m burakMember) String() string { return string(m) }

type buraksezer struct{ *consistent.Consistent }

func newBuraksezer(partitions int) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		members := make([]consistent.Member, len(ids))
		for i, id := range ids {
			members[i] = burakMember(id)
		}
		c := consistent.Config{Hasher: xxh{}, PartitionCount: partitions, ReplicationFactor: 20, Load: 1.25}
		return buraksezer{consistent.New(members, c)}, nil
	}
}

func (b buraksezer) lookup(key string) string { return b.LocateKey([]byte(key)).String() }
func (b buraksezer) join(id string)           { b.Add(burakMember(id)) }

type stathatRing struct{ *stathat.Consistent }

func newStathat(points int) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		s := stathatRing{stathat.New()}
		s.NumberOfReplicas = points
		for _, id := range ids {
			s.Add(id)
		}
		return s, nil
	}
}

func (s stathatRing) lookup(key string) string {
	id, _ := s.Get(key) // it only fails when empty
	return id
}
func (s stathatRing) join(id string) { s.Add(id) }

type serialx struct {
	*hashring.HashRing
	weight int
}

func newSerialx(weight int) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		weights := map[string]int{}
		for _, id := range ids {
			weights[id] = weight
		}
		return &serialx{hashring.NewWithWeights(weights), weight}, nil
	}
}

func (s *serialx) lookup(key string) string {
	id, _ := s.GetNode(key)
	return id
}
func (s *serialx) join(id string) { s.HashRing = s.AddWeightedNode(id, s.weight) }

type lafiklRing struct{ *lafikl.Consistent }

func newLafikl(ids []string) (contender, error) {
	l := lafiklRing{lafikl.New()}
	for _, id := range ids {
		l.Add(id)
	}
	return l, nil
}

func (l lafiklRing) lookup(key string) string {
	id, _ := l.Get(key) // it only fails when empty
	return id
}
func (l lafiklRing) join(id string) { l.Add(id) }

type groupcache struct{ *consistenthash.Map }

func newGroupcache(points int) func([]string) (contender, error) {
	return func(ids []string) (contender, error) {
		g := groupcache{consistenthash.New(points, nil)}
		g.Add(ids...)
		return g, nil
	}
}

func (g groupcache) lookup(key string) string { return g.Get(key) }
func (g groupcache) join(id string)           { g.Add(id) }

type rendezvousSet struct{ *rendezvous.Rendezvous }

func newRendezvous(ids []string) (contender, error) {
	return rendezvousSet{rendezvous.New(ids, xxhash.Sum64String)}, nil
}

func (r rendezvousSet) lookup(key string) string { return r.Lookup(key) }
func (r rendezvousSet) join(id string)           { r.Add(id) }

type jumpSet struct{ ids []string }

func newJump(ids []string) (contender, error) {
	return &jumpSet{append([]string(nil), ids...)}, nil
}

func (j *jumpSet) lookup(key string) string {
	return j.ids[jump.Hash(xxhash.Sum64String(key), len(j.ids))]
}
func (j *jumpSet) join(id string) { j.ids = append(j.ids, id) }
