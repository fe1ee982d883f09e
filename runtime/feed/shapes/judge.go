package shapes

import (
	"math"
)

// Found is an object the judge read out of a picture.
type Found struct {
	Object
	// X and Y are the centre of the object's bounding square and Extent its side,
	// as fractions of the picture's side.
	X, Y, Extent float64
	// Fit is the overlap (soft intersection over union, 0..1) of what was seen with
	// a clean drawing of Shape: about 0.95 for clean pictures.
	Fit float64
}

// Verdict is what a picture shows.
type Verdict struct {
	// Objects are those recognised, topmost first.
	Objects []Found
	// Unclear counts coloured areas as large as an object that fit no shape.
	Unclear int
	// Specks counts coloured areas too small to be an object, which are ignored.
	Specks int
}

// The thresholds of the judge. Clean, blurred and noisy drawings at 32, 48 and 64
// pixels are far on the right side of each: see the tests.
const (
	// minCoverage is the coverage at which a pixel belongs to an object. Half is
	// where blur leaves an edge in its place.
	minCoverage = 0.5
	// noiseDistance is the distance from the background, in levels over the three
	// channels, below which a pixel is background: a tenth of the palest colour's.
	noiseDistance = 23
	// minArea, in pixels of a 32-pixel picture, is about a quarter of the smallest
	// object, a small triangle of 43.
	minArea = 11
	// minShare is the part of an area that a second colour needs to count as a
	// second object that touches the first.
	minShare = 0.25
	// minFit is the overlap a shape needs to be recognised.
	minFit = 0.72
	// certainFit is an overlap that no wrong shape reaches (a circle and a square of
	// one area overlap by 0.83), so that softer drawings need not be tried.
	certainFit = 0.92
	// sizeBoundary, as a fraction of the side, lies midway between small and large.
	sizeBoundary = (smallExtent + largeExtent) / 2.0 / unit32
)

// Judge reads a picture of size x size pixels (8-bit RGB, row by row) made in this
// package's style, drawn or generated. It is plain code: every pixel is expressed as
// a mixture of the background and one colour of the palette, connected areas become
// objects, and each is compared with clean drawings of every shape of the same area
// at the same centre of mass. A picture of another length gives an empty verdict.
func Judge(img []uint8, size int) Verdict {
	if size < MinSize || size > MaxSize || len(img) != size*size*3 {
		return Verdict{}
	}
	j := judging{size: size}
	j.unmix(img)
	return j.judge()
}

type judging struct {
	size     int
	coverage []float64 // how much of the pixel is an object's colour
	color    []Color   // which colour that is
}

// unmix splits every pixel into background and the palette colour that leaves the
// smallest residual.
func (j *judging) unmix(img []uint8) {
	var toward [numColors][3]float64
	var norm [numColors]float64
	for k, c := range Palette {
		for ch := range c {
			toward[k][ch] = float64(c[ch]) - Background
			norm[k] += toward[k][ch] * toward[k][ch]
		}
	}
	n := j.size * j.size
	j.coverage, j.color = make([]float64, n), make([]Color, n)
	for i := range n {
		var d [3]float64
		for ch := range d {
			d[ch] = float64(img[i*3+ch]) - Background
		}
		if d[0]*d[0]+d[1]*d[1]+d[2]*d[2] < noiseDistance*noiseDistance {
			continue
		}
		best := math.Inf(1)
		for k := range toward {
			v := toward[k]
			a := (d[0]*v[0] + d[1]*v[1] + d[2]*v[2]) / norm[k]
			a = min(max(a, 0), 1)
			res := 0.0
			for ch := range d {
				e := d[ch] - a*v[ch]
				res += e * e
			}
			if res < best {
				best, j.coverage[i], j.color[i] = res, a, Color(k)
			}
		}
	}
}

// area is a set of connected pixels, by index, of one dominant colour.
type area struct {
	pixels []int
	color  Color
}

func (j *judging) judge() Verdict {
	var v Verdict
	smallest := minArea * float64(j.size*j.size) / (32 * 32)
	var areas []area
	for _, px := range j.connected(func(i int) bool { return j.coverage[i] >= minCoverage }, nil) {
		if float64(len(px)) < smallest {
			v.Specks++
			continue
		}
		var votes [numColors]float64
		total := 0.0
		for _, i := range px {
			// Squared, since pixels of full coverage know their colour best.
			w := j.coverage[i] * j.coverage[i]
			votes[j.color[i]] += w
			total += w
		}
		best, strong := Color(0), 0
		for k, w := range votes {
			if w > votes[best] {
				best = Color(k)
			}
			if w >= minShare*total {
				strong++
			}
		}
		if strong < 2 {
			areas = append(areas, area{px, best})
			continue
		}
		// Two objects touch: tell them apart by colour.
		for k, w := range votes {
			if w < minShare*total {
				continue
			}
			for _, part := range j.connected(func(i int) bool { return j.color[i] == Color(k) }, px) {
				if float64(len(part)) >= smallest {
					areas = append(areas, area{part, Color(k)})
				} else {
					v.Specks++
				}
			}
		}
	}
	owner := j.spread(areas)
	for n, a := range areas {
		if f, ok := j.recognise(owner, n, a); ok {
			v.Objects = append(v.Objects, f)
		} else {
			v.Unclear++
		}
	}
	for i := 1; i < len(v.Objects); i++ { // insertion sort: there are one or two
		for k := i; k > 0 && v.Objects[k].Y < v.Objects[k-1].Y; k-- {
			v.Objects[k], v.Objects[k-1] = v.Objects[k-1], v.Objects[k]
		}
	}
	return v
}

// connected lists the 4-connected sets of pixels that satisfy in, among the pixels
// given, or in the whole picture if none are given.
func (j *judging) connected(in func(int) bool, among []int) [][]int {
	n := j.size * j.size
	todo := make([]bool, n)
	if among == nil {
		for i := range n {
			todo[i] = in(i)
		}
	} else {
		for _, i := range among {
			todo[i] = in(i)
		}
	}
	var sets [][]int
	for start := range n {
		if !todo[start] {
			continue
		}
		todo[start] = false
		set := []int{start}
		for at := 0; at < len(set); at++ {
			j.neighbours(set[at], func(i int) {
				if todo[i] {
					todo[i] = false
					set = append(set, i)
				}
			})
		}
		sets = append(sets, set)
	}
	return sets
}

func (j *judging) neighbours(i int, visit func(int)) {
	x, y := i%j.size, i/j.size
	if x > 0 {
		visit(i - 1)
	}
	if x+1 < j.size {
		visit(i + 1)
	}
	if y > 0 {
		visit(i - j.size)
	}
	if y+1 < j.size {
		visit(i + j.size)
	}
}

// spread gives every pixel near an area to the nearest one, so that soft edges count
// towards it, and adds it to the area; -1 is nobody. The reach is two pixels of 32.
func (j *judging) spread(areas []area) []int {
	owner := make([]int, j.size*j.size)
	for i := range owner {
		owner[i] = -1
	}
	var front []int
	for n, a := range areas {
		for _, i := range a.pixels {
			owner[i] = n
		}
		front = append(front, a.pixels...)
	}
	for range max(1, 2*j.size/32) {
		var next []int
		for _, i := range front {
			j.neighbours(i, func(k int) {
				if owner[k] < 0 {
					n := owner[i]
					owner[k] = n
					areas[n].pixels = append(areas[n].pixels, k)
					next = append(next, k)
				}
			})
		}
		front = next
	}
	return owner
}

// fill is the part of the bounding square that each shape covers.
var fill = [numShapes]float64{Circle: math.Pi / 4, Square: 1, Triangle: 1. / 2, Cross: 5. / 9}

// softness lists the blurs of the clean drawings compared with, as standard deviations
// in pixels of a 32-pixel picture. A learned decoder blurs by about one.
var softness = []float64{0, 0.8, 1.4}

// recognise finds the shape whose clean or softened drawing overlaps best with what
// area n covers.
func (j *judging) recognise(owner []int, n int, a area) (Found, bool) {
	var mass, mx, my float64
	for _, i := range a.pixels {
		w := j.coverage[i]
		mass += w
		mx += w * (float64(i%j.size) + 0.5)
		my += w * (float64(i/j.size) + 0.5)
	}
	if mass == 0 {
		return Found{}, false
	}
	mx, my = mx/mass, my/mass
	side := float64(j.size)
	var best Found
	for _, sigma := range softness {
		for shape := Circle; shape < numShapes; shape++ {
			extent := math.Sqrt(mass / fill[shape])
			cy := my
			if shape == Triangle {
				cy -= extent / 6 // the centre of mass is a third of the height above the base
			}
			o := placed{
				Object: Object{Color: a.color, Shape: shape},
				cx:     int(math.Round(mx * unit)), cy: int(math.Round(cy * unit)), extent: int(math.Round(extent * unit)),
			}
			if extent/side > sizeBoundary {
				o.Size = Large
			}
			if fit := j.overlap(o, sigma*side/32, owner, n, mass); fit > best.Fit {
				best = Found{Object: o.Object, X: mx / side, Y: cy / side, Extent: extent / side, Fit: fit}
			}
		}
		if best.Fit >= certainFit {
			break
		}
	}
	return best, best.Fit >= minFit
}

// overlap is the soft intersection over union of the object's drawing, blurred, with
// what area n covers.
func (j *judging) overlap(o placed, sigma float64, owner []int, n int, mass float64) float64 {
	reach := int(math.Ceil(2.5 * sigma))
	half := o.extent/2/unit + 2 + reach
	left, top, width := o.cx/unit-half, o.cy/unit-half, 2*half+1
	drawing := make([]float64, width*width)
	for y := reach; y < width-reach; y++ {
		for x := reach; x < width-reach; x++ {
			drawing[y*width+x] = float64(covered(o, left+x, top+y)) / (subpixels * subpixels)
		}
	}
	if sigma > 0 {
		drawing = soften(drawing, width, sigma, reach)
	}
	// The union is what both cover, less what they share. Parts of the drawing
	// outside the picture or on another object's ground can't be compared.
	var both, drawn float64
	for y := range width {
		for x := range width {
			px, py := left+x, top+y
			if px < 0 || py < 0 || px >= j.size || py >= j.size {
				continue
			}
			d := drawing[y*width+x]
			switch i := py*j.size + px; owner[i] {
			case n:
				both += min(j.coverage[i], d)
				drawn += d
			case -1:
				drawn += d
			default:
				// Only a soft fringe may lie there: a body that does is a misfit.
				if d >= minCoverage {
					drawn += d
				}
			}
		}
	}
	return both / (mass + drawn - both)
}

// soften blurs a square field with a Gaussian cut off at reach pixels.
func soften(field []float64, width int, sigma float64, reach int) []float64 {
	kernel := make([]float64, 2*reach+1)
	sum := 0.0
	for i := range kernel {
		d := float64(i - reach)
		kernel[i] = math.Exp(-d * d / (2 * sigma * sigma))
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	across, both := make([]float64, len(field)), make([]float64, len(field))
	for _, pass := range []struct {
		in, out []float64
		step    int
		place   func(i int) int
	}{
		{field, across, 1, func(i int) int { return i % width }},
		{across, both, width, func(i int) int { return i / width }},
	} {
		for i, v := range pass.in {
			if v == 0 {
				continue
			}
			at := pass.place(i)
			for k := max(0, at-reach); k <= min(width-1, at+reach); k++ {
				pass.out[i+(k-at)*pass.step] += v * kernel[k-at+reach]
			}
		}
	}
	return both
}

// Position is the position of the grammar that is nearest to the object.
func (f Found) Position() Position {
	return nearestPosition(int(f.X*unit32), int(f.Y*unit32), unit32)
}

// RelationTo is how f lies to g, by the axis on which their centres differ more.
func (f Found) RelationTo(g Found) Relation {
	dx, dy := g.X-f.X, g.Y-f.Y
	switch {
	case math.Abs(dy) >= math.Abs(dx) && dy > 0:
		return Above
	case math.Abs(dy) >= math.Abs(dx):
		return Below
	case dx > 0:
		return LeftOf
	}
	return RightOf
}

// Matches compares the verdict with a scene. shapesAndColors is true if the objects
// found are the scene's by shape and colour, no more and no fewer; sizes if also
// their sizes are right; relation if also the second object lies where the scene
// says, or for a single object the position is right. A single without a position
// has nothing to get wrong.
func (v Verdict) Matches(s Scene) (shapesAndColors, sizes, relation bool) {
	if v.Unclear > 0 || len(v.Objects) != len(s.Objects) || s.Check() != nil {
		return false, false, false
	}
	same := func(f Found, o Object) bool { return f.Shape == o.Shape && f.Color == o.Color }
	found := append([]Found(nil), v.Objects...)
	if len(found) == 2 && !same(found[0], s.Objects[0]) {
		found[0], found[1] = found[1], found[0]
	}
	sizes = true
	for i, o := range s.Objects {
		if !same(found[i], o) {
			return false, false, false
		}
		sizes = sizes && found[i].Size == o.Size
	}
	switch {
	case len(found) == 2:
		relation = found[0].RelationTo(found[1]) == s.Relation
	case s.Position != Anywhere:
		relation = found[0].Position() == s.Position
	default:
		relation = true
	}
	return true, sizes, relation
}
