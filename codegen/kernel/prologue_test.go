package kernel

import (
	"testing"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

// lowered compiles f for a backend that copies operands.
func lowered(t *testing.T, f *ir.Func) *plan.Program {
	t.Helper()
	check(t, f) // of both backends, against the meaning of f
	p, err := Lower(f, NewLibrary(), copying{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prologues counts operands of products that are computed.
func prologues(p *plan.Program) int {
	n := 0
	for _, l := range p.Launches {
		if c := l.Kernel.FindContract(); c != nil {
			for _, a := range c.Args {
				if a.Prim != kern.Load {
					n++
				}
			}
		}
	}
	return n
}

// workBytes is the memory of all but the inputs and outputs of p.
func workBytes(p *plan.Program) int {
	n := 0
	for _, b := range p.Buffers {
		if b.Arena == plan.Work {
			n += b.Bytes
		}
	}
	return n
}

// ReLUs between convolutions: what is kept for the backward pass is their
// argument alone, which both products compute them from.
func TestReLUBeforeConvolutionIsNotStored(t *testing.T) {
	build := func() *ir.Func {
		f := ir.NewModule("t").NewFunc("train")
		x := f.Input("x", ir.T(ir.F32, 2, 8, 8, 4))
		var ps []*ir.Value
		h := x
		for _, name := range []string{"a", "b", "c"} {
			w, b := param(f, "w"+name, 3, 3, 4, 4), param(f, "b"+name, 4)
			h = ops.ReLU(ops.Add(ops.Conv2D(h, w, 1, 1), b))
			ps = append(ps, w, b)
		}
		loss := ops.Mean(ops.Mul(h, h))
		f.Result("loss", loss)
		for i, g := range ops.Gradient(loss, ps...) {
			f.Update(ps[i].Global, ops.Sub(ps[i], ops.MulConst(g, 0.1)))
		}
		return f
	}
	p := lowered(t, build())
	// Those of two convolutions and their filters' gradients, and what the
	// loss gives back to the third, which two products read.
	if n := prologues(p); n != 6 {
		t.Errorf("%d products compute an operand, want 6\n%s", n, dump(p))
	}
	relu := 0
	for _, l := range p.Launches {
		for _, n := range l.Kernel.Body {
			if n.Prim == kern.Max {
				relu++
			}
		}
	}
	if relu > 1 {
		t.Errorf("%d kernels write a ReLU, only the last need be\n%s", relu, dump(p))
	}
	f := build()
	for _, pass := range []func(*ir.Func) error{graph.Autodiff, graph.Join, graph.Split, graph.CSE, graph.DCE} {
		if err := pass(f); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := Lower(f, NewLibrary(), whole{})
	if err != nil {
		t.Fatal(err)
	}
	// the ReLUs of the first two convolutions and the loss's gradient
	if saved, want := workBytes(stored)-workBytes(p), 3*4*2*8*8*4; saved != want {
		t.Errorf("prologues save %d bytes, want %d", saved, want)
	}
}

// A layer norm in front of two products: its statistics are stored, its
// result is not, forward or backward.
func TestLayerNormBeforeProductIsNotStored(t *testing.T) {
	f := ir.NewModule("t").NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, 64, 16))
	gain, bias, w := param(f, "gain", 16), param(f, "bias", 16), param(f, "w", 16, 32)
	n := ops.Add(layerNorm(x, gain), bias)
	y := ops.MatMul(n, w)
	f.Result("y", y)
	f.Result("dw", ops.Gradient(ops.Mean(ops.Mul(y, y)), w)[0])
	p := lowered(t, f)
	// The gradient of w computes both operands: the loss gives back y, scaled.
	if prologues(p) != 3 {
		t.Errorf("%d products compute an operand, want 3\n%s", prologues(p), dump(p))
	}
	for _, b := range p.Buffers {
		if b.Arena == plan.Work && b.Name != "x" && b.Type.Len() == 64*16 {
			t.Errorf("%s has the size of the normalised rows\n%s", b.Name, dump(p))
		}
	}
}

// What is expensive, or made of several large values, or read by nobody but a
// product, is stored.
func TestPrologueMustPay(t *testing.T) {
	f := ir.NewModule("t").NewFunc("f")
	x, y := f.Input("x", ir.T(ir.F32, 64, 16)), f.Input("y", ir.T(ir.F32, 64, 16))
	w, v := param(f, "w", 16, 16), param(f, "v", 16, 32)
	f.Result("expensive", ops.MatMul(ops.Tanh(x), w))
	f.Result("two", ops.MatMul(ops.ReLU(ops.Add(x, y)), w))
	f.Result("product", ops.MatMul(ops.ReLU(ops.MatMul(x, w)), v))
	if p := lowered(t, f); prologues(p) != 0 {
		t.Errorf("%d products compute an operand\n%s", prologues(p), dump(p))
	}
}
