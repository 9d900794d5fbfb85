package registrypb_test

import (
	"strings"
	"testing"

	"github.com/werbenhu/registry/rpc/registrypb"
)

func TestClusterRef(t *testing.T) {
	for _, tt := range []struct {
		text    string
		ref     registrypb.ClusterRef
		encoded string
	}{
		{"", registrypb.ClusterRef{}, ""},
		{"prod", registrypb.ClusterRef{Name: "prod"}, "prod"},
		{"prod ü/3f0c", registrypb.ClusterRef{Name: "prod ü", ID: "3f0c"}, "prod%20%C3%BC/3f0c"},
		{"/3f0c", registrypb.ClusterRef{ID: "3f0c"}, "/3f0c"},
	} {
		if got, err := registrypb.ParseClusterRef(tt.text); err != nil || got != tt.ref || got.String() != tt.text || got.Encode() != tt.encoded {
			t.Errorf("%q: %+v, encoded %q, %v", tt.text, got, got.Encode(), err)
		}
		if got, err := registrypb.DecodeClusterRef(tt.encoded); err != nil || got != tt.ref {
			t.Errorf("%q: %+v, %v", tt.encoded, got, err)
		}
	}
	long := strings.Repeat("ü", 127) + "x" // 255 bytes, 763 encoded
	if got, err := registrypb.DecodeClusterRef(registrypb.ClusterRef{Name: long}.Encode()); err != nil || got.Name != long {
		t.Error(err)
	}
	for _, bad := range []string{"a/b/c", "%zz", "a%2fb", "%ff", long + "x"} {
		if got, err := registrypb.DecodeClusterRef(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestClusterRefDiffers(t *testing.T) {
	full := registrypb.ClusterRef{Name: "a", ID: "1"}
	for other, want := range map[registrypb.ClusterRef]bool{
		full: false, {}: false, {Name: "a"}: false, {ID: "1"}: false,
		{Name: "b"}: true, {ID: "2"}: true, {Name: "a", ID: "2"}: true, {Name: "b", ID: "1"}: true,
	} {
		if full.Differs(other) != want || other.Differs(full) != want {
			t.Errorf("%+v: differs is not %v", other, want)
		}
	}
}

func FuzzDecodeClusterRef(f *testing.F) {
	for _, s := range []string{"", "prod", "prod%20%C3%BC/3f0c", "/3f0c", "%zz", "a/b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := registrypb.DecodeClusterRef(s)
		if err != nil {
			return
		}
		if again, err := registrypb.DecodeClusterRef(r.Encode()); err != nil || again != r {
			t.Errorf("%q: %+v, then %+v, %v", s, r, again, err)
		}
	})
}
