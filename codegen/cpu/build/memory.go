package build

import (
	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/types"
)

// At is the address p + i elements, i an i64.
func (f *Func) At(p, i V) V {
	if x, ok := ConstInt(i); ok && x == 0 {
		return p
	}
	g := f.b.NewGetElementPtr(p.Type().(*types.PointerType).ElemType, p, i)
	g.InBounds = true
	return g
}

// Offset is the address p + n elements.
func (f *Func) Offset(p V, n int) V { return f.At(p, Int(int64(n))) }

// Cast is p as a pointer to elem.
func (f *Func) Cast(p V, elem types.Type) V { return f.Bitcast(p, PtrTo(elem)) }

// Slot loads 64-bit slot i of an argument block.
func (f *Func) Slot(args V, i int) V { return f.Load(I64, f.Offset(args, i)) }

// SlotPtr loads slot i of an argument block as a pointer to elem.
func (f *Func) SlotPtr(args V, i int, elem types.Type) V {
	return f.b.NewIntToPtr(f.Slot(args, i), PtrTo(elem))
}

// Load reads a value of type t at p, which need only be aligned to t's element.
func (f *Func) Load(t types.Type, p V) V { return f.LoadAligned(t, p, elementSize(t)) }

// LoadAligned reads a value of type t at p, aligned to align bytes.
func (f *Func) LoadAligned(t types.Type, p V, align int) V {
	l := f.b.NewLoad(t, f.Cast(p, t))
	l.Align = ir.Align(align)
	return l
}

// Store writes v to p, which need only be aligned to v's element.
func (f *Func) Store(v, p V) { f.StoreAligned(v, p, elementSize(v.Type())) }

// StoreAligned writes v to p, aligned to align bytes.
func (f *Func) StoreAligned(v, p V, align int) {
	s := f.b.NewStore(v, f.Cast(p, v.Type()))
	s.Align = ir.Align(align)
}

// MaskLoad reads the lanes of vector type t where mask is set; the others are 0 and not touched.
// A nil mask reads all.
func (f *Func) MaskLoad(t *types.VectorType, p, mask V) V {
	if mask == nil {
		return f.Load(t, p)
	}
	mt := VecOf(int(t.Len), I1)
	fn := f.Module.declare("llvm.masked.load."+mangle(t)+"."+mangle(PtrTo(t)), t, PtrTo(t), I32, mt, t)
	return f.b.NewCall(fn, f.Cast(p, t), constant.NewInt(types.I32, int64(elementSize(t))), mask, Zero(t))
}

// MaskStore writes the lanes of v where mask is set. A nil mask writes all.
func (f *Func) MaskStore(v, p, mask V) {
	if mask == nil {
		f.Store(v, p)
		return
	}
	t := v.Type().(*types.VectorType)
	mt := VecOf(int(t.Len), I1)
	fn := f.Module.declare("llvm.masked.store."+mangle(t)+"."+mangle(PtrTo(t)), types.Void, t, PtrTo(t), I32, mt)
	f.b.NewCall(fn, v, f.Cast(p, t), constant.NewInt(types.I32, int64(elementSize(t))), mask)
}

// Gather reads elements at p + index, index a vector of i32 or i64, where mask is set; the
// others are 0. A nil mask reads all.
func (f *Func) Gather(p, index, mask V) V {
	pt := p.Type().(*types.PointerType)
	n := Lanes(index)
	if mask == nil {
		mask = IntOf(VecOf(n, I1), 1)
	}
	g := f.b.NewGetElementPtr(pt.ElemType, p, index)
	g.Typ = VecOf(n, pt)
	t := VecOf(n, pt.ElemType)
	fn := f.Module.declare("llvm.masked.gather."+mangle(t)+"."+mangle(VecOf(n, pt)), t, VecOf(n, pt), I32, VecOf(n, I1), t)
	return f.b.NewCall(fn, g, constant.NewInt(types.I32, int64(sizeOf(pt.ElemType))), mask, Zero(t))
}

// Prefetch asks for the cache line at p, to be read or written soon. level is 3 for L1, 2 for L2.
func (f *Func) Prefetch(p V, write bool, level int) {
	fn := f.Module.declare("llvm.prefetch.p0i8", types.Void, PtrTo(I8), I32, I32, I32)
	rw := int64(0)
	if write {
		rw = 1
	}
	f.b.NewCall(fn, f.Cast(p, I8), constant.NewInt(types.I32, rw), constant.NewInt(types.I32, int64(level)), constant.NewInt(types.I32, 1))
}

func elementSize(t types.Type) int {
	if vt, ok := t.(*types.VectorType); ok {
		return sizeOf(vt.ElemType)
	}
	return sizeOf(t)
}
