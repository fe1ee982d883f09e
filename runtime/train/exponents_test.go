package train

import (
	"math"
	"reflect"
	"testing"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/metrics"
)

// shown is a program that shows given launches.
type shown struct {
	Program
	launches []exec.Launch
	tensors  []exec.Tensor
}

func (s shown) Observe(see func(*exec.Kernel, *exec.Launch, *exec.Tensor)) bool {
	for i := range s.launches {
		see(&exec.Kernel{}, &s.launches[i], &s.tensors[i])
	}
	return len(s.launches) > 0
}

func words(xs ...float32) (b []byte) {
	for _, x := range xs {
		u := math.Float32bits(x)
		b = append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return b
}

func TestExponentHistograms(t *testing.T) {
	inf := float32(math.Inf(1))
	wide := words(1, -1.5, 0.25, 0, float32(math.Copysign(0, -1)), inf, float32(math.NaN()), 0x1p-126, 0x1p-127, -0x1p-149, 0x1.8p-148, 0x1.fp127)
	narrow := []byte{0x00, 0x3c /* 1 */, 0x01, 0x00 /* 2^-24 */, 0xff, 0x83 /* just below -2^-14 */, 0x00, 0x80 /* -0 */, 0x00, 0x7c /* infinite */}
	p := shown{
		launches: []exec.Launch{{Block: "mlp1 backward", Gradient: true}, {Block: "mlp1 backward", Gradient: true}, {Block: "mlp1 backward"}, {Block: "mlp1"}, {Gradient: true}},
		tensors: []exec.Tensor{
			{DType: exec.F32, Shape: []int{12}, Data: wide}, {DType: exec.F16, Shape: []int{5}, Data: narrow},
			{DType: exec.F32, Shape: []int{1}, Data: words(1)}, {DType: exec.F32, Shape: []int{1}, Data: words(1)}, {DType: exec.F32, Shape: []int{1}, Data: words(1)},
		},
	}
	f32 := metrics.Exponents{Step: 7, Block: "mlp1", DType: "f32", Zero: 2, NonFinite: 2, First: -149, Counts: make([]int64, 277)}
	for _, e := range []int{0, 0, -2, -126, -127, -149, -148, 127} {
		f32.Counts[e+149]++
	}
	f16 := metrics.Exponents{Step: 7, Block: "mlp1", DType: "f16", Zero: 1, NonFinite: 1, First: -24, Counts: make([]int64, 25)}
	for _, e := range []int{0, -24, -15} {
		f16.Counts[e+24]++
	}
	if got := exponentHistograms(p, 7); !reflect.DeepEqual(got, []metrics.Exponents{f16, f32}) {
		t.Errorf("got  %+v\nwant %+v", got, []metrics.Exponents{f16, f32})
	}
	if got := exponentHistograms(shown{}, 7); got != nil {
		t.Errorf("nothing to see gives %v", got)
	}
}
