package ptx

import (
	"fmt"
	"math/rand/v2"

	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// randomProgram writes a kernel with nested loops and branches whose values are
// carried, swapped and merged at random, and does the same in Go.
func randomProgram(seed uint64, size int) program {
	g := &generator{r: rand.New(rand.NewPCG(seed, 3))}
	g.types = []types.Type{build.I32, build.I32, build.I64, build.I1}
	body := g.statements(size, 3)
	results := g.pick(build.I32, 4)
	return each(fmt.Sprintf("random_%d", seed), func(f *build.Func, in, i build.Value) build.Value {
		x := f.Load(f.At(in, i))
		env := []build.Value{i, x, f.Signed(x), f.Lt(x, i)}
		env = emit(f, body, env)
		var sum build.Value = build.Int(1)
		for _, k := range results {
			sum = f.Add(f.MulI(sum, 31), env[k])
		}
		return sum
	}, func(in []uint32, i int) uint32 {
		x := in[i]
		env := []int64{int64(i), int64(int32(x)), int64(int32(x)), int64(b64(int32(x) < int32(i)))}
		env = execute(body, env)
		sum := uint32(1)
		for _, k := range results {
			sum = sum*31 + uint32(env[k])
		}
		return sum
	})
}

// statement defines values: those in scope are numbered, and what it defines is
// appended to them.
type statement struct {
	t        types.Type
	kind     string // an operation, "loop" or "if"
	args     []int
	n        int64
	body     []statement
	other    []statement
	results  []int // of body, in its scope
	results2 []int
}

type generator struct {
	r     *rand.Rand
	types []types.Type // of values in scope
}

// pick chooses n values of a type.
func (g *generator) pick(t types.Type, n int) []int {
	var all []int
	for k, x := range g.types {
		if x.Equal(t) {
			all = append(all, k)
		}
	}
	out := make([]int, n)
	for i := range out {
		// Late ones more often.
		k := max(g.r.IntN(len(all)), g.r.IntN(len(all)))
		out[i] = all[k]
	}
	return out
}

func (g *generator) one(t types.Type) int { return g.pick(t, 1)[0] }

func (g *generator) add(t types.Type) types.Type {
	g.types = append(g.types, t)
	return t
}

func (g *generator) statements(size, depth int) []statement {
	var out []statement
	for range size {
		out = append(out, g.statement(size, depth))
	}
	return out
}

func (g *generator) statement(size, depth int) statement {
	choice := g.r.IntN(12)
	if depth == 0 {
		choice = g.r.IntN(10)
	}
	i32, i64 := types.Type(build.I32), types.Type(build.I64)
	switch choice {
	case 0, 1, 2, 3:
		t := []types.Type{i32, i32, i64}[g.r.IntN(3)]
		s := statement{kind: []string{"add", "sub", "mul", "xor", "and", "min"}[g.r.IntN(6)], args: g.pick(t, 2)}
		s.t = g.add(t)
		return s
	case 4:
		t := []types.Type{i32, i64}[g.r.IntN(2)]
		s := statement{kind: "number", args: g.pick(t, 1), n: int64(g.r.IntN(20) - 10)}
		s.t = g.add(t)
		return s
	case 5:
		s := statement{kind: "wide", args: g.pick(i32, 1)}
		s.t = g.add(i64)
		return s
	case 6:
		s := statement{kind: "low", args: g.pick(i64, 1)}
		s.t = g.add(i32)
		return s
	case 7:
		s := statement{kind: "less", args: g.pick(i32, 2)}
		s.t = g.add(build.I1)
		return s
	case 8:
		t := []types.Type{i32, i64, build.I1}[g.r.IntN(3)]
		s := statement{kind: "select", args: append(g.pick(build.I1, 1), g.pick(t, 2)...)}
		s.t = g.add(t)
		return s
	case 9:
		s := statement{kind: []string{"not", "both", "shift"}[g.r.IntN(3)]}
		switch s.kind {
		case "shift":
			s.args, s.n = g.pick(i32, 1), int64(g.r.IntN(32))
			s.t = g.add(i32)
		default:
			s.args = g.pick(build.I1, 2)
			s.t = g.add(build.I1)
		}
		return s
	}
	// Values that a loop carries or a branch gives.
	var carried []types.Type
	for range 1 + g.r.IntN(5) {
		carried = append(carried, []types.Type{i32, i32, i64, build.I1}[g.r.IntN(4)])
	}
	outer := g.types
	choose := func() []int {
		var out []int
		for _, t := range carried {
			out = append(out, g.one(t))
		}
		return out
	}
	inner := func(more ...types.Type) ([]statement, []int) {
		g.types = append(append([]types.Type(nil), outer...), more...)
		body := g.statements(1+g.r.IntN(size), depth-1)
		results := choose()
		return body, results
	}
	s := statement{kind: "if"}
	if choice == 10 {
		s.kind = "loop"
		s.n = int64(g.r.IntN(4))
		s.args = append(g.pick(i32, 1), choose()...) // the count's mask is n
		s.body, s.results = inner(append([]types.Type{i32}, carried...)...)
	} else {
		s.args = g.pick(build.I1, 1)
		s.body, s.results = inner()
		s.other, s.results2 = inner()
	}
	g.types = append(append([]types.Type(nil), outer...), carried...)
	return s
}

// emit builds statements; env are the values in scope.
func emit(f *build.Func, body []statement, env []build.Value) []build.Value {
	env = append([]build.Value(nil), env...)
	values := func(env []build.Value, ks []int) []build.Value {
		var out []build.Value
		for _, k := range ks {
			out = append(out, env[k])
		}
		return out
	}
	for _, s := range body {
		a := values(env, s.args)
		var r build.Value
		switch s.kind {
		case "add":
			r = f.Add(a[0], a[1])
		case "sub":
			r = f.Sub(a[0], a[1])
		case "mul":
			r = f.Mul(a[0], a[1])
		case "xor":
			r = f.Xor(a[0], a[1])
		case "and":
			r = f.And(a[0], a[1])
		case "min":
			r = f.Select(f.Lt(a[0], a[1]), a[0], a[1])
		case "number":
			r = f.Xor(f.AddI(a[0], int(s.n)), f.MulI(a[0], 3))
		case "wide":
			r = f.Signed(a[0])
		case "low":
			r = f.Trunc(a[0], build.I32)
		case "less":
			r = f.Compare(enum.IPredSLT, a[0], a[1])
		case "select":
			r = f.Select(a[0], a[1], a[2])
		case "not":
			r = f.Not(a[0])
		case "both":
			r = f.And(a[0], a[1])
		case "shift":
			r = f.Shr(a[0], int(s.n))
		case "loop":
			env = append(env, f.For(build.Int(0), f.AndI(a[0], int(s.n)), build.Int(1), a[1:], func(i build.Value, c []build.Value) []build.Value {
				return values(emit(f, s.body, append(append(append([]build.Value(nil), env...), i), c...)), s.results)
			})...)
			continue
		case "if":
			side := func(body []statement, results []int) func() []build.Value {
				return func() []build.Value { return values(emit(f, body, env), results) }
			}
			env = append(env, f.IfElse(a[0], side(s.body, s.results), side(s.other, s.results2))...)
			continue
		}
		env = append(env, r)
	}
	return env
}

// execute is emit in Go; words are kept with their sign.
func execute(body []statement, env []int64) []int64 {
	env = append([]int64(nil), env...)
	values := func(env []int64, ks []int) []int64 {
		var out []int64
		for _, k := range ks {
			out = append(out, env[k])
		}
		return out
	}
	for _, s := range body {
		a := values(env, s.args)
		var r int64
		switch s.kind {
		case "add":
			r = a[0] + a[1]
		case "sub":
			r = a[0] - a[1]
		case "mul":
			r = a[0] * a[1]
		case "xor":
			r = a[0] ^ a[1]
		case "and", "both":
			r = a[0] & a[1]
		case "min":
			r = min(a[0], a[1])
		case "number":
			if s.t.Equal(build.I32) {
				r = int64(int32(a[0]+s.n) ^ int32(a[0]*3))
			} else {
				r = (a[0] + s.n) ^ a[0]*3
			}
		case "wide", "low":
			r = a[0]
		case "less":
			r = int64(b64(a[0] < a[1]))
		case "select":
			r = a[2]
			if a[0] != 0 {
				r = a[1]
			}
		case "not":
			r = 1 - a[0]
		case "shift":
			r = int64(uint32(a[0]) >> s.n)
		case "loop":
			c := a[1:]
			for i := int64(0); i < a[0]&s.n; i++ {
				c = values(execute(s.body, append(append(append([]int64(nil), env...), i), c...)), s.results)
			}
			env = append(env, c...)
			continue
		case "if":
			if a[0] != 0 {
				env = append(env, values(execute(s.body, env), s.results)...)
			} else {
				env = append(env, values(execute(s.other, env), s.results2)...)
			}
			continue
		}
		if s.t.Equal(build.I32) {
			r = int64(int32(r))
		}
		env = append(env, r)
	}
	return env
}
