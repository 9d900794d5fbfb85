package peertls

import (
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/werbenhu/registry/docs"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

// vectors are fixed: nodes of any two versions derive the same key.
var vectors = []struct{ secret, cluster, public string }{
	{strings.Repeat("00", 32), "registry", "dd86b0842e7ebf1b50f08943243a63b2df6300a0f17f1cf7c211276b9724a580"},
	{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "registry", "be03a946002ed4a8cfaafb263963e6debfd14025800fb46e92ab731f3d35a972"},
	{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "prod", "0cdb84b71dc8da46432af601d2923a594556373db24c7ce89f0e08850c3e7cb5"},
	{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021", "注册", "53d86348454746f2d184818974cb89f2d10adfdc22b20b7ebbd3077069c1b949"},
}

func TestDerivation(t *testing.T) {
	table := "| secret | cluster | public key of the authority |\n|---|---|---|\n"
	for _, v := range vectors {
		secret, err := hex.DecodeString(v.secret)
		if err != nil {
			t.Fatal(err)
		}
		a, err := deriveAuthority(secret, v.cluster)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(a.key.Public().(ed25519.PublicKey)); got != v.public {
			t.Errorf("%s of %s: %s, want %s", v.cluster, v.secret, got, v.public)
		}
		table += fmt.Sprintf("| `%s` | `%s` | `%s` |\n", v.secret, v.cluster, v.public)
	}
	if err := docs.Generated("../..", "docs/reference/peer-tls.md", "vectors", table, *update); err != nil {
		t.Error(err)
	}
}
