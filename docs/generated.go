package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Generated compares a part of a document, between the lines <!-- begin NAME -->
// and <!-- end NAME -->, with text that a test made from the code. With update it
// writes the text there.
func Generated(root, file, name, text string, update bool) error {
	path := filepath.Join(root, file)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	before, rest, begun := strings.Cut(string(data), begin)
	have, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return fmt.Errorf("%s: no part from %q to %q", file, begin, end)
	}
	text = "\n" + strings.TrimSpace(text) + "\n\n"
	if have == text {
		return nil
	}
	if !update {
		return fmt.Errorf("%s: the part %q is not what the code makes: run the test with -update\n%s", file, name, firstDifference(have, text))
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}

// firstDifference shows the first lines that differ.
func firstDifference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range max(len(h), len(w)) {
		a, b := "", ""
		if i < len(h) {
			a = h[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("  is    %s\n  wants %s", a, b)
		}
	}
	return ""
}
