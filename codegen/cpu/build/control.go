package build

import (
	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
)

// For runs body for i = lo, lo+step, ... while i < hi (i64, step > 0). carried holds the values
// of the previous iteration, init before the first; body returns those for the next. For returns
// the last ones.
func (f *Func) For(lo, hi, step V, init []V, body func(i V, carried []V) []V) []V {
	pre := f.b
	loop, exit := f.block("loop"), f.block("exit")
	l, ok := ConstInt(lo)
	h, ok2 := ConstInt(hi)
	always := ok && ok2 && l < h
	if always {
		pre.NewBr(loop)
	} else {
		pre.NewCondBr(pre.NewICmp(enum.IPredSLT, lo, hi), loop, exit)
	}
	f.b = loop
	i := loop.NewPhi(ir.NewIncoming(lo, pre))
	phis := make([]*ir.InstPhi, len(init))
	carried := make([]V, len(init))
	for j := range init {
		phis[j] = loop.NewPhi(ir.NewIncoming(init[j], pre))
		carried[j] = phis[j]
	}
	out := body(i, carried)
	end := f.b
	next := end.NewAdd(i, step)
	next.OverflowFlags = []enum.OverflowFlag{enum.OverflowFlagNSW}
	end.NewCondBr(end.NewICmp(enum.IPredSLT, next, hi), loop, exit)
	i.Incs = append(i.Incs, ir.NewIncoming(next, end))
	f.b = exit
	res := make([]V, len(init))
	for j := range init {
		phis[j].Incs = append(phis[j].Incs, ir.NewIncoming(out[j], end))
		if always {
			res[j] = out[j]
			continue
		}
		res[j] = exit.NewPhi(ir.NewIncoming(init[j], pre), ir.NewIncoming(out[j], end))
	}
	return res
}

// Range is For from lo in steps of step without carried values.
func (f *Func) Range(lo, hi, step V, body func(i V)) {
	f.For(lo, hi, step, nil, func(i V, _ []V) []V { body(i); return nil })
}

// While repeats body as long as cond holds for the carried values, and returns the last ones.
func (f *Func) While(init []V, cond func(carried []V) V, body func(carried []V) []V) []V {
	pre := f.b
	head, loop, exit := f.block("while"), f.block("do"), f.block("exit")
	pre.NewBr(head)
	f.b = head
	phis := make([]*ir.InstPhi, len(init))
	carried := make([]V, len(init))
	for j := range init {
		phis[j] = head.NewPhi(ir.NewIncoming(init[j], pre))
		carried[j] = phis[j]
	}
	c := cond(carried)
	f.b.NewCondBr(c, loop, exit)
	f.b = loop
	out := body(carried)
	f.b.NewBr(head)
	for j := range phis {
		phis[j].Incs = append(phis[j].Incs, ir.NewIncoming(out[j], f.b))
	}
	f.b = exit
	return carried
}

// If runs one of two branches and returns the values of the one that ran. Both return equally
// many values of equal types; a nil branch does nothing and returns none.
func (f *Func) If(c V, then, otherwise func() []V) []V {
	t, e, x := f.block("then"), f.block("else"), f.block("endif")
	f.b.NewCondBr(c, t, e)
	run := func(b *ir.Block, g func() []V) ([]V, *ir.Block) {
		f.b = b
		var vs []V
		if g != nil {
			vs = g()
		}
		f.b.NewBr(x)
		return vs, f.b
	}
	tv, tb := run(t, then)
	ev, eb := run(e, otherwise)
	f.b = x
	res := make([]V, len(tv))
	for j := range tv {
		res[j] = x.NewPhi(ir.NewIncoming(tv[j], tb), ir.NewIncoming(ev[j], eb))
	}
	return res
}

// When runs then if c holds.
func (f *Func) When(c V, then func()) {
	f.If(c, func() []V { then(); return nil }, nil)
}

// Switch runs body(j) for the j with x == cases[j], and nothing if there is none.
func (f *Func) Switch(x V, cases []int64, body func(j int)) {
	from, exit := f.b, f.block("endswitch")
	var cs []*ir.Case
	for j, c := range cases {
		b := f.block("case")
		f.b = b
		body(j)
		f.b.NewBr(exit)
		cs = append(cs, ir.NewCase(constant.NewInt(x.Type().(*types.IntType), c), b))
	}
	from.NewSwitch(x, exit, cs...)
	f.b = exit
}
