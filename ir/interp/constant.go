package interp

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
)

// constant decodes the contents of a Const global.
func constant(g *ir.Global) (*ir.Tensor, error) {
	t := ir.NewTensor(g.Type)
	if len(g.Data) != g.Type.Bytes() {
		return nil, fmt.Errorf("%s: @%s is %s of %d bytes, its contents have %d", g.Pos, g.Name, g.Type, g.Type.Bytes(), len(g.Data))
	}
	for i := range t.Data {
		switch g.Type.DType {
		case ir.F32:
			t.Data[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(g.Data[4*i:])))
		case ir.I32:
			t.Data[i] = float64(int32(binary.LittleEndian.Uint32(g.Data[4*i:])))
		case ir.I8:
			t.Data[i] = float64(int8(g.Data[i]))
		case ir.Bool:
			t.Data[i] = float64(g.Data[i])
		default:
			return nil, fmt.Errorf("%s: @%s: constants of type %s are not supported; use f32", g.Pos, g.Name, g.Type.DType)
		}
	}
	return t, nil
}
