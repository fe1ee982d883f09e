package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gouache-ml/gouache/runtime/disk"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// Picture is an 8-bit RGB image: Pixels holds Height*Width*3 bytes, row by row.
type Picture struct {
	Width, Height int
	Pixels        []uint8
}

// Square wraps the pixels of a square picture of the given side.
func Square(pixels []uint8, side int) Picture { return Picture{side, side, pixels} }

// FromFloats converts n floats in [0,1] (HWC, clamped, rounded to nearest; NaN is
// black) to a picture.
func FromFloats(values []float32, width, height int) Picture {
	p := Picture{width, height, make([]uint8, len(values))}
	for i, v := range values {
		switch {
		case v >= 1:
			p.Pixels[i] = 255
		case v > 0:
			p.Pixels[i] = uint8(v*255 + 0.5)
		}
	}
	return p
}

// Check tells whether the number of pixels fits the width and height.
func (p Picture) Check() error {
	if p.Width <= 0 || p.Height <= 0 || len(p.Pixels) != p.Width*p.Height*3 {
		return fmt.Errorf("picture: %d bytes do not make %dx%d RGB", len(p.Pixels), p.Width, p.Height)
	}
	return nil
}

// Image converts the picture to the standard library's type.
func (p Picture) Image() *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	for i := range p.Width * p.Height {
		copy(m.Pix[i*4:], p.Pixels[i*3:i*3+3])
		m.Pix[i*4+3] = 255
	}
	return m
}

// Encode writes the picture as PNG; the same pixels give the same bytes.
func (p Picture) Encode(w io.Writer) error {
	if err := p.Check(); err != nil {
		return err
	}
	return png.Encode(w, p.Image())
}

// Save writes the picture to a PNG file, making its folder if need be. The file
// appears whole or not at all.
func (p Picture) Save(path string) error {
	if err := p.Check(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	var png bytes.Buffer
	if err := p.Encode(&png); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return disk.Replace(path, png.Bytes())
}

// GridOptions is how a grid is laid out; zero values mean the defaults.
type GridOptions struct {
	Columns   int // default: about square
	CellWidth int // width of a picture in the grid in pixels; default 128, small pictures are enlarged by whole factors
}

const (
	glyphWidth, lineHeight = 7, 13 // basicfont.Face7x13
	padding                = 6
)

// Grid lays out pictures of one size with their captions, wrapped, underneath.
// captions may be nil, or shorter than pictures.
func Grid(pictures []Picture, captions []string, opt GridOptions) (Picture, error) {
	if len(pictures) == 0 {
		return Picture{}, fmt.Errorf("picture: a grid needs at least one picture")
	}
	first := pictures[0]
	for i, p := range pictures {
		if err := p.Check(); err != nil {
			return Picture{}, fmt.Errorf("grid picture %d: %w", i, err)
		}
		if p.Width != first.Width || p.Height != first.Height {
			return Picture{}, fmt.Errorf("picture: grid picture %d is %dx%d, the first is %dx%d", i, p.Width, p.Height, first.Width, first.Height)
		}
	}
	cell := opt.CellWidth
	if cell <= 0 {
		cell = 128
	}
	factor := max(1, cell/first.Width)
	w, h := first.Width*factor, first.Height*factor
	columns := opt.Columns
	if columns <= 0 {
		for columns = 1; columns*columns < len(pictures); columns++ {
		}
	}
	columns = min(columns, len(pictures))
	rows := (len(pictures) + columns - 1) / columns

	// A row is as high as its longest caption needs.
	lines := make([][]string, len(pictures))
	rowLines := make([]int, rows)
	for i := range pictures {
		if i < len(captions) {
			lines[i] = wrap(captions[i], max(1, w/glyphWidth))
		}
		rowLines[i/columns] = max(rowLines[i/columns], len(lines[i]))
	}
	height := padding
	tops := make([]int, rows)
	for r, n := range rowLines {
		tops[r] = height
		height += h + n*lineHeight + padding
		if n > 0 {
			height += padding / 2
		}
	}
	m := image.NewRGBA(image.Rect(0, 0, padding+columns*(w+padding), height))
	for i := range m.Pix {
		m.Pix[i] = 255
	}
	for i, p := range pictures {
		x0, y0 := padding+(i%columns)*(w+padding), tops[i/columns]
		for y := -1; y <= h; y++ {
			for x := -1; x <= w; x++ {
				c := color.RGBA{200, 200, 200, 255} // a thin frame, since backgrounds are often white
				if x >= 0 && y >= 0 && x < w && y < h {
					px := p.Pixels[((y/factor)*p.Width+x/factor)*3:]
					c = color.RGBA{px[0], px[1], px[2], 255}
				}
				m.SetRGBA(x0+x, y0+y, c)
			}
		}
		for l, text := range lines[i] {
			d := font.Drawer{Dst: m, Src: image.Black, Face: basicfont.Face7x13,
				Dot: fixed.P(x0, y0+h+padding/2+l*lineHeight+basicfont.Face7x13.Ascent)}
			d.DrawString(text)
		}
	}
	out := Picture{m.Rect.Dx(), m.Rect.Dy(), make([]uint8, m.Rect.Dx()*m.Rect.Dy()*3)}
	for i := range out.Width * out.Height {
		copy(out.Pixels[i*3:i*3+3], m.Pix[i*4:])
	}
	return out, nil
}

// wrap breaks text into lines of at most width characters, at spaces where it can.
func wrap(text string, width int) []string {
	var lines []string
	var line []rune
	for _, word := range strings.Fields(text) {
		w := []rune(word)
		if len(line) > 0 && len(line)+1+len(w) > width {
			lines = append(lines, string(line))
			line = nil
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		line = append(line, w...)
		for len(line) > width {
			lines = append(lines, string(line[:width]))
			line = line[width:]
		}
	}
	if len(line) > 0 {
		lines = append(lines, string(line))
	}
	return lines
}
