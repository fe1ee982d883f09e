package kern

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
)

// Eval runs k in float64 on bufs, one slice per buffer argument, rounding what
// is stored in 16 bits. It is the
// semantics of the language: code generators are tested against it. Touching
// memory outside a buffer is an error.
func Eval(k *Kernel, bufs [][]float64) (err error) {
	if k.Template != nil {
		f := templates[k.Template.Name]
		if f == nil {
			return fmt.Errorf("internal: kernel %s: no evaluator for template %q", k.Name, k.Template.Name)
		}
		return f(k, bufs)
	}
	e := &evaluator{k: k, bufs: bufs, val: make([]float64, k.NumNodes), vars: make([]int, k.NumVars)}
	defer func() {
		if r := recover(); r != nil {
			er, ok := r.(evalError)
			if !ok {
				panic(r)
			}
			err = er
		}
	}()
	e.grid(0)
	return nil
}

// TemplateEval is the float64 meaning of a template.
type TemplateEval func(k *Kernel, bufs [][]float64) error

var templates = map[string]TemplateEval{}

// RegisterTemplate adds the evaluator of a template; called from init.
func RegisterTemplate(name string, f TemplateEval) { templates[name] = f }

// HasTemplate reports whether a template of this name is registered.
func HasTemplate(name string) bool { return templates[name] != nil }

type evalError struct{ error }

type evaluator struct {
	k    *Kernel
	bufs [][]float64
	val  []float64
	vars []int

	operands map[*Node][]*Node // their Expressions
}

func (e *evaluator) grid(d int) {
	if d == len(e.k.Dims) {
		e.run(e.k.Body)
		return
	}
	v := e.k.Dims[d]
	for i := 0; i < v.Extent; i++ {
		e.vars[v.ID] = i
		e.grid(d + 1)
	}
}

func (e *evaluator) index(ix Index) int {
	n := ix.Const
	for _, t := range ix.Terms {
		n += e.vars[t.Var.ID] * t.Coef
	}
	for _, d := range ix.Ind {
		n += int(e.val[d.Node.ID]) * d.Coef
	}
	return n
}

func (e *evaluator) holds(gs []Guard) bool {
	for _, g := range gs {
		if i := e.index(g.At); i < g.Lo || i >= g.Hi {
			return false
		}
	}
	return true
}

func (e *evaluator) at(n *Node) int {
	i := e.index(n.At)
	if i < 0 || i >= len(e.bufs[n.Buf]) {
		panic(evalError{fmt.Errorf("internal: kernel %s: %s %%%d touches element %d of %s, which has %d", e.k.Name, n.Prim, n.ID, i, e.k.Bufs[n.Buf].Name, len(e.bufs[n.Buf]))})
	}
	return i
}

func (e *evaluator) load(n *Node) float64 {
	if !e.holds(n.Guards) {
		return 0
	}
	return e.bufs[n.Buf][e.at(n)]
}

func (e *evaluator) run(body []*Node) {
	for _, n := range body {
		e.val[n.ID] = e.eval(n)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (e *evaluator) eval(n *Node) float64 {
	arg := func(i int) float64 { return e.val[n.Args[i].ID] }
	switch n.Prim {
	case Const:
		if n.Type == ir.F32 {
			return n.F
		}
		return float64(n.I)
	case Pos:
		return float64(e.index(n.At))
	case Test:
		return truth(e.holds(n.Guards))
	case Load:
		return e.load(n)
	case Store:
		x := arg(0)
		if f, ok := e.k.Bufs[n.Buf].DType.Format(); ok {
			x = float64(f.Round(float32(x)))
		}
		e.bufs[n.Buf][e.at(n)] = x
	case Loop:
		acc := make([]float64, len(n.Accs))
		for i, a := range n.Accs {
			if a.Combine == MaxOf {
				acc[i] = math.Inf(-1)
			}
		}
		v := n.Vars[0]
		for i := 0; i < v.Extent; i++ {
			e.vars[v.ID] = i
			e.run(n.Body)
			for j, a := range n.Accs {
				x := e.val[a.Val.ID]
				if a.Combine == MaxOf {
					acc[j] = max(acc[j], x)
				} else {
					acc[j] += x
				}
			}
		}
		for _, a := range e.accs(n) {
			e.val[a.ID] = acc[a.I]
		}
	case Acc:
		return e.val[n.ID] // set by its loop
	case Contract:
		return e.contract(n, 0)
	case Random:
		return Uniform(uint32(int64(arg(0))), uint32(int64(arg(1))), uint32(n.I), uint32(e.index(n.At)))
	case Cast:
		switch {
		case n.Type == ir.I32:
			return math.Trunc(arg(0))
		case n.Type == ir.Bool:
			return truth(arg(0) != 0)
		}
		return arg(0)
	case Round:
		f, _ := ir.DType(n.I).Format()
		if len(n.Args) == 2 {
			return float64(f.RoundRandomly(float32(arg(0)), float32(arg(1))))
		}
		return float64(f.Round(float32(arg(0))))
	case Neg:
		return -arg(0)
	case Abs:
		return math.Abs(arg(0))
	case Exp:
		return math.Exp(arg(0))
	case Log:
		return math.Log(arg(0))
	case Tanh:
		return math.Tanh(arg(0))
	case Sqrt:
		return math.Sqrt(arg(0))
	case Floor:
		return math.Floor(arg(0))
	case Add:
		return arg(0) + arg(1)
	case Sub:
		return arg(0) - arg(1)
	case Mul:
		return arg(0) * arg(1)
	case Div:
		if n.Type == ir.I32 {
			return math.Trunc(arg(0) / arg(1))
		}
		return arg(0) / arg(1)
	case Min:
		return math.Min(arg(0), arg(1))
	case Max:
		return math.Max(arg(0), arg(1))
	case Lt:
		return truth(arg(0) < arg(1))
	case Le:
		return truth(arg(0) <= arg(1))
	case Eq:
		return truth(arg(0) == arg(1))
	case And:
		return truth(arg(0) != 0 && arg(1) != 0)
	case Or:
		return truth(arg(0) != 0 || arg(1) != 0)
	case Not:
		return truth(arg(0) == 0)
	case Select:
		if arg(0) != 0 {
			return arg(1)
		}
		return arg(2)
	}
	return 0
}

// accs finds the Acc nodes of a loop: they directly follow it.
func (e *evaluator) accs(loop *Node) []*Node {
	var out []*Node
	var find func(body []*Node) bool
	find = func(body []*Node) bool {
		for i, n := range body {
			if n == loop {
				for _, m := range body[i+1:] {
					if m.Prim == Acc && m.Args[0] == loop {
						out = append(out, m)
					}
				}
				return true
			}
			if n.Prim == Loop && find(n.Body) {
				return true
			}
		}
		return false
	}
	find(e.k.Body)
	return out
}

func (e *evaluator) contract(n *Node, d int) float64 {
	if d == len(n.Vars) {
		return e.operand(n.Args[0]) * e.operand(n.Args[1])
	}
	s := 0.0
	v := n.Vars[d]
	for i := 0; i < v.Extent; i++ {
		e.vars[v.ID] = i
		s += e.contract(n, d+1)
	}
	return s
}

// operand is an operand of a Contract at the current point.
func (e *evaluator) operand(root *Node) float64 {
	if root.Prim == Load {
		return e.load(root)
	}
	if !e.holds(root.Guards) {
		return 0
	}
	if e.operands == nil {
		e.operands = map[*Node][]*Node{}
	}
	if e.operands[root] == nil {
		e.operands[root] = Expression(root)
	}
	e.run(e.operands[root])
	return e.val[root.ID]
}

// Philox is Philox4x32-10 (Salmon et al. 2011): a counter-based generator, so
// random numbers depend on their key and position alone.
func Philox(ctr [4]uint32, key [2]uint32) [4]uint32 {
	const m0, m1, w0, w1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
	for r := 0; r < 10; r++ {
		p0, p1 := uint64(m0)*uint64(ctr[0]), uint64(m1)*uint64(ctr[2])
		ctr = [4]uint32{uint32(p1>>32) ^ ctr[1] ^ key[0], uint32(p1), uint32(p0>>32) ^ ctr[3] ^ key[1], uint32(p0)}
		key[0] += w0
		key[1] += w1
	}
	return ctr
}

// Uniform is the number Random gives: in (0,1), an odd multiple of 2^-24, so
// that f32 holds it exactly and it is never 0 or 1.
func Uniform(seed, step, stream, element uint32) float64 {
	w := Philox([4]uint32{element / 4, stream, 0, 0}, [2]uint32{seed, step})
	return (float64(w[element%4]>>9) + 0.5) / (1 << 23)
}
