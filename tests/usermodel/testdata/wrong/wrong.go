// Package main declares a model for every kind of mistake the compiler
// explains; a comment on the line at fault says what it must report.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

var mistakes = []func(f *ir.Func){
	func(f *ir.Func) {
		x, w := f.Input("x", ir.T(ir.F32, 4, 128)), nn.In(f).Param("w", nn.Normal(1), 64, 32)
		f.Result("y", ops.MatMul(x, w)) // want "matmul: .*inner.*: %x is f32\[4,128\], @w is f32\[64,32\]"
	},
	func(f *ir.Func) {
		a, b := f.Input("a", ir.T(ir.F32, 4, 7)), f.Input("b", ir.T(ir.F32, 4, 8))
		f.Result("y", ops.Add(a, b)) // want "add: shapes differ and don't broadcast: %a is f32\[4,7\], %b is f32\[4,8\]"
	},
	func(f *ir.Func) {
		x, w := f.Input("x", ir.T(ir.F32, 2, 8, 8, 3)), nn.In(f).Param("w", nn.Normal(1), 3, 3, 4, 16)
		f.Result("y", ops.Conv2D(x, w, 1, 1)) // want "conv2d: .*channels.*: %x is f32\[2,8,8,3\], @w is f32\[3,3,4,16\]"
	},
	func(f *ir.Func) {
		a, b := f.Input("a", ir.T(ir.F32, 4)), f.Input("b", ir.T(ir.I32, 4))
		f.Result("y", ops.Mul(a, b)) // want "mul: element types differ; cast one operand: %a is f32\[4\], %b is i32\[4\]"
	},
	func(f *ir.Func) {
		f.Result("y", ops.Exp(f.Input("n", ir.T(ir.I32, 4)))) // want "exp: wants .*, not i32: %n is i32\[4\]"
	},
	func(f *ir.Func) {
		f.Input("x", ir.T(ir.F32, 4))
		f.Result("y", f.Input("x", ir.T(ir.F32, 5))) // want "input \"x\" is declared twice in f"
	},
	func(f *ir.Func) {
		w := nn.In(f).Param("w", nn.Normal(1), 4, 4)
		f.Update(w.Global, ops.Sum(w, 0)) // want "update of @w: it is f32\[4,4\], the new value %\d+ is f32\[4\]"
	},
	func(f *ir.Func) {
		nn.In(f).Param("w", nn.Normal(1), 4, 4)
		f.Result("y", nn.In(f).Param("w", nn.Normal(1), 4, 5)) // want "@w is param f32\[4,4\], declared at wrong.go:\d+; here it is used as param f32\[4,5\]"
	},
	func(f *ir.Func) {
		f.Result("y", ops.Reshape(f.Input("x", ir.T(ir.F32, 4, 6)), 5, 5)) // want "reshape: .*: %x is f32\[4,6\]"
	},
	func(f *ir.Func) {
		q, k := f.Input("q", ir.T(ir.F32, 1, 8, 2, 16)), f.Input("k", ir.T(ir.F32, 1, 8, 4, 16))
		f.Result("y", ops.Attention(q, k, k, mask.Causal())) // want "attention: .*: %q is f32\[1,8,2,16\], %k is f32\[1,8,4,16\]"
	},
	func(f *ir.Func) {
		x := f.Input("x", ir.T(ir.F32, 4))
		f.Result("dx", ops.Gradient(ops.Square(x), x)[0]) // want "gradient: the loss must be one floating-point number: %\d+ is f32\[4\]"
	},
	func(f *ir.Func) {
		x := f.Input("x", ir.T(ir.F32, 4, 3))
		n := nn.LayerNorm(nn.In(f), "n", ops.SliceAxis(x, 1, 0, 5), 1e-5) // want "slice: .*: %x is f32\[4,3\]"
		f.Result("y", nn.Linear(nn.In(f), "l", n, 3, 1))                  // what follows from a mistake is not reported
	},
	func(f *ir.Func) {
		x := f.Input("x", ir.T(ir.F32, 4, 3))
		f.Result("y", x)
		f.Result("y", ops.Neg(x)) // want "result \"y\" is declared twice in f"
	},
	func(f *ir.Func) {
		w := nn.In(f).Param("w", nn.Normal(1), 4)
		f.Update(w.Global, ops.Neg(w))
		f.Update(w.Global, w) // want "@w is updated twice in f"
	},
	func(f *ir.Func) {
		x := f.Input("x", ir.T(ir.F32, 4, 3))
		x = project(f, x, 3)
		f.Region("second", true, func() { x = project(f, x, 5) })
		f.Result("y", x)
	},
}

// project is a layer of the user's own: the line at fault is here, and the error
// says which use of it is meant.
func project(f *ir.Func, x *ir.Value, n int) *ir.Value {
	w := nn.In(f).Param(fmt.Sprint("w", n), nn.Normal(1), n, 3)
	return ops.MatMul(x, w) // want "matmul: inner dimensions .*: %\d+ is f32\[4,3\], @w5 is f32\[5,3\] \(in project, called at wrong.go:80, at wrong.go:\d+\)$"
}

func main() {
	dir, err := os.MkdirTemp(".", "gen-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for i, declare := range mistakes {
		name := fmt.Sprintf("mistake%d", i)
		err := system.Register(system.System{Name: name, Build: func() ([]*ir.Module, error) {
			m := ir.NewModule("m")
			declare(m.NewFunc("f"))
			return []*ir.Module{m}, nil
		}})
		if err == nil {
			err = driver.Run(context.Background(), []string{"-system", name, "-o", dir, "-target", "x86-64-v3"}, io.Discard)
		}
		fmt.Println(err)
	}
}
