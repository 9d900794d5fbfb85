package plot

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/werbenhu/registry/ring"
)

// Widths of a terminal picture, in columns.
const (
	MinWidth     = 40
	DefaultWidth = 80
	MaxWidth     = 1000
)

const (
	defaultBars = 20
	rows        = 4 // of the strip
)

// Options of Terminal.
type Options struct {
	Width int  // columns, MinWidth to MaxWidth; 0 is DefaultWidth
	Bars  int  // most bars, at least 2; 0 is 20
	Color bool // ANSI colours; pass false if the output is no terminal, or if NO_COLOR is set
}

// Validate reports a size that is outside the limits; the error wraps ErrSize.
func (o Options) Validate() error {
	o = o.filled()
	if o.Width < MinWidth || o.Width > MaxWidth || o.Bars < 2 {
		return fmt.Errorf("%w: width %d and bars %d, want a width of %d to %d and bars of at least 2", ErrSize, o.Width, o.Bars, MinWidth, MaxWidth)
	}
	return nil
}

func (o Options) filled() Options {
	return Options{cmp.Or(o.Width, DefaultWidth), cmp.Or(o.Bars, defaultBars), o.Color}
}

// Parts is the number of parts into which Terminal divides the key space, for Sample.
func (o Options) Parts() int { return rows * o.filled().Width }

// Terminal writes a picture of the ring as text that is at most Width columns wide, if every character of the ids
// takes one column. The circle is unrolled into a strip. Errors are ErrSize and those of w.
func Terminal(w io.Writer, r *ring.Ring, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	o = o.filled()
	p := newPicture(r, o.Bars, o.Parts())
	out := bufio.NewWriter(w)
	for _, line := range []string{p.title, p.note} {
		fmt.Fprintln(out, clip(line, o.Width))
	}
	p.strip(out, o)
	p.terminalBars(out, o)
	return out.Flush() // keeps the first error of all writes
}

// strip draws the circle in four rows, each a quarter of the key space. A letter names the member
// that owns most of a column's part: a for the first bar and so on, a dot for members without a bar.
func (p *picture) strip(out io.Writer, o Options) {
	letters := map[int]rune{}
	for i, b := range p.bars {
		if !b.rest {
			letters[b.index] = letter(i)
		}
	}
	for row := range rows {
		last, painted := 0, false
		for _, m := range p.circle[row*o.Width : (row+1)*o.Width] {
			if o.Color && (!painted || m != last) {
				c := colourOf(m)
				fmt.Fprintf(out, "\x1b[38;2;%d;%d;%dm", c.R, c.G, c.B)
				last, painted = m, true
			}
			mark, known := letters[m]
			if !known {
				mark = '·'
			}
			fmt.Fprintf(out, "%c", mark)
		}
		if painted {
			fmt.Fprint(out, "\x1b[0m")
		}
		fmt.Fprintln(out)
	}
}

func letter(i int) rune {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if i >= len(letters) {
		return '·'
	}
	return rune(letters[i])
}

// terminalBars draws a line a member: letter, label, bar with the fair share marked by "|", share.
func (p *picture) terminalBars(out io.Writer, o Options) {
	label := 0
	for _, b := range p.bars {
		label = max(label, utf8.RuneCountInString(printable(b.label)))
	}
	label = min(label, o.Width/3)
	width := uint64(o.Width - label - 13)
	longest := p.longest()
	for i, b := range p.bars {
		mark := letter(i)
		if b.rest {
			mark = '·'
		}
		fmt.Fprintf(out, "%c %-*s %s %7s\n", mark, label, clip(printable(b.label), label), b.text(width, longest, o.Color), b.exact.Percent())
	}
}

// text returns the bar with exactly width visible characters.
func (b bar) text(width, longest uint64, colour bool) string {
	full := int(min(b.share, longest) * width / longest)
	line := []rune(strings.Repeat("█", full) + strings.Repeat(" ", int(width)-full))
	if fair := int(min(b.fair, longest) * (width - 1) / longest); !b.rest && b.fair > 0 {
		line[fair] = '|'
	}
	if !colour {
		return string(line)
	}
	c := colourOf(b.index)
	return fmt.Sprintf("\x1b[38;2;%d;%d;%dm%s\x1b[0m", c.R, c.G, c.B, string(line))
}

// printable replaces what would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
