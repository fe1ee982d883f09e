package sched

import (
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
)

// laneElems is the element count that parameters are padded to in the state
// arena: with it, the arrays of every element size keep 64-byte alignment at
// equal element offsets.
const laneElems = 64

// PlaceState gives every global of m an offset in the state arena, sets
// m.StateBytes, and copies the offsets to the programs' state buffers, which
// are matched by name (@global).
//
// Parameters come first, those with weight decay ahead of the others, then one
// array per role of what belongs to parameters, then Buffer, State and Const tensors.
// The arrays run in parallel: where all tensors of a role have one element
// type, the tensor of a parameter starts at the same element offset from the
// start of its array as the parameter does from the start of the parameters.
// So one flat kernel can update all parameters of a range.
func PlaceState(m *plan.Model) error {
	var params []*plan.Global
	byIR := map[*ir.Global]*plan.Global{}
	roles := map[ir.Role][]*plan.Global{}
	for _, g := range m.Globals {
		byIR[g.Global] = g
		roles[g.Role] = append(roles[g.Role], g)
	}
	params = slices.Clone(roles[ir.Param])
	slices.SortStableFunc(params, func(x, y *plan.Global) int {
		switch {
		case x.Decay == y.Decay:
			return 0
		case x.Decay:
			return -1
		}
		return 1
	})
	elem := map[*ir.Global]int{}
	lanes := 0
	for _, p := range params {
		elem[p.Global] = lanes
		lanes += (p.Type.Len() + laneElems - 1) / laneElems * laneElems
	}

	end := 0
	oneByOne := func(gs []*plan.Global) {
		for _, g := range gs {
			g.Offset = end
			end += alignUp(g.Type.Bytes())
		}
	}
	parallel := func(gs []*plan.Global, of func(*plan.Global) *ir.Global) {
		if !oneType(gs) {
			oneByOne(gs)
			return
		}
		if len(gs) == 0 {
			return
		}
		size := gs[0].Type.DType.Size()
		for _, g := range gs {
			g.Offset = end + size*elem[of(g)]
		}
		end += size * lanes
	}
	parallel(params, func(g *plan.Global) *ir.Global { return g.Global })
	for _, r := range []ir.Role{ir.Moment1, ir.Moment2, ir.Average} {
		for _, g := range roles[r] {
			if g.Of == nil || byIR[g.Of] == nil || g.Of.Role != ir.Param {
				return fmt.Errorf("%s: @%s has role %s but belongs to no parameter of %s; set Of", g.Pos, g.Name, r, m.Name)
			}
			if g.Of.Type.Len() != g.Type.Len() {
				return fmt.Errorf("%s: @%s is %s, its parameter @%s is %s; the lengths must be equal", g.Pos, g.Name, g.Type, g.Of.Name, g.Of.Type)
			}
		}
		parallel(roles[r], func(g *plan.Global) *ir.Global { return g.Of })
	}
	oneByOne(roles[ir.Buffer])
	oneByOne(roles[ir.State])
	oneByOne(roles[ir.Const])
	for _, g := range m.Globals {
		switch g.Role {
		case ir.Param, ir.Moment1, ir.Moment2, ir.Average, ir.Buffer, ir.State, ir.Const:
		default:
			return fmt.Errorf("%s: @%s has the unknown role %q", g.Pos, g.Name, g.Role)
		}
	}
	m.StateBytes = end
	return bindState(m)
}

func oneType(gs []*plan.Global) bool {
	for _, g := range gs {
		if g.Type.DType != gs[0].Type.DType {
			return false
		}
	}
	return true
}

func bindState(m *plan.Model) error {
	offset := map[string]int{}
	for _, g := range m.Globals {
		offset["@"+g.Name] = g.Offset
	}
	for _, p := range m.Programs {
		for _, b := range p.Buffers {
			if b.Arena != plan.State {
				continue
			}
			o, ok := offset[b.Name]
			if !ok {
				return fmt.Errorf("internal: place: %s.%s: state buffer %s is no global of the model", m.Name, p.Name, b.Name)
			}
			b.Offset = o
		}
	}
	return nil
}
