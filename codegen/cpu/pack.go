package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// PackB is a kernel that copies the right operand of a Gemm into the order in which the
// micro-kernels read it: for each batch, for each block of k, for each NR columns, kc rows of NR
// elements. Packing once serves all chunks, and for weights all steps between two updates.
type PackB struct {
	Name        string
	Batch, N, K []int
	B           Operand
	Multiply    ir.DType // that of the Gemm
	Winograd    bool     // B is filters of 3x3, which are transformed; see Gemm
	Slot        int      // argument slot of the packed buffer, of PackedFloats elements
	Chunks      int      // into which the panels are divided
}

// PackedFloats is the number of float32 elements that batches packed operands of k rows and n
// columns take on target t, for a Gemm with that Multiply.
func PackedFloats(t *build.Target, multiply ir.DType, batches, n, k int) int {
	in := multiplies(t, multiply)
	return batches * packedFloats(tileOf(t, in), in, n, k)
}

func packedFloats(t *build.Target, in ir.DType, n, k int) int {
	if in != ir.F32 {
		k = ceilDiv(k, 2)
	}
	return roundUp(n, t.NR()) * k
}

// narrowCols is how many elements of the sum are packed in f32 before they are narrowed: 64 columns of them stay in the L1 cache.
const narrowCols = 64

// packCols is how many columns of k packPanel transposes at a time.
const packCols = 64

// packTemp is the temporary space of packPanel, in bytes.
func packTemp(t *build.Target) int {
	return 4 * (t.NR()*tempStride(t, packCols) + t.Lanes*t.Lanes)
}

// tempStride is the distance of rows of n elements waiting to be transposed.
func tempStride(t *build.Target, n int) int { return roundUp(n, t.Lanes) + 16 }

// Scratch is how many bytes of scratch memory each worker needs.
func (p *PackB) Scratch(t *build.Target) int { return p.layout(t).size }

type packLayout struct {
	layout
	t                          *build.Target // with the product's register tile
	in                         ir.DType      // that it multiplies in
	temp, table, panel, square int
	v                          *view
	sum                        bool
}

func (p *PackB) layout(t *build.Target) *packLayout {
	l := &packLayout{in: multiplies(t, p.Multiply)}
	l.t = tileOf(t, l.in)
	t = l.t
	l.v, l.sum = oriented(&p.B, p.N, p.K)
	switch {
	case p.Winograd:
		l.panel, l.square = l.take(4*9*winogradChannels*t.NR()), l.take(4*tileParts*t.Lanes)
	case l.in != ir.F32:
		l.panel = l.take(4 * narrowCols * t.NR())
	}
	l.temp = l.take(packTemp(t))
	l.table = l.take(l.v.tableBytes())
	return l
}

// EmitPackB adds the kernel to m.
func EmitPackB(m *build.Module, p *PackB) error {
	if err := p.B.check(len(p.Batch), len(p.N), len(p.K)); err != nil {
		return fmt.Errorf("internal: %s: pack: %v", p.Name, err)
	}
	if p.Chunks < 1 {
		return fmt.Errorf("internal: %s: pack: %d chunks", p.Name, p.Chunks)
	}
	l := p.layout(m.Target)
	if p.Winograd {
		l.emitFilters(m, p)
		return nil
	}
	t := l.t
	n, k := product(p.N), product(p.K)
	nr := int64(t.NR())
	panels := ceilDiv(n, t.NR())
	kcMax := kBlock(k, t.KC)
	units := build.Int(int64(product(p.Batch) * panels))
	f, args, c0, c1, scratch := m.Kernel(p.Name)
	f.Target = t
	temp := f.Cast(f.Offset(scratch, l.temp), build.F32)
	wide := f.Cast(f.Offset(scratch, l.panel), build.F32)
	table := f.Cast(f.Offset(scratch, l.table), build.I64)
	chunks := build.Int(int64(p.Chunks))
	lo := f.UDiv(f.Mul(units, c0), chunks)
	hi := f.UDiv(f.Mul(units, c1), chunks)
	f.Range(lo, hi, build.Int(1), func(u V) {
		batch := f.UDiv(u, build.Int(int64(panels)))
		j := f.URem(u, build.Int(int64(panels)))
		s := bind(f, l.v, args, digits(f, batch, p.Batch), table)
		dst := f.At(f.SlotPtr(args, p.Slot, build.F32), f.Mul(batch, build.Int(int64(packedFloats(t, l.in, n, k)))))
		n0 := f.Mul(j, build.Int(nr))
		rem := f.Sub(build.Int(int64(n)), n0)
		f.Range(build.Int(0), build.Int(int64(k)), build.Int(int64(kcMax)), func(k0 V) {
			kc := f.Min(build.Int(int64(kcMax)), f.Sub(build.Int(int64(k)), k0))
			panel := f.At(dst, panelOf(f, l.in, k0, kc, j, panels))
			if l.in == ir.F32 {
				s.packPanel(l.sum, k0, kc, n0, rem, temp, panel)
				return
			}
			f.Range(build.Int(0), kc, build.Int(narrowCols), func(i V) {
				part := f.Min(build.Int(narrowCols), f.Sub(kc, i))
				s.packPanel(l.sum, f.Add(k0, i), part, n0, rem, temp, wide)
				narrower{f, l.in}.panel(wide, f.At(panel, f.Mul(halved(f, i), build.Int(nr))), part, build.Int(nr))
			})
		})
	})
	f.Return()
	return nil
}

// packedDepth is how many floats n elements of a packed column take.
func packedDepth(f *build.Func, in ir.DType, n V) V {
	if in == ir.F32 {
		return n
	}
	return halved(f, n)
}

// panelOf is where in a packed operand panel j of a block of the sum begins, of kc elements from k0 on.
func panelOf(f *build.Func, in ir.DType, k0, kc, j V, panels int) V {
	k0, kc = packedDepth(f, in, k0), packedDepth(f, in, kc)
	nr := build.Int(int64(f.Target.NR()))
	return f.Add(f.Mul(k0, f.Mul(build.Int(int64(panels)), nr)), f.Mul(f.Mul(j, kc), nr))
}

// packPanel writes rows [k0, k0+kc) of columns [n0, n0+NR) to panel; columns beyond the rem that
// are left become 0. sum says that the view's rows are k.
func (s *source) packPanel(sum bool, k0, kc, n0, rem, temp, panel V) {
	f := s.f
	t := f.Target
	nr := build.Int(int64(t.NR()))
	if sum {
		s.exact = len(s.v.outer) > 0 && s.v.runLen%t.Lanes != 0
		f.If(f.Le(nr, rem),
			func() []V {
				if s.v.matrix() {
					s.copyPanels(k0, kc, n0, build.Int(1), panel)
				} else {
					s.load(k0, kc, n0, nr, panel, t.NR())
				}
				return nil
			},
			func() []V {
				zeroFill(f, panel, f.Mul(kc, nr))
				s.load(k0, kc, n0, rem, panel, t.NR())
				return nil
			})
		s.exact = false
		return
	}
	// Rows of the view are columns of the panel: collect packCols elements of NR rows, transpose.
	stride := tempStride(t, packCols)
	rows := f.Min(rem, nr)
	f.When(f.Lt(rem, nr), func() { zeroFill(f, temp, build.Int(int64(t.NR()*stride))) })
	spare := f.Offset(temp, t.NR()*stride)
	f.Range(build.Int(0), kc, build.Int(packCols), func(k V) {
		n := f.Min(build.Int(packCols), f.Sub(kc, k))
		s.load(n0, rows, f.Add(k0, k), n, temp, stride)
		f.Range(build.Int(0), n, build.Int(int64(t.Lanes)), func(i V) {
			whole := f.Le(f.Add(i, build.Int(int64(t.Lanes))), n)
			for v := 0; v < t.NV; v++ {
				src := f.At(f.Offset(temp, v*t.Lanes*stride), i)
				dst := f.Offset(f.At(panel, f.Mul(f.Add(k, i), nr)), v*t.Lanes)
				f.If(whole, func() []V {
					callTranspose(f, src, stride, dst, t.NR())
					return nil
				}, func() []V {
					// The rest of the panel belongs to somebody else.
					callTranspose(f, src, stride, spare, t.Lanes)
					f.Range(build.Int(0), f.Sub(n, i), build.Int(1), func(r V) {
						x := f.Load(f.Module.Vec(), f.At(spare, f.Mul(r, build.Int(int64(t.Lanes)))))
						f.Store(x, f.At(dst, f.Mul(r, nr)))
					})
					return nil
				})
			}
		})
	})
}

// packRows is packPanel for panels [first, last) of a matrix whose rows are k: it reads
// along the rows, so that the processor runs ahead and no cache line is fetched twice.
func (s *source) packRows(k0, kc, first, last, n, temp, dst V) {
	f := s.f
	nr := build.Int(int64(f.Target.NR()))
	whole := f.Min(last, f.UDiv(n, nr))
	s.copyPanels(k0, kc, f.Mul(first, nr), f.Sub(whole, first), dst)
	f.When(f.Lt(whole, last), func() {
		n0 := f.Mul(whole, nr)
		s.packPanel(true, k0, kc, n0, f.Sub(n, n0), temp, f.At(dst, f.Mul(f.Sub(whole, first), f.Mul(kc, nr))))
	})
}

// copyPanels writes rows [k0, k0+kc) of count panels, of NR columns of a matrix whose rows
// are k, from column n0 on, one panel after the other to dst.
func (s *source) copyPanels(k0, kc, n0, count, dst V) {
	f := s.f
	t := f.Target
	nr := build.Int(int64(t.NR()))
	pitch := stepOf(s.v.rows)
	x := &run{s: s}
	x.begin()
	turn := func(rows int) func(k V) {
		return func(k V) {
			from := f.At(f.At(s.base, f.Mul(f.Add(k0, k), build.Int(int64(pitch)))), n0)
			to := f.At(dst, f.Mul(k, nr))
			f.Range(build.Int(0), count, build.Int(1), func(j V) {
				x.src = f.At(from, f.Mul(j, nr))
				p := f.At(to, f.Mul(j, f.Mul(kc, nr)))
				for u := 0; u < rows; u++ {
					for v := 0; v < t.NV; v++ {
						f.Store(x.vector(build.Int(0), u*pitch+v*t.Lanes, nil), f.Offset(p, u*t.NR()+v*t.Lanes))
					}
				}
			})
		}
	}
	most := f.And(kc, build.Int(-panelTurn))
	f.Range(build.Int(0), most, build.Int(panelTurn), turn(panelTurn))
	f.Range(most, kc, build.Int(1), turn(1))
}

// panelTurn is how many rows of k are copied at once: so few that they do not throw each other
// out of the cache, whatever their distance.
const panelTurn = 8

// packPanels writes the left block of rows [m0, m0+mc) and columns [k0, k0+kc) to dst, from a
// view whose rows are k: each of count panels, of q or q+1 rows, holds its rows' elements for the
// first k, then for the second. A panel of q+1 is among the first extra. Panel p starts at
// element panelAt. A block has at most most rows.
func (s *source) packPanels(k0, kc, m0, mc, m, count, q, extra, temp, dst V, most int) {
	f := s.f
	t := f.Target
	width := panelWidth(t)
	x := &run{s: &source{f: f, v: &view{op: &Operand{}}}} // rows in temp
	if s.v.matrix() {
		x = &run{s: s}
		x.begin()
	}
	// Each copy of a row ends in the place of the next k or in the gap after the panel.
	copyRows := func(n int, p, k, from V, pitch int, masks []V) {
		r0, rows := panelRows(f, p, q, extra)
		to := f.At(f.At(dst, panelAt(f, p, r0, kc)), f.Mul(k, rows))
		from = f.At(from, r0)
		for u := 0; u < n; u++ {
			for i := 0; i < width; i += t.Lanes {
				var mask V
				if masks != nil {
					mask = masks[i/t.Lanes]
				}
				x.src = from
				f.Store(x.vector(build.Int(0), u*pitch+i, mask), f.Offset(to, i))
			}
			to = f.At(to, rows)
		}
	}
	if s.v.matrix() {
		pitch := stepOf(s.v.rows)
		base := f.At(s.base, m0)
		turn := func(n int) func(k V) {
			return func(k V) {
				from := f.At(base, f.Mul(f.Add(k0, k), build.Int(int64(pitch))))
				// Only the last panel can reach beyond the matrix.
				last := f.Sub(count, build.Int(1))
				f.Range(build.Int(0), last, build.Int(1), func(p V) { copyRows(n, p, k, from, pitch, nil) })
				r0, _ := panelRows(f, last, q, extra)
				left := f.Sub(m, f.Add(m0, r0))
				var masks []V
				for i := 0; i < width; i += t.Lanes {
					masks = append(masks, f.LaneMask(t.Lanes, f.Sub(left, build.Int(int64(i)))))
				}
				copyRows(n, last, k, from, pitch, masks)
			}
		}
		most := f.And(kc, build.Int(-panelTurn))
		f.Range(build.Int(0), most, build.Int(panelTurn), turn(panelTurn))
		f.Range(most, kc, build.Int(1), turn(1))
		return
	}
	stride := tempStride(t, most)
	f.Range(build.Int(0), kc, build.Int(panelTurn), func(k V) {
		n := f.Min(build.Int(panelTurn), f.Sub(kc, k))
		s.load(f.Add(k0, k), n, m0, mc, temp, stride)
		f.Range(build.Int(0), count, build.Int(1), func(p V) {
			f.Range(build.Int(0), n, build.Int(1), func(u V) {
				copyRows(1, p, f.Add(k, u), f.At(temp, f.Mul(u, build.Int(int64(stride)))), 0, nil)
			})
		})
	})
}

// panelRows is the first row of panel p in a block, and how many rows it has.
func panelRows(f *build.Func, p, q, extra V) (first, rows V) {
	return f.Add(f.Mul(p, q), f.Min(p, extra)), f.Add(q, f.ZExt(f.Lt(p, extra), build.I64))
}

// panelAt is where packPanels begins panel p, whose first row is r0.
func panelAt(f *build.Func, p, r0, kc V) V {
	return f.Add(f.Mul(r0, kc), f.Mul(p, build.Int(int64(panelWidth(f.Target)))))
}

// zeroFill writes n zeros, n rounded up to whole vectors.
func zeroFill(f *build.Func, dst, n V) {
	f.Range(build.Int(0), n, build.Int(int64(f.Target.Lanes)), func(i V) {
		f.Store(build.Zero(f.Module.Vec()), f.At(dst, i))
	})
}
