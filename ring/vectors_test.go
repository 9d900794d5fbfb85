package ring

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vectors is where the files for other implementations are. They come from the naive
// implementation, never from the ring: go test ./ring -run Vectors -update.
const vectors = "../testdata/ring"

// vector is a set of members, and everything that must follow from it.
type vector struct {
	About       string        `json:"about"`
	Params      Params        `json:"params"`
	Members     []Member      `json:"members"`
	BoundInUse  int           `json:"bound_in_use,omitempty"`
	Fingerprint Hex64         `json:"fingerprint"`
	Digest      Hex64         `json:"digest"`
	Keys        []vectorKey   `json:"keys"`
	Points      []PointRecord `json:"points"`
}

type vectorKey struct {
	Key    string   `json:"key"`
	Hash   Hex64    `json:"hash"`
	Owners []string `json:"owners"` // the first three distinct members clockwise, the owner first
}

// vectorInputs are the sets by file name, each with members out of order.
var vectorInputs = map[string]vector{
	"empty":        {About: "no members", Params: Params{VirtualNodes: 64}},
	"one":          {About: "one member owns every key", Params: Params{VirtualNodes: 64}, Members: []Member{{ID: "only", Weight: 1}}},
	"three":        {About: "three members of equal weight", Params: Params{VirtualNodes: 64}, Members: []Member{{ID: "webserver3", Weight: 1}, {ID: "webserver1", Weight: 1}, {ID: "webserver2", Weight: 1}}},
	"weights":      {About: "weights 1, 2 and 5", Params: Params{VirtualNodes: 64}, Members: []Member{{ID: "b", Weight: 2}, {ID: "c", Weight: 5}, {ID: "a", Weight: 1}}},
	"states":       {About: "a draining member has no points, a held one keeps them", Params: Params{VirtualNodes: 128}, Members: []Member{{ID: "held", Weight: 1, State: Held}, {ID: "draining", Weight: 1, State: Draining}, {ID: "active", Weight: 1}}},
	"bound":        {About: "at most 5 % above the fair share", Params: Params{VirtualNodes: 64, Bound: 1050}, Members: boundVector()},
	"bound-raised": {About: "a bound that whole arcs cannot keep, so a weaker one is in use", Params: Params{VirtualNodes: 64, Bound: 1010}, Members: []Member{{ID: "right23", Weight: 1}, {ID: "left23", Weight: 1}}},
	"ids":          {About: "ids are bytes: UTF-8, digits and underscores", Params: Params{VirtualNodes: 64}, Members: []Member{{ID: "zürich-ü", Weight: 1}, {ID: "a_1", Weight: 1}, {ID: "a", Weight: 1}, {ID: "東京", Weight: 1}, {ID: strings.Repeat("x", 255), Weight: 1}}},
}

func boundVector() []Member {
	var members []Member
	for _, id := range strings.Fields("i h g f e d c b a") {
		members = append(members, Member{ID: id, Weight: 1 + len(members)%2})
	}
	return members
}

// generate fills in what the naive implementation says.
func (v vector) generate() vector {
	n := newNaive(v.Params, v.Members)
	v.BoundInUse, v.Fingerprint, v.Digest = n.bound, Hex64(n.fingerprint()), Hex64(n.digest())
	for _, key := range []string{"", "a", "user-id-1", "user-id-2", "user-id-3", "ключ", strings.Repeat("k", 33), strings.Repeat("long", 1024)} {
		h := naiveHash(key)
		v.Keys = append(v.Keys, vectorKey{key, Hex64(h), n.owners(h, 3)})
	}
	for _, p := range n.points {
		rec := PointRecord{Hash: Hex64(p.hash), ID: p.id, Index: p.index}
		if p.owner != p.id {
			rec.Owner = p.owner
		}
		v.Points = append(v.Points, rec)
	}
	return v
}

// encode writes one point or key a line.
func (v vector) encode(t *testing.T) []byte {
	t.Helper()
	keys, points := v.Keys, v.Points
	v.Keys, v.Points = nil, nil
	head, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.Write(bytes.TrimSuffix(head, []byte("  \"keys\": null,\n  \"points\": null\n}")))
	out.WriteString("  \"keys\": [" + lines(t, keys) + "],\n  \"points\": [" + lines(t, points) + "]\n}\n")
	return out.Bytes()
}

func lines[T any](t *testing.T, items []T) string {
	t.Helper()
	var all []string
	for _, item := range items {
		line, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, "\n    "+string(line))
	}
	return strings.Join(all, ",")
}

func TestVectors(t *testing.T) {
	for name, input := range vectorInputs {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(vectors, name+".json")
			want := input.generate().encode(t)
			if *update {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Fatalf("%s is not what the naive implementation gives (-want +file):\n%s", file, diff)
			}
			var v vector
			if err := json.Unmarshal(got, &v); err != nil {
				t.Fatal(err)
			}
			requireVector(t, v)
		})
	}
}

// The example of the package comment is the vector "three".
func TestPackageCommentShowsTheVector(t *testing.T) {
	comment, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	n := newNaive(vectorInputs["three"].Params, vectorInputs["three"].Members)
	for _, want := range []Hex64{Hex64(n.fingerprint()), Hex64(n.digest())} {
		if !bytes.Contains(comment, []byte(want.String())) {
			t.Errorf("doc.go does not show %v", want)
		}
	}
}

// requireVector checks the ring against a file.
func requireVector(t *testing.T, v vector) {
	t.Helper()
	r := mustNew(t, v.Params, v.Members)
	if Hex64(r.Fingerprint()) != v.Fingerprint || Hex64(r.Digest()) != v.Digest || r.Bound() != v.BoundInUse {
		t.Errorf("fingerprint %#x, digest %#x, bound %d", r.Fingerprint(), r.Digest(), r.Bound())
	}
	var points []PointRecord
	for p := range r.Points() {
		points = append(points, r.Record(p))
	}
	if !slices.Equal(v.Points, points) {
		t.Errorf("points: %s", cmp.Diff(v.Points, points))
	}
	for _, k := range v.Keys {
		var ids []string
		for _, m := range r.MatchN(nil, k.Key, 3) {
			ids = append(ids, r.Member(m).ID)
		}
		if diff := cmp.Diff(k.Owners, ids); diff != "" || Hash(k.Key) != uint64(k.Hash) {
			t.Errorf("key %.20q: hash %#x, owners %v, want %+v", k.Key, Hash(k.Key), ids, k)
		}
	}
}
