package ring

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// go test ./ring -run '^$' -bench . prints all figures; -benchtime 1x only shows that they run.

// benchMembers returns n members of weight one.
func benchMembers(n int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprintf("webserver-%d", i), Weight: 1}
	}
	return members
}

const benchKeyCount = 1 << 20

// benchKeys returns keys of 16 bytes.
var benchKeys = sync.OnceValue(func() []string {
	keys := make([]string, benchKeyCount)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-id-%08d", i*7919%99999989)
	}
	return keys
})

var benchSizes = []struct {
	name    string
	members int // at 256 points
}{{"10k", 39}, {"100k", 390}, {"256k", 1000}, {"1M", 3906}, {"10M", 39062}}

var benchRings sync.Map // by number of members, because building the large ones takes a second

func benchRing(b *testing.B, members int) *Ring {
	if r, ok := benchRings.Load(members); ok {
		return r.(*Ring)
	}
	r := mustNew(b, DefaultParams(), benchMembers(members))
	benchRings.Store(members, r)
	return r
}

var benchSink int

func BenchmarkHash(b *testing.B) {
	keys, i := benchKeys(), 0
	for b.Loop() {
		benchSink += int(Hash(keys[i&(benchKeyCount-1)]))
		i++
	}
}

func benchMatch(b *testing.B, r *Ring) {
	keys, i := benchKeys(), 0
	b.ReportAllocs()
	for b.Loop() {
		benchSink += r.Match(keys[i&(benchKeyCount-1)])
		i++
	}
	b.ReportMetric(float64(r.table.bytes())/float64(r.NumPoints()), "B/point")
}

func BenchmarkMatch(b *testing.B) {
	for _, size := range benchSizes {
		b.Run("points="+size.name, func(b *testing.B) { benchMatch(b, benchRing(b, size.members)) })
	}
	for _, members := range []int{10, 100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) { benchMatch(b, benchRing(b, members)) })
	}
}

// The time is per key.
func BenchmarkMatchBatch(b *testing.B) {
	for _, size := range benchSizes {
		b.Run("points="+size.name, func(b *testing.B) {
			r, keys, i := benchRing(b, size.members), benchKeys(), 0
			var dst [128]int32
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += len(dst) {
				benchSink += int(r.MatchBatch(dst[:0], keys[i:i+len(dst)])[0])
				i = (i + len(dst)) & (benchKeyCount - 1)
			}
		})
	}
}

func BenchmarkMatchParallel(b *testing.B) {
	for _, size := range benchSizes {
		b.Run("points="+size.name, func(b *testing.B) {
			r, keys := benchRing(b, size.members), benchKeys()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i, sum := int(xxhash.Sum64String(b.Name()))&(benchKeyCount-1), 0
				for pb.Next() {
					sum += r.Match(keys[i&(benchKeyCount-1)])
					i++
				}
				if sum < 0 {
					b.Error("no owner")
				}
			})
		})
	}
}

func BenchmarkMatchN(b *testing.B) {
	for _, n := range []int{2, 3, 10} {
		b.Run(fmt.Sprintf("members=1000/n=%d", n), func(b *testing.B) {
			r, keys, i := benchRing(b, 1000), benchKeys(), 0
			dst := make([]int, 0, n)
			b.ReportAllocs()
			for b.Loop() {
				benchSink += len(r.MatchN(dst, keys[i&(benchKeyCount-1)], n))
				i++
			}
		})
	}
}

// Changes of a ring with a million points (4,000 members).
func BenchmarkWith(b *testing.B) {
	members := benchMembers(4000)
	heavier := benchMembers(4000)
	heavier[1234].Weight = 2
	bounded := Params{DefaultVirtualNodes, 1100}
	for _, change := range []struct {
		name   string
		params Params
		before []Member
		after  []Member
	}{
		{"join", DefaultParams(), members, append(benchMembers(4000), Member{ID: "webserver-25x", Weight: 1})},
		{"leave", DefaultParams(), members, members[1:]},
		{"weight", DefaultParams(), members, heavier},
		{"join-doubling-buckets", DefaultParams(), benchMembers(4096), benchMembers(4097)},
		{"join-bounded", bounded, members, append(benchMembers(4000), Member{ID: "webserver-25x", Weight: 1})},
	} {
		b.Run("points=1M/"+change.name, func(b *testing.B) {
			r := mustNew(b, change.params, change.before)
			for b.Loop() {
				if _, err := r.With(change.params, change.after); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	for _, size := range []struct{ members, k int }{{100, 256}, {1000, 256}, {10_000, 128}, {100_000, 256}} {
		b.Run(fmt.Sprintf("members=%d/nodes=%d", size.members, size.k), func(b *testing.B) {
			members := benchMembers(size.members)
			for b.Loop() {
				mustNew(b, Params{VirtualNodes: size.k}, members)
			}
		})
	}
}

// The fingerprint is taken of all members anew; compare with Inputs.
func BenchmarkFingerprint(b *testing.B) {
	r := benchRing(b, 3906)
	b.ReportAllocs()
	for b.Loop() {
		benchSink += int(r.Fingerprint())
	}
}

// One change of a member, and the fingerprint after it.
func BenchmarkInputs(b *testing.B) {
	p := DefaultParams()
	in, points := InputsOf(p, benchMembers(3906)), DefaultVirtualNodes
	b.ReportAllocs()
	for b.Loop() {
		in.Remove("webserver-1234", points)
		points ^= DefaultVirtualNodes ^ 2*DefaultVirtualNodes
		in.Add("webserver-1234", points)
		benchSink += int(in.Fingerprint(p))
	}
}

func BenchmarkDigest(b *testing.B) {
	r := benchRing(b, 3906)
	for b.Loop() {
		benchSink += int(r.digest())
	}
}

func BenchmarkDiff(b *testing.B) {
	r := benchRing(b, 3906)
	after, err := r.With(DefaultParams(), benchMembers(3907))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		benchSink += len(Diff(r, after))
	}
}

// Ids chosen so that points collide, and keys that fall among them; compare with even.
func BenchmarkAdversarial(b *testing.B) {
	for _, test := range []struct {
		name    string
		squeeze func(uint64) uint64
	}{
		{"even", func(h uint64) uint64 { return h }},
		{"4096 buckets", func(h uint64) uint64 { return h & 0xfff00000ffffffff }},
		{"one bucket", func(h uint64) uint64 { return 0xabcd<<48 | h>>16 }},
		{"one head", func(h uint64) uint64 { return 0xabcdef01<<32 | h>>32 }},
		{"64 hashes", func(h uint64) uint64 { return h >> 58 << 3 }},
	} {
		b.Run("points=1M/"+test.name, func(b *testing.B) {
			collide(b, test.squeeze)
			r, keys, i := mustNew(b, DefaultParams(), benchMembers(3906)), benchKeys(), 0
			for b.Loop() {
				benchSink += r.OwnerOf(test.squeeze(Hash(keys[i&(benchKeyCount-1)])))
				i++
			}
		})
	}
}
