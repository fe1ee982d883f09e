package ptx

import (
	"math/rand/v2"
	"testing"

	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

// launch prints a module and runs its only kernel with buffers of these bytes
// and one for the result, which it returns.
func launch(t *testing.T, m *build.Module, a Arch, maps []tensor, out int, in ...[]byte) []byte {
	t.Helper()
	m.Lines = true
	f := m.Funcs[0]
	name := f.IR.Name()
	text, err := Print(m, a)
	if err != nil {
		t.Error(err)
		return nil
	}
	mod, err := simt.Parse(text)
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, text)
		return nil
	}
	mach := simt.NewMachine(simt.Options{Seed: 1, Check: true})
	var params []any
	for _, x := range in {
		b := mach.Alloc("in", len(x))
		copy(b.Bytes(), x)
		b.Init()
		params = append(params, b.Addr())
	}
	b := mach.Alloc("out", out)
	var codes []any
	for _, tm := range maps {
		e := simt.TensorMap{Addr: b.Addr(), DType: simt.I32}
		if !tm.out {
			e.Addr = params[0].(uint64)
		}
		for k, d := range tm.dims {
			e.Dims, e.Box = append(e.Dims, uint64(d)), append(e.Box, 8)
			if k > 0 {
				e.Strides = append(e.Strides, uint64(4*tm.dims[0]))
			}
			if d == 1 {
				e.Box[k] = 1
			}
		}
		code, err := simt.EncodeTensorMap(e)
		if err != nil {
			t.Error(err)
			return nil
		}
		codes = append(codes, code)
	}
	params = append(codes, params...)
	err = mach.Launch(mod, simt.Launch{Entry: name, Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}, Shared: f.SharedBytes, Params: append(params, b.Addr())})
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, text)
		return nil
	}
	return b.Bytes()
}

func put(b []byte, size int, x uint64) {
	for i := range size {
		b[i] = byte(x >> (8 * i))
	}
}

func get(b []byte, size int) (x uint64) {
	for i := range size {
		x |= uint64(b[i]) << (8 * i)
	}
	return x
}

// same compares results; any NaN is as good as another.
func same(t types.Type, got, want uint64, ulps int64) bool {
	switch {
	case t.Equal(build.F32) && f32(got) != f32(got):
		return f32(want) != f32(want)
	case t.Equal(build.F16) && half(got) != half(got):
		return half(want) != half(want)
	}
	d := int64(got - want)
	return -ulps <= d && d <= ulps
}

// The emulator runs each operation on many operands; each result is what Go
// computes, to the bit.
func TestOperationsCompute(t *testing.T) {
	for _, c := range append(integerTests(), floatTests()...) {
		compute(t, c, Arch{"sm_80", "7.0"})
		if c.name == "pack_f16" { // two conversions there
			compute(t, c, Arch{"sm_70", "6.4"})
		}
	}
}

func compute(t *testing.T, c test, a Arch) {
	m := build.NewModule()
	result := kernelOf(m, c.name, c)
	r := rand.New(rand.NewPCG(1, 2))
	n := threads * blocks
	var in [][]uint64
	var bytes [][]byte
	for _, ty := range c.in {
		s, size := samples(ty, r, n), build.SizeOf(ty)
		b := make([]byte, n*size)
		for i, x := range s {
			put(b[i*size:], size, x)
		}
		in, bytes = append(in, s), append(bytes, b)
	}
	size, w := build.SizeOf(result), width64(result)
	out := launch(t, m, a, nil, n*size, bytes...)
	wrong := 0
	for i := range len(out) / size {
		x := make([]uint64, len(in))
		for k := range x {
			x[k] = in[k][i]
		}
		got, want := get(out[i*size:], size), mask(c.want(x), w)
		if same(result, got, want, int64(c.ulps)) {
			continue
		}
		if wrong++; wrong <= 3 {
			t.Errorf("%s(%x) = %#x, want %#x", c.name, x, got, want)
		}
	}
}

func TestProgramsCompute(t *testing.T) {
	in := inputs()
	all := programs()
	for seed := range uint64(60) {
		all = append(all, randomProgram(seed, 3+int(seed%8)))
	}
	for _, p := range all {
		m := build.NewModule()
		p.build(m)
		a := Arch{Name: "sm_80"}
		if p.arch != "" {
			a.Name = p.arch
		}
		out := launch(t, m, a, p.maps, 4*p.out, bytesOf(in))
		if out == nil {
			continue
		}
		got, wrong := wordsOf(out), 0
		for i, want := range p.want(in) {
			if got[i] != want {
				if wrong++; wrong <= 3 {
					t.Errorf("%s: word %d is %#x, want %#x", p.name, i, got[i], want)
				}
			}
		}
	}
}
