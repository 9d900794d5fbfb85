package registry_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// throughProxy finds what asks the environment for a proxy unless told not to.
var throughProxy = regexp.MustCompile(`\bgrpc\.(NewClient|Dial|DialContext)\(|\bhttp\.(Get|Head|Post|PostForm)\(|\bhttp\.Default(Client|Transport)\b|\bhttp\.Client\{\}`)

// Nothing in the programs and packages connects to a node or a member by the
// proxy of the environment: every client that would do so by default is told not
// to. What it does then is for the tests of each package to show.
func TestNoClientAsksForAProxy(t *testing.T) {
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var code []string
		for line := range strings.Lines(string(source)) {
			if line = strings.TrimSpace(line); throughProxy.MatchString(line) && !strings.HasPrefix(line, "//") {
				code = append(code, line)
			}
		}
		found += len(code)
		direct := strings.Count(string(source), "grpc.WithNoProxy()") + strings.Count(string(source), "grpc.WithContextDialer(func")
		if len(code) > direct {
			t.Errorf("%s connects by the proxy that the environment names: %q", path, code)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 4 { // nodes, health, bench, the SDK
		t.Errorf("%d clients found: the test looks at the wrong files", found)
	}
}
