package plot

import (
	"image"
	"unicode"
	"unicode/utf8"
)

// Measures of the font, in pixels.
const (
	dot     = 2       // a dot of a glyph
	advance = 4 * dot // from one glyph to the next
)

// glyphs are three dots wide and five high: an octal digit a row, the highest bit on the left.
var glyphs = map[rune]string{
	'0': "75557", '1': "26227", '2': "71747", '3': "71717", '4': "55711",
	'5': "74717", '6': "74757", '7': "71122", '8': "75757", '9': "75717",
	'A': "25755", 'B': "65656", 'C': "34443", 'D': "65556", 'E': "74647", 'F': "74644", 'G': "34553",
	'H': "55755", 'I': "72227", 'J': "11152", 'K': "55655", 'L': "44447", 'M': "57755", 'N': "65555",
	'O': "25552", 'P': "65644", 'Q': "25563", 'R': "65655", 'S': "34216", 'T': "72222", 'U': "55557",
	'V': "55552", 'W': "55775", 'X': "55255", 'Y': "55222", 'Z': "71247",
	' ': "00000", '.': "00002", ',': "00024", '-': "00700", '_': "00007", '%': "51245", ':': "02020",
	';': "02024", '(': "12221", ')': "42224", '/': "11244", '×': "05250", '…': "00005",
}

const unknownGlyph = "75557"

// textWidth returns the width of a text in pixels.
func textWidth(s string) int { return utf8.RuneCountInString(s) * advance }

// pngText draws a text with its upper left corner at (x, y).
func pngText(img *image.RGBA, x, y int, text string) {
	for _, r := range text {
		glyph, ok := glyphs[unicode.ToUpper(r)]
		if !ok {
			glyph = unknownGlyph
		}
		for row, bits := range glyph {
			for column := range 3 {
				if (bits-'0')>>(2-column)&1 != 0 {
					at := image.Pt(x+column*dot, y+row*dot)
					fill(img, image.Rectangle{at, at.Add(image.Pt(dot, dot))}, black)
				}
			}
		}
		x += advance
	}
}
