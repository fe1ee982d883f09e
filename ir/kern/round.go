package kern

import "github.com/gouache-ml/gouache/ir"

// Round is x as storage type d, a 16-bit floating-point one, holds it: rounded
// to the nearest number as a store does, or, given u, a number in [0,1), to one
// of the two next to x, so that uniform u makes x the expected result
// (format16.Format.EncodeRandomly). The result is f32.
//
// An operation on values of 16 bits computes in f32 and is rounded where it is
// stored. Round makes that happen whether or not memory lies between.
func (b *Builder) Round(d ir.DType, x, u *Node) *Node {
	n := &Node{Prim: Round, Type: ir.F32, Args: []*Node{x}, I: int64(d)}
	switch {
	case u != nil:
		n.Args = append(n.Args, u)
	case x.Prim == Load && b.K.Bufs[x.Buf].DType == d, x.Prim == Round && x.I == n.I:
		return x // it is one of d's numbers already
	}
	return b.add(n)
}
