package build

import (
	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/enum"
)

func (f *Func) sreg(name string) Value { return f.Call("llvm.nvvm.read.ptx.sreg."+name, I32) }

// Thread is the thread's number in its block.
func (f *Func) Thread() Value { return f.sreg("tid.x") }

// BlockX, BlockY and BlockZ are the block's place in the grid.
func (f *Func) BlockX() Value { return f.sreg("ctaid.x") }

// BlockY is the block's place along y.
func (f *Func) BlockY() Value { return f.sreg("ctaid.y") }

// BlockZ is the block's place along z.
func (f *Func) BlockZ() Value { return f.sreg("ctaid.z") }

// GridX is the number of blocks along x.
func (f *Func) GridX() Value { return f.sreg("nctaid.x") }

// Barrier waits for all threads of the block and orders their memory accesses.
func (f *Func) Barrier() { f.Call("llvm.nvvm.barrier0", Void) }

// For runs body for i from..to-1 in steps, carrying values from one iteration
// to the next; it returns them.
func (f *Func) For(from, to, step Value, carried []Value, body func(i Value, c []Value) []Value) []Value {
	pre := f.b
	head, in, exit := f.block("head"), f.block("body"), f.block("exit")
	f.at().NewBr(head)
	f.enter(head)
	iv := head.NewPhi(ir.NewIncoming(from, pre))
	phis := make([]Value, len(carried))
	for i, c := range carried {
		phis[i] = head.NewPhi(ir.NewIncoming(c, pre))
	}
	head.NewCondBr(head.NewICmp(enum.IPredSLT, iv, to), in, exit)
	f.enter(in)
	next := body(iv, phis)
	inext := f.Add(iv, step)
	latch := f.b
	latch.NewBr(head)
	iv.Incs = append(iv.Incs, ir.NewIncoming(inext, latch))
	for i := range phis {
		p := phis[i].(*ir.InstPhi)
		p.Incs = append(p.Incs, ir.NewIncoming(next[i], latch))
	}
	f.enter(exit)
	return phis
}

// If runs then where c holds.
func (f *Func) If(c Value, then func()) {
	if x, ok := known(c); ok {
		if x != 0 {
			then()
		}
		return
	}
	t, e := f.block("then"), f.block("fi")
	f.at().NewCondBr(c, t, e)
	f.enter(t)
	then()
	f.b.NewBr(e)
	f.enter(e)
}

// IfElse gives what then returns where c holds, and what otherwise returns
// elsewhere: as many values of the same types.
func (f *Func) IfElse(c Value, then, otherwise func() []Value) []Value {
	t, o, e := f.block("then"), f.block("else"), f.block("fi")
	f.at().NewCondBr(c, t, o)
	f.enter(t)
	x := then()
	fromT := f.b
	fromT.NewBr(e)
	f.enter(o)
	y := otherwise()
	fromO := f.b
	fromO.NewBr(e)
	f.enter(e)
	out := make([]Value, len(x))
	for i := range x {
		out[i] = e.NewPhi(ir.NewIncoming(x[i], fromT), ir.NewIncoming(y[i], fromO))
	}
	return out
}

// Return ends the kernel.
func (f *Func) Return() {
	f.at().NewRet(nil)
	f.mark()
}
