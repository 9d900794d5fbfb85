package plot

import (
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"github.com/werbenhu/registry/ring"
)

// PNG writes the picture of SVG as pixels. Labels are in capitals, in a small font of its own that
// has only ASCII letters, digits and some signs. It returns w's error, if any.
func PNG(w io.Writer, r *ring.Ring) error {
	p := newPicture(r, imageBars, sectors)
	img := image.NewRGBA(image.Rect(0, 0, imageWide, imageHeight(p)))
	fill(img, img.Bounds(), color.RGBA{0xff, 0xff, 0xff, 0xff})
	pngText(img, margin, margin-10, p.title+"; "+p.note)
	pngCircle(img, p)
	longest := p.longest()
	for i, b := range p.bars {
		y := 2*margin + i*rowHeight
		width, fair := scale(b.share, longest), scale(b.fair, longest)
		label := clip(b.label, 25)
		pngText(img, barLeft-6-textWidth(label), y+2, label)
		fill(img, image.Rect(barLeft, y, barLeft+width, y+rowHeight-4), colourOf(b.index))
		if b.fair > 0 && !b.rest {
			fill(img, image.Rect(barLeft+fair-1, y-1, barLeft+fair+1, y+rowHeight-3), black)
		}
		pngText(img, barLeft+max(width, fair)+6, y+2, b.exact.Percent())
	}
	return png.Encode(w, img)
}

var black = color.RGBA{0, 0, 0, 0xff}

func fill(img draw.Image, area image.Rectangle, c color.Color) {
	draw.Draw(img, area, image.NewUniform(c), image.Point{}, draw.Src)
}

// pngCircle colours each pixel between the two radii by its angle.
func pngCircle(img *image.RGBA, p picture) {
	const radius = diameter / 2
	for y := -radius; y < radius; y++ {
		for x := -radius; x < radius; x++ {
			distance := math.Hypot(float64(x), float64(y))
			if distance >= radius || distance < radius*0.62 {
				continue
			}
			turn := math.Atan2(float64(x), float64(-y)) / (2 * math.Pi)
			if turn < 0 {
				turn++
			}
			sector := min(int(turn*float64(len(p.circle))), len(p.circle)-1)
			img.SetRGBA(x+radius+margin, y+radius+2*margin, colourOf(p.circle[sector]))
		}
	}
}
