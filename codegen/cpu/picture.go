package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// picture is an operand that consists of the patches of pictures: element
// (n, y, x | i, j, c) is that of channel c at row y*sy+i and column x*sx+j of
// picture n, or 0 outside. Padded, a picture has rows of width pixels, and
// every patch is in it.
type picture struct {
	op            *Operand
	n, y, x       int // pictures and positions of patches
	kh, kw, c     int // a patch
	sy, sx        int
	each          int // distance of pictures in memory
	row           int // of rows
	height, width int // padded
	y0, y1        int // rows of the padded picture that there are
	x0, x1        int // and columns
	pixel         int // distance of pixels in it
	part          int // channels that are copied
}

// pictureOf recognises patches by the guards of their rows and columns, or
// returns nil.
func pictureOf(op *Operand, at, patch []dim) *picture {
	if len(op.More) > 0 || len(op.Guards) != 2 || len(at) < 2 || len(at) > 3 || len(patch) < 2 || len(patch) > 3 {
		return nil
	}
	for _, g := range op.Guards {
		if anyNonZero(g.At.Batch) {
			return nil
		}
	}
	p := &picture{op: op, n: 1, c: 1}
	if len(at) == 3 {
		p.n, p.each = at[0].extent, at[0].coef
		if anyNonZero(at[0].guard) {
			return nil
		}
		at = at[1:]
	}
	if len(patch) == 3 {
		if c := patch[2]; c.coef != 1 || anyNonZero(c.guard) {
			return nil
		}
		p.c = patch[2].extent
	}
	y, x, i, j := at[0], at[1], patch[0], patch[1]
	gy := 0
	if i.guard[0] == 0 {
		gy = 1
	}
	gx := 1 - gy
	if i.guard[gy] != 1 || i.guard[gx] != 0 || j.guard[gx] != 1 || j.guard[gy] != 0 || y.guard[gx] != 0 || x.guard[gy] != 0 {
		return nil
	}
	p.y, p.x, p.kh, p.kw = y.extent, x.extent, i.extent, j.extent
	p.sy, p.sx, p.row = y.guard[gy], x.guard[gx], i.coef
	if p.sy < 1 || p.sx < 1 || j.coef != p.c || y.coef != p.sy*p.row || x.coef != p.sx*p.c || p.row < 0 || p.each < 0 {
		return nil
	}
	p.height, p.width = p.sy*(p.y-1)+p.kh, p.sx*(p.x-1)+p.kw
	inside := func(g Guard, size int) (lo, hi int) {
		lo, hi = max(0, g.Lo-g.At.Const), min(size, g.Hi-g.At.Const)
		return lo, max(lo, hi)
	}
	p.y0, p.y1 = inside(op.Guards[gy], p.height)
	p.x0, p.x1 = inside(op.Guards[gx], p.width)
	if p.x0 >= p.x1 || p.y0 >= p.y1 {
		return nil
	}
	p.pixel, p.part = p.c, p.c
	return p
}

// spread moves the pixels of the padded picture apart, so that elements of equal channels lie in all sets of a
// cache: an odd number of lines apart.
func (p *picture) spread() {
	if p.c%32 == 0 {
		p.pixel = p.c + 16
	}
}

// only leaves part of the channels in the padded picture.
func (p *picture) only(part int) { p.pixel, p.part = part, part }

// pitch is the distance of rows of the padded picture, in elements.
func (p *picture) pitch() int { return p.width * p.pixel }

// unit is how many elements of a patch lie next to each other in the padded picture.
func (p *picture) unit() int {
	if p.pixel > p.c {
		return p.c
	}
	return p.kw * p.c
}

// inPatch is the place in the padded picture of element i of a patch.
func (p *picture) inPatch(f *build.Func, i V) V {
	q := f.UDiv(i, build.Int(int64(p.c)))
	row := f.UDiv(q, build.Int(int64(p.kw)))
	pixel := f.Sub(q, f.Mul(row, build.Int(int64(p.kw))))
	in := f.Sub(i, f.Mul(q, build.Int(int64(p.c))))
	return f.Add(f.Add(f.Mul(row, build.Int(int64(p.pitch()))), f.Mul(pixel, build.Int(int64(p.pixel)))), in)
}

// band is how many rows of patches a block has, at most limit, and the
// elements of its part of the padded picture.
func (p *picture) band(limit int) (rows, floats int) {
	rows = max(1, min(limit, p.y))
	for rows > 1 && p.floats(rows)/p.pitch()*p.width*p.c > 40<<10 {
		rows--
	}
	rows = ceilDiv(p.y, ceilDiv(p.y, rows))
	return rows, p.floats(rows)
}

// floats is how many elements the padded picture has that so many rows of patches need.
func (p *picture) floats(rows int) int { return ((rows-1)*p.sy + p.kh) * p.pitch() }

// floatsOfAll is how many channels of pixels all padded pictures have.
func (p *picture) floatsOfAll() int { return p.n * p.height * p.width * p.c }

// pad writes the rows of the padded picture that count rows of patches from
// row y of picture n on need to dst, and up to a vector more.
func (p *picture) pad(f *build.Func, base, n, y, count, dst V) {
	lanes := f.Target.Lanes
	first := f.Mul(y, build.Int(int64(p.sy)))
	rows := f.Add(f.Mul(f.Sub(count, build.Int(1)), build.Int(int64(p.sy))), build.Int(int64(p.kh)))
	src := f.At(base, f.Mul(n, build.Int(int64(p.each))))
	zero := func(to V, n int) {
		if n > 0 {
			f.Range(build.Int(0), build.Int(int64(n)), build.Int(int64(lanes)), func(i V) { f.Store(build.Zero(f.Module.Vec()), f.At(to, i)) })
		}
	}
	x := &run{s: &source{f: f, v: &view{op: p.op}}}
	x.begin()
	load := func(from, mask V) V {
		x.src = from
		return x.vector(build.Int(0), 0, mask)
	}
	f.Range(build.Int(0), rows, build.Int(1), func(r V) {
		u := f.Add(first, r)
		to := f.At(dst, f.Mul(r, build.Int(int64(p.pitch()))))
		f.If(f.ULt(f.Sub(u, build.Int(int64(p.y0))), build.Int(int64(p.y1-p.y0))), func() []V {
			// Left to right: each part may write past its end.
			zero(to, p.x0*p.pixel)
			from, mid := f.Offset(f.At(src, f.Mul(u, build.Int(int64(p.row)))), p.x0*p.c), f.Offset(to, p.x0*p.pixel)
			copied := func(from, mid V, n int) {
				whole := n / lanes * lanes
				const unroll = 4
				many := whole / (unroll * lanes) * (unroll * lanes)
				if many > 0 {
					f.Range(build.Int(0), build.Int(int64(many)), build.Int(int64(unroll*lanes)), func(i V) {
						for v := 0; v < unroll; v++ {
							f.Store(load(f.Offset(f.At(from, i), v*lanes), nil), f.Offset(f.At(mid, i), v*lanes))
						}
					})
				}
				for i := many; i < n; i += lanes {
					var mask V
					if i+lanes > n {
						mask = f.LaneMask(lanes, build.Int(int64(n-i)))
					}
					f.Store(load(f.Offset(from, i), mask), f.Offset(mid, i))
				}
			}
			if p.pixel == p.c {
				copied(from, mid, (p.x1-p.x0)*p.c)
			} else {
				f.Range(build.Int(0), build.Int(int64(p.x1-p.x0)), build.Int(1), func(i V) {
					copied(f.At(from, f.Mul(i, build.Int(int64(p.c)))), f.At(mid, f.Mul(i, build.Int(int64(p.pixel)))), p.part)
				})
			}
			zero(f.Offset(to, p.x1*p.pixel), (p.width-p.x1)*p.pixel)
			return nil
		}, func() []V { zero(to, p.pitch()); return nil })
	})
}
