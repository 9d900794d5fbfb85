package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/werbenhu/registry/ring"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testRing(t testing.TB, n int) *ring.Ring {
	t.Helper()
	members := make([]ring.Member, n)
	for i := range members {
		members[i] = ring.Member{ID: fmt.Sprintf("webserver%d", i), Weight: 1 + i%3}
	}
	if n > 5 {
		members[3].State, members[5].State = ring.Draining, ring.Held
	}
	return newRing(t, members)
}

func newRing(t testing.TB, members []ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(ring.Params{VirtualNodes: 64}, members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hostile has ids that could break out of a format.
func hostile(t testing.TB) *ring.Ring {
	return newRing(t, []ring.Member{
		{ID: `"><script>alert(1)</script>&`, Weight: 1}, {ID: "\x1b[2J\a\r\n", Weight: 1}, {ID: "\xff\xfe\x00", Weight: 1000}, {ID: strings.Repeat("長", 85), Weight: 1},
	})
}

func TestTerminalGolden(t *testing.T) {
	for name, o := range map[string]Options{"plain": {}, "short": {Width: 60, Bars: 5}, "color": {Color: true}} {
		var got bytes.Buffer
		if err := Terminal(&got, testRing(t, 12), o); err != nil {
			t.Fatal(err)
		}
		file := "testdata/terminal-" + name + ".txt"
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s: -want +got\n%s", file, diff)
		}
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTerminalFits(t *testing.T) {
	rings := []*ring.Ring{newRing(t, nil), testRing(t, 1), testRing(t, 12), testRing(t, 300), hostile(t)}
	for _, r := range rings {
		for _, o := range []Options{{}, {Width: 40, Bars: 2}, {Width: 80, Bars: 500}, {Width: 133, Color: true}} {
			var out bytes.Buffer
			if err := Terminal(&out, r, o); err != nil {
				t.Fatal(err)
			}
			requireFits(t, out.String(), max(o.Width, 40), o)
		}
	}
}

func requireFits(t *testing.T, text string, width int, o Options) {
	t.Helper()
	if o.Width == 0 {
		width = DefaultWidth
	}
	plain := escapes.ReplaceAllString(text, "")
	if !o.Color && plain != text {
		t.Errorf("escapes without Color: %q", text)
	}
	if strings.ContainsAny(plain, "\x1b\a\r\x00") {
		t.Errorf("control characters: %q", plain)
	}
	for line := range strings.Lines(plain) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%d columns, want %d: %s", n, width, line)
		}
	}
}

func TestTerminalRefusesSizes(t *testing.T) {
	for _, o := range []Options{{Width: 39}, {Width: 1001}, {Width: -1}, {Bars: 1}, {Bars: -1}} {
		if err := Terminal(io.Discard, testRing(t, 3), o); !errors.Is(err, ErrSize) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	for _, r := range []*ring.Ring{newRing(t, nil), testRing(t, 1), testRing(t, 12), testRing(t, 300), hostile(t)} {
		var out bytes.Buffer
		if err := SVG(&out, r); err != nil {
			t.Fatal(err)
		}
		elements := map[string]int{}
		for dec := xml.NewDecoder(&out); ; {
			token, err := dec.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if start, ok := token.(xml.StartElement); ok {
				elements[start.Name.Local]++
			}
		}
		if elements["script"] > 0 || elements["path"] == 0 || elements["text"] < min(r.Len(), imageBars) {
			t.Errorf("%d members: %v", r.Len(), elements)
		}
	}
}

func TestPNGDecodes(t *testing.T) {
	for _, r := range []*ring.Ring{newRing(t, nil), testRing(t, 12), testRing(t, 300), hostile(t)} {
		var out bytes.Buffer
		if err := PNG(&out, r); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&out)
		if err != nil {
			t.Fatal(err)
		}
		// The top of the circle is the owner of the lowest hashes.
		want := colourOf(Sample(r, sectors)[0])
		if got := img.At(margin+diameter/2, 2*margin+8); got != want {
			t.Errorf("%d members: top is %v, want %v", r.Len(), got, want)
		}
	}
}

func TestBarsShowEveryShare(t *testing.T) {
	for _, n := range []int{1, 12, 300} {
		p := newPicture(testRing(t, n), imageBars, sectors)
		sum := uint64(0)
		for _, b := range p.bars {
			sum += b.share
		}
		if sum > 1_000_000 || sum < 1_000_000-uint64(n) || len(p.bars) > imageBars {
			t.Errorf("%d members: %d bars sum to %d ppm", n, len(p.bars), sum)
		}
	}
}

type failing struct{}

var errFull = errors.New("disk full")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrorsAreReturned(t *testing.T) {
	r := testRing(t, 12)
	for name, err := range map[string]error{"SVG": SVG(failing{}, r), "PNG": PNG(failing{}, r), "Terminal": Terminal(failing{}, r, Options{})} {
		if !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPlot draws rings of arbitrary ids in all formats.
func FuzzPlot(f *testing.F) {
	f.Add("a", "b\x1b[2J", 3, 80, 20)
	f.Add("]]>", "\xff\u202e", 1000, 40, 2)
	f.Fuzz(func(t *testing.T, a, b string, weight, width, bars int) {
		r, err := ring.New(ring.Params{VirtualNodes: 64}, []ring.Member{{ID: a, Weight: 1}, {ID: b, Weight: weight}})
		if err != nil {
			return
		}
		var text, svg bytes.Buffer
		if err := Terminal(&text, r, Options{Width: width, Bars: bars}); err == nil {
			requireFits(t, text.String(), width, Options{Width: width})
		} else if !errors.Is(err, ErrSize) {
			t.Fatal(err)
		}
		if err := SVG(&svg, r); err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(svg.Bytes(), new(struct{})); err != nil {
			t.Fatal(err)
		}
		if weight%32 == 0 { // slow
			if err := PNG(io.Discard, r); err != nil {
				t.Fatal(err)
			}
		}
	})
}
