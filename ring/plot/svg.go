package plot

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/werbenhu/registry/ring"
)

// Measures of a picture, in pixels.
const (
	imageBars = 40 // most bars
	diameter  = 420
	margin    = 20
	rowHeight = 18
	barLeft   = diameter + 2*margin + 210
	barWidth  = 260
	imageWide = barLeft + barWidth + 110
)

func imageHeight(p picture) int {
	return max(diameter+3*margin+20, len(p.bars)*rowHeight+4*margin)
}

// SVG writes a picture of the ring. It returns w's error, if any.
func SVG(w io.Writer, r *ring.Ring) error {
	p := newPicture(r, imageBars, sectors)
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", imageWide, imageHeight(p))
	fmt.Fprintf(out, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	fmt.Fprintf(out, `<text x="%d" y="%d">%s</text>`+"\n", margin, margin, escape(p.title+"; "+p.note))
	svgCircle(out, p)
	svgBars(out, p)
	fmt.Fprintln(out, "</svg>")
	return out.Flush() // keeps the first error of all writes
}

// svgCircle draws runs of sectors with one colour as one path. The circle starts at the top.
func svgCircle(out io.Writer, p picture) {
	for i := 0; i < len(p.circle); {
		end := i + 1
		for end < len(p.circle) && p.circle[end] == p.circle[i] && end-i < len(p.circle)/2 {
			end++
		}
		x1, y1 := onCircle(i, len(p.circle), 1)
		x2, y2 := onCircle(end, len(p.circle), 1)
		x3, y3 := onCircle(end, len(p.circle), 0.62)
		x4, y4 := onCircle(i, len(p.circle), 0.62)
		const radius, inner = diameter / 2.0, diameter / 2.0 * 0.62
		fmt.Fprintf(out, `<path d="M%.1f %.1fA%.1f %.1f 0 0 1 %.1f %.1fL%.1f %.1fA%.1f %.1f 0 0 0 %.1f %.1fZ" fill="%s"/>`+"\n",
			x1, y1, radius, radius, x2, y2, x3, y3, inner, inner, x4, y4, hexColour(colourOf(p.circle[i])))
		i = end
	}
}

// onCircle returns the place of a sector's start at a fraction of the radius.
func onCircle(sector, of int, fraction float64) (x, y float64) {
	angle := 2 * math.Pi * float64(sector) / float64(of)
	radius := diameter / 2.0 * fraction
	return margin + diameter/2.0 + radius*math.Sin(angle), 2*margin + diameter/2.0 - radius*math.Cos(angle)
}

func svgBars(out io.Writer, p picture) {
	longest := p.longest()
	for i, b := range p.bars {
		y := 2*margin + i*rowHeight
		width, fair := scale(b.share, longest), scale(b.fair, longest)
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, barLeft-6, y+12, escape(clip(b.label, 30)))
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, barLeft, y, width, rowHeight-4, hexColour(colourOf(b.index)))
		if b.fair > 0 && !b.rest {
			fmt.Fprintf(out, `<rect x="%d" y="%d" width="2" height="%d" fill="#000000"/>`, barLeft+fair-1, y-1, rowHeight-2)
		}
		fmt.Fprintf(out, `<text x="%d" y="%d">%s</text>`+"\n", barLeft+max(width, fair)+6, y+12, b.exact.Percent())
	}
}

// scale returns a share's width in pixels; a rest may be cut at the width of the picture.
func scale(share, longest uint64) int { return int(min(share, longest) * barWidth / longest) }

// escape makes a label safe in XML, with a replacement for what XML cannot hold.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

// clip shortens a label to n characters.
func clip(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}
