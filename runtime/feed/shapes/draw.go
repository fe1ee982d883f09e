package shapes

import (
	"fmt"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// Palette is the fill of each Color, 8-bit RGB.
var Palette = [numColors][3]uint8{
	Red:    {220, 35, 40},
	Green:  {30, 150, 60},
	Blue:   {35, 70, 225},
	Yellow: {250, 215, 20},
	Purple: {140, 40, 175},
	Orange: {250, 125, 10},
	Cyan:   {20, 200, 225},
	Black:  {15, 15, 15},
}

// Background is the level of all three channels where nothing is drawn.
const Background = 250

// Geometry is in integers, so that a picture has the same bits on every machine.
// Lengths are in units of 1/64 pixel; fractions of the side are written for a side
// of 32 pixels (unit32 = 2048 units) and scaled.
const (
	unit      = 64 // units to the pixel
	subpixels = 8  // samples to the pixel in each direction
	unit32    = 32 * unit
)

// The lengths below are for a side of 32 pixels.
const (
	smallExtent  = 9*unit + unit/4 // 9.25 px
	largeExtent  = 14 * unit
	margin       = unit / 2 // every object keeps half a pixel to the edge
	gap          = 2 * unit // the objects of a pair keep two pixels between them, one after snapping
	anchor       = 9 * unit // distance of the corner positions from the edges
	anchorJitter = 6 * unit / 5
)

// MinSize and MaxSize bound the side of a picture in pixels.
const (
	MinSize = 16
	MaxSize = 1024
)

// scale converts a length for a side of 32 pixels to the side asked for.
func scale(length, size int) int { return length * size / 32 }

// placed is an object at a place; cx and cy are the centre of the bounding square,
// extent its side, all in units.
type placed struct {
	Object
	cx, cy, extent int
}

// Draw draws the scene into a new size x size picture, 8-bit RGB, row by row, three
// bytes a pixel. Places vary with the random stream, by whole pixels. The error
// is Check's, or says that the size is out of MinSize..MaxSize.
func (s Scene) Draw(size int, r *dice.Stream) ([]uint8, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if size < MinSize || size > MaxSize {
		return nil, fmt.Errorf("shapes: picture size %d is outside %d..%d", size, MinSize, MaxSize)
	}
	img := make([]uint8, size*size*3)
	s.draw(img, size, r, func(Position) bool { return false })
	return img, nil
}

// draw fills img; a single without position is never put where avoid says so.
func (s Scene) draw(img []uint8, size int, r *dice.Stream, avoid func(Position) bool) {
	for i := range img {
		img[i] = Background
	}
	if len(s.Objects) == 1 {
		paint(img, size, s.placeSingle(size, r, avoid))
		return
	}
	for _, o := range s.placePair(size, r) {
		paint(img, size, o)
	}
}

// snapped moves the object to whole pixels and gives it a whole number of them:
// straight edges are sharp, and a picture's parts repeat from picture to picture,
// which lets a small codebook describe them.
func (o placed) snapped(size int) placed {
	whole := func(x int) int { return (x + unit/2) / unit * unit }
	o.extent = whole(o.extent)
	at := func(c int) int { return min(max(whole(c-o.extent/2), 0), size*unit-o.extent) + o.extent/2 }
	o.cx, o.cy = at(o.cx), at(o.cy)
	return o
}

// extent draws the object's extent, within 2.5% of nominal.
func (o Object) extent(size int, r *dice.Stream) int {
	e := scale(smallExtent, size)
	if o.Size == Large {
		e = scale(largeExtent, size)
	}
	return r.Between(e-e/40, e+e/40)
}

func (s Scene) placeSingle(size int, r *dice.Stream, avoid func(Position) bool) placed {
	p := placed{Object: s.Objects[0]}
	p.extent = p.Object.extent(size, r)
	side := size * unit
	lo := scale(margin, size) + (p.extent+1)/2
	hi := side - lo
	if s.Position == Anywhere {
		for {
			p.cx, p.cy = r.Between(lo, hi), r.Between(lo, hi)
			if q := p.snapped(size); !avoid(nearestPosition(q.cx, q.cy, side)) {
				return q
			}
		}
	}
	x, y := anchorOf(s.Position, side)
	j := scale(anchorJitter, size)
	p.cx = min(max(x+r.Between(-j, j), lo), hi)
	p.cy = min(max(y+r.Between(-j, j), lo), hi)
	return p.snapped(size)
}

// anchorOf is the centre of a position in a picture whose side is given in units.
func anchorOf(p Position, side int) (x, y int) {
	near := side * anchor / unit32
	far := side - near
	switch p {
	case TopLeft:
		return near, near
	case TopRight:
		return far, near
	case BottomLeft:
		return near, far
	case BottomRight:
		return far, far
	}
	return side / 2, side / 2
}

// nearestPosition is the position whose anchor is nearest to (x, y).
func nearestPosition(x, y, side int) Position {
	best, bestDist := Center, 1<<62
	for p := TopLeft; p < numPositions; p++ {
		ax, ay := anchorOf(p, side)
		if d := (ax-x)*(ax-x) + (ay-y)*(ay-y); d < bestDist {
			best, bestDist = p, d
		}
	}
	return best
}

func (s Scene) placePair(size int, r *dice.Stream) [2]placed {
	var pair [2]placed
	for i := range pair {
		pair[i].Object = s.Objects[i]
		pair[i].extent = s.Objects[i].extent(size, r)
	}
	// first is the upper or left one; along the axis of the relation the objects
	// share what space is left after margins, extents and the gap.
	first, second := &pair[0], &pair[1]
	if s.Relation == Below || s.Relation == RightOf {
		first, second = second, first
	}
	side := size * unit
	m, g := scale(margin, size), scale(gap, size)
	free := side - 2*m - g - first.extent - second.extent
	before := r.Between(0, free)
	between := r.Between(0, free-before)
	a1 := m + before + first.extent/2
	a2 := m + before + first.extent + g + between + second.extent/2

	// Across the axis the centres differ by at most half their distance along it,
	// so that the relation is unmistakable.
	lo1, hi1 := m+(first.extent+1)/2, side-m-(first.extent+1)/2
	lo2, hi2 := m+(second.extent+1)/2, side-m-(second.extent+1)/2
	c1 := r.Between(lo1, hi1)
	reach := (a2 - a1) / 2
	c2 := r.Between(max(lo2, c1-reach), min(hi2, c1+reach))

	if s.Relation == Above || s.Relation == Below {
		first.cx, first.cy, second.cx, second.cy = c1, a1, c2, a2
	} else {
		first.cx, first.cy, second.cx, second.cy = a1, c1, a2, c2
	}
	for i := range pair {
		pair[i] = pair[i].snapped(size)
	}
	return pair
}

// inside tells whether a shape of the given extent covers the point (dx, dy) from
// the centre of its bounding square, y downwards.
func inside(shape Shape, extent, dx, dy int) bool {
	if dx < 0 {
		dx = -dx
	}
	ay := dy
	if ay < 0 {
		ay = -ay
	}
	switch shape {
	case Circle:
		return 4*(dx*dx+dy*dy) <= extent*extent
	case Square:
		return 2*dx <= extent && 2*ay <= extent
	case Triangle:
		return 2*ay <= extent && 4*dx <= 2*dy+extent
	case Cross:
		return (6*dx <= extent && 2*ay <= extent) || (2*dx <= extent && 6*ay <= extent)
	}
	return false
}

// covered counts the samples of pixel (x, y) inside the object, 0..subpixels^2.
func covered(o placed, x, y int) int {
	const step = unit / subpixels
	// Most pixels of an object have all four outermost samples inside. Then all are:
	// three shapes are convex, and the notches of a cross are wider than a pixel.
	left, top := x*unit+step/2-o.cx, y*unit+step/2-o.cy
	right, bottom := left+unit-step, top+unit-step
	if inside(o.Shape, o.extent, left, top) && inside(o.Shape, o.extent, right, top) &&
		inside(o.Shape, o.extent, left, bottom) && inside(o.Shape, o.extent, right, bottom) {
		return subpixels * subpixels
	}
	if half := o.extent / 2; left > half || right < -half || top > half || bottom < -half {
		return 0
	}
	n := 0
	for sy := range subpixels {
		dy := y*unit + sy*step + step/2 - o.cy
		for sx := range subpixels {
			if inside(o.Shape, o.extent, x*unit+sx*step+step/2-o.cx, dy) {
				n++
			}
		}
	}
	return n
}

func paint(img []uint8, size int, o placed) {
	const full = subpixels * subpixels
	half := o.extent/2 + 1
	for y := max(0, (o.cy-half)/unit); y <= min(size-1, (o.cy+half)/unit); y++ {
		for x := max(0, (o.cx-half)/unit); x <= min(size-1, (o.cx+half)/unit); x++ {
			n := covered(o, x, y)
			if n == 0 {
				continue
			}
			px := img[(y*size+x)*3:][:3]
			for c := range px {
				px[c] = uint8((int(px[c])*(full-n) + int(Palette[o.Color][c])*n + full/2) / full)
			}
		}
	}
}
