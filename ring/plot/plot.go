// Package plot draws a ring: as SVG, as PNG, and as text for a terminal. Each picture has two parts:
// the circle, whose colours are the owners of the arcs, and a bar for each member's share beside a
// mark for its fair share. Pictures are made for people; the exact figures are in ring.Stats.
//
//	r, err := ring.New(ring.DefaultParams(), members)
//	err = plot.Terminal(os.Stdout, r, plot.Options{Width: 100})
//	err = plot.SVG(file, r)
package plot

import (
	"errors"
	"fmt"
	"image/color"
	"slices"

	"github.com/werbenhu/registry/ring"
)

// ErrSize: the picture would be too small or too large.
var ErrSize = errors.New("plot: invalid size")

// sectors is the number of parts into which a circle is divided: each has the colour of the member
// that owns most of it.
const sectors = 720

// bar is a member, or the rest of the members, with its share of the key space. What is drawn is in
// parts per million, what is written is exact.
type bar struct {
	label string
	exact ring.Share
	share uint64 // the same in ppm
	fair  uint64 // ppm
	rest  bool   // several members; never the longest bar
	index int    // into colours
}

// picture is what all formats draw.
type picture struct {
	title  string
	note   string
	bars   []bar
	circle []int // colour index of each sector; -1 for none
}

// newPicture takes the figures of a ring, at most limit bars: the members with the largest share ÷
// fair share come first, and the others are summed up in a last bar.
func newPicture(r *ring.Ring, limit, parts int) picture {
	stats := r.Stats()
	p := picture{
		title:  fmt.Sprintf("members %d, points %d, fingerprint %016x", stats.Members, stats.Points, uint64(stats.Fingerprint)),
		note:   fmt.Sprintf("largest %s × fair, deviation %s", ratio(stats.Largest), ratio(stats.Deviation)),
		circle: Sample(r, parts),
	}
	total := uint64(0)
	for _, m := range stats.Shares {
		if m.Points > 0 {
			total += uint64(m.Weight)
		}
	}
	for i, m := range stats.Shares {
		b := bar{label: m.ID, exact: m.Share, share: m.Share.Parts(1_000_000), index: i}
		if m.State != ring.Active {
			b.label += " (" + m.State.String() + ")"
		}
		if m.Points > 0 {
			b.fair = 1_000_000 * uint64(m.Weight) / total
		}
		p.bars = append(p.bars, b)
	}
	p.shorten(limit)
	return p
}

// shorten keeps the bars in the order of ids if they fit, and otherwise the largest and a rest.
func (p *picture) shorten(limit int) {
	if len(p.bars) <= limit {
		return
	}
	slices.SortStableFunc(p.bars, func(a, b bar) int { // share ÷ fair, descending
		x, y := a.share*max(b.fair, 1), b.share*max(a.fair, 1)
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	rest := bar{label: fmt.Sprintf("%d others", len(p.bars)-limit+1), rest: true, index: -1}
	for _, b := range p.bars[limit-1:] {
		rest.exact = rest.exact.Add(b.exact)
		rest.share += b.share
		rest.fair += b.fair
	}
	p.bars = append(p.bars[:limit-1], rest)
}

// longest is the share that fills a bar's width.
func (p *picture) longest() uint64 {
	longest := uint64(1)
	for _, b := range p.bars {
		if !b.rest {
			longest = max(longest, b.share, b.fair)
		}
	}
	return longest
}

// Sample returns the index of the member that owns most of each of n equal parts of the key space, or
// -1 if no member has points. It is what the circle of a picture shows.
func Sample(r *ring.Ring, n int) []int {
	const steps = 8 // hashes looked at in each part
	owners := make([]int, n)
	width := ^uint64(0)/uint64(n*steps) + 1
	for i := range owners {
		count, best := map[int]int{}, -1
		for s := range steps {
			m := r.OwnerOf(uint64(i*steps+s)*width + width/2)
			count[m]++
			if best < 0 || count[m] > count[best] {
				best = m
			}
		}
		owners[i] = best
	}
	return owners
}

func ratio(p ring.PPM) string { return fmt.Sprintf("%.3f", float64(p)/1e6) }

// colourOf spreads hues by the golden angle, so that members next to each other in the list differ.
func colourOf(index int) color.RGBA {
	if index < 0 {
		return color.RGBA{0x99, 0x99, 0x99, 0xff}
	}
	hue := index * 222 % 360
	sector, rise := hue/60, uint8(hue%60*150/60)
	const low, high = 0x40, 0x40 + 150
	up, down := low+rise, uint8(high)-rise
	return []color.RGBA{
		{high, up, low, 0xff}, {down, high, low, 0xff}, {low, high, up, 0xff},
		{low, down, high, 0xff}, {up, low, high, 0xff}, {high, low, down, 0xff},
	}[sector]
}

func hexColour(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }
