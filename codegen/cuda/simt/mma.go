package simt

import (
	"fmt"
	"strings"
)

// shape of a matrix product of one warp.
type shape struct {
	m, n, k int
	// element (row, column) of register r of a thread in group g of four, t-th in
	// it; registers of two 16-bit numbers give that of the first.
	a, b    func(r, g, t int) (int, int) // b's is (k, n)
	an, bn  int                          // registers
	decoded int                          // numbers in a register
}

// pair16 are fragments of 16-bit numbers, two to a register.
func pair16(k int) shape {
	return shape{m: 16, n: 8, k: k, decoded: 2, an: k / 4, bn: k / 8,
		a: func(r, g, t int) (int, int) { return g + r&1*8, 2*t + r>>1*8 },
		b: func(r, g, t int) (int, int) { return 2*t + r*8, g },
	}
}

// single32 are fragments of tf32.
func single32(k int) shape {
	return shape{m: 16, n: 8, k: k, decoded: 1, an: k / 2, bn: k / 4,
		a: func(r, g, t int) (int, int) { return g + r&1*8, t + r>>1*4 },
		b: func(r, g, t int) (int, int) { return t + r*4, g },
	}
}

var shapes = map[string]shape{
	"m16n8k16 f16": pair16(16), "m16n8k8 f16": pair16(8), "m16n8k16 bf16": pair16(16), "m16n8k8 bf16": pair16(8),
	"m16n8k8 tf32": single32(8), "m16n8k4 tf32": single32(4),
}

// mma compiles products of one warp.
func mma(c *compiler, s *stmt, in *inst) error {
	in.count = countMMA
	if !s.take("sync") || !s.take("aligned") {
		return fmt.Errorf("mma isn't mma.sync.aligned")
	}
	sh := ""
	for _, m := range s.mods {
		if strings.HasPrefix(m, "m16n8k") || m == "m8n8k4" {
			sh = m
		}
	}
	s.take(sh)
	var layouts []string
	for _, m := range s.mods {
		if m == "row" || m == "col" {
			layouts = append(layouts, m)
		}
	}
	for range layouts {
		s.one("row", "col")
	}
	ts := s.types()
	if len(ts) != 4 || len(layouts) != 2 {
		return fmt.Errorf("mma needs a shape, two layouts and four types")
	}
	d, a, b, acc := ts[0], ts[1], ts[2], ts[3]
	if a.name != b.name || d.name != acc.name || d.name != "f32" && (d.name != "f16" || a.name != "f16") {
		return fmt.Errorf("mma of these types isn't known")
	}
	if err := s.want(4); err != nil {
		return err
	}
	if sh == "m8n8k4" {
		return mma884(c, s, in, layouts, d, a)
	}
	f, ok := shapes[sh+" "+a.name]
	if !ok || layouts[0] != "row" || layouts[1] != "col" {
		return fmt.Errorf("mma.%s.%s.%s of %s isn't known", sh, layouts[0], layouts[1], a.name)
	}
	cn := 4
	at := types["f32"]
	if d.name == "f16" {
		cn, at = 2, types["b32"]
	}
	ds, err := c.vector(s.args[0], cn, at, true)
	if err != nil {
		return err
	}
	var src [3][]int32
	for i, n := range []int{f.an, f.bn, cn} {
		t := types["b32"]
		if i == 2 {
			t = at
		}
		if src[i], err = c.vector(s.args[1+i], n, t, false); err != nil {
			return err
		}
	}
	half := a.name == "f16"
	// Where the fragments go in matrices of rows of 16, worked out once.
	var ai, bi [4][32]uint8
	for r := range f.an {
		for l := range 32 {
			row, col := f.a(r, l>>2, l&3)
			ai[r][l] = uint8(row*16 + col)
		}
	}
	for r := range f.bn {
		for l := range 32 {
			row, col := f.b(r, l>>2, l&3)
			bi[r][l] = uint8(col*16 + row)
		}
	}
	pair := f.decoded == 2
	k := f.k
	in.fn = func(w *warp, _ *inst, mask uint32) {
		w.whole(mask, "mma")
		var a [256]float32
		var b [128]float32
		fill := func(dst []float32, slots []int32, at *[4][32]uint8) {
			for r, s := range slots {
				v, p := &w.r32[s], &at[r]
				for l, x := range v {
					i := p[l]
					switch {
					case half:
						dst[i], dst[i+1] = halfTable[uint16(x)], halfTable[x>>16]
					case pair:
						dst[i], dst[i+1] = from32(x<<16), from32(x&^0xffff)
					default:
						dst[i] = from32(x &^ 0x1fff) // tf32: the low bits don't count
					}
				}
			}
		}
		fill(a[:], src[0], &ai)
		fill(b[:], src[1], &bi)
		var p [128]float32
		product(&a, &b, &p, k)
		if cn == 4 {
			for q := range 4 {
				c, d := &w.r32[src[2][q]], &w.tmp32
				for l := range d {
					d[l] = to32(from32(c[l]) + p[(l>>2+q>>1*8)*8+l&3*2+q&1])
				}
				w.acc[q] = *d
			}
		} else {
			for q := range 2 {
				c, d := &w.r32[src[2][q]], &w.tmp32
				for l := range d {
					i := (l>>2+q*8)*8 + l&3*2
					d[l] = encodeHalf(decodeHalf(c[l])+p[i]) | encodeHalf(decodeHalf(c[l]>>16)+p[i+1])<<16
				}
				w.acc[q] = *d
			}
		}
		for q, s := range ds {
			w.r32[s] = w.acc[q]
		}
	}
	return nil
}

// product is the product of a, 16 rows of k, and b, 8 columns of k, both in rows of
// 16. The terms are exact and summed in float32, in two halves; a GPU's sums round
// differently.
func product(a *[256]float32, b *[128]float32, p *[128]float32, k int) {
	for i := 0; i < 16; i += 2 {
		a0, a1 := (*[16]float32)(a[i*16:]), (*[16]float32)(a[i*16+16:])
		for j := 0; j < 8; j += 2 {
			b0, b1 := (*[16]float32)(b[j*16:]), (*[16]float32)(b[j*16+16:])
			var s00, s01, s10, s11 float32
			for q := 0; q < k && q < 16; q++ {
				x0, x1, y0, y1 := a0[q], a1[q], b0[q], b1[q]
				s00 += float32(x0 * y0)
				s01 += float32(x0 * y1)
				s10 += float32(x1 * y0)
				s11 += float32(x1 * y1)
			}
			p[i*8+j], p[i*8+j+1] = s00, s01
			p[i*8+8+j], p[i*8+8+j+1] = s10, s11
		}
	}
}

// vector is the slots of a list of n registers of type t.
func (c *compiler) vector(o operand, n int, t typ, write bool) ([]int32, error) {
	if o.kind != opVec || len(o.list) != n {
		return nil, fmt.Errorf("expected %d registers in braces", n)
	}
	out := make([]int32, n)
	for i, e := range o.list {
		var err error
		if write {
			out[i], err = c.dst(e, t)
		} else {
			out[i], err = c.src(e, t)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mma884 compiles the product of sm_70: four of 8x8x4, each by eight threads, l to
// l+3 and l+16 to l+19.
func mma884(c *compiler, s *stmt, in *inst, layouts []string, d, a typ) error {
	if a.name != "f16" {
		return fmt.Errorf("mma.m8n8k4 of %s isn't known", a.name)
	}
	cn, at := 8, types["f32"]
	if d.name == "f16" {
		cn, at = 4, types["b32"]
	}
	ds, err := c.vector(s.args[0], cn, at, true)
	if err != nil {
		return err
	}
	var src [3][]int32
	for i, n := range []int{2, 2, cn} {
		t := types["b32"]
		if i == 2 {
			t = at
		}
		if src[i], err = c.vector(s.args[1+i], n, t, false); err != nil {
			return err
		}
	}
	// Where a lane's numbers go in the four products' operands, rows of four terms one
	// after the other, and where its results are in rows of 8. Without transposition
	// a lane has a row of a or a column of b, else four rows' or columns' element of
	// one term.
	var ai, bi, ci [8][32]uint8
	for l := range 32 {
		first := l >> 2 & 3 * 8 // line of the lane's product
		place := func(own bool, j int) uint8 {
			if own {
				return uint8((first+l>>4*4+l&3)*4 + j)
			}
			return uint8((first+l>>4*4+j)*4 + l&3)
		}
		for j := range 4 {
			ai[j][l], bi[j][l] = place(layouts[0] == "row", j), place(layouts[1] == "col", j)
		}
		for j := range 8 {
			row, col := l>>4*4+l&1+j&2, j&4+l&2+j&1
			if cn == 4 { // pairs
				row, col = l>>4*4+l&3, j
			}
			ci[j][l] = uint8((first+row)*8 + col)
		}
	}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		w.whole(mask, "mma")
		var a, b [128]float32
		fill := func(dst *[128]float32, slots []int32, at *[8][32]uint8) {
			for r, s := range slots {
				low, high := &at[2*r], &at[2*r+1]
				for l, x := range w.r32[s] {
					dst[low[l]&127], dst[high[l]&127] = halfTable[uint16(x)], halfTable[x>>16]
				}
			}
		}
		fill(&a, src[0], &ai)
		fill(&b, src[1], &bi)
		var p [256]float32
		for r := range 32 {
			x := (*[4]float32)(a[4*r:])
			for c := range 8 {
				y := (*[4]float32)(b[r&^7*4+4*c:])
				var s float32
				for k := range 4 {
					s += float32(x[k] * y[k])
				}
				p[8*r+c] = s
			}
		}
		var out [8]v32
		for j := range ds {
			c := &w.r32[src[2][j]]
			for l := range 32 {
				if cn == 4 {
					out[j][l] = encodeHalf(decodeHalf(c[l])+p[ci[2*j][l]]) | encodeHalf(decodeHalf(c[l]>>16)+p[ci[2*j+1][l]])<<16
				} else {
					out[j][l] = to32(from32(c[l]) + p[ci[j][l]])
				}
			}
		}
		for j, s := range ds {
			w.r32[s] = out[j]
		}
	}
	return nil
}
