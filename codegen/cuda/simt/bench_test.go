package simt_test

import (
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

// bench runs a body again and again and reports warp instructions per second.
func bench(b *testing.B, body string, check bool) {
	m, err := simt.Parse(kernel(body))
	if err != nil {
		b.Fatal(err)
	}
	mach := simt.NewMachine(simt.Options{Check: check})
	in, out := mach.Alloc("in", 4<<20), mach.Alloc("out", 4<<20)
	in.Init()
	for b.Loop() {
		if err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{4, 1, 1}, Block: [3]int{256, 1, 1}, Shared: 16384, Params: []any{in.Addr(), out.Addr()}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(mach.Stats().Instructions)/b.Elapsed().Seconds()/1e6, "Minst/s")
}

func BenchmarkALU(b *testing.B) {
	body := "mov.u32 %r2, 0; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f3F000000;\nA:\n"
	for range 8 {
		body += "mul.rn.f32 %f3, %f1, %f2; add.rn.f32 %f1, %f3, %f1; mul.lo.s32 %r3, %r2, 7; xor.b32 %r4, %r3, %r1;\n"
	}
	bench(b, body+"add.s32 %r2, %r2, 1; setp.lt.s32 %p1, %r2, 500; @%p1 bra A;", true)
}

func BenchmarkFMA(b *testing.B) {
	body := "mov.u32 %r2, 0; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f3F000000;\nA:\n"
	for range 16 {
		body += "fma.rn.f32 %f1, %f1, %f2, %f2;\n"
	}
	bench(b, body+"add.s32 %r2, %r2, 1; setp.lt.s32 %p1, %r2, 500; @%p1 bra A;", true)
}

// element is a loop as elementwise kernels have it.
const element = `
	mov.u32 %r5, %ctaid.x;
	mad.lo.u32 %r2, %r5, 256, %r1;
A:
	mul.wide.u32 %rd6, %r2, 4;
	add.s64 %rd7, %rd1, %rd6;
	add.s64 %rd8, %rd2, %rd6;
	ld.global.f32 %f1, [%rd7];
	mul.rn.f32 %f2, %f1, 0f3FB8AA3B;
	ex2.approx.ftz.f32 %f2, %f2;
	fma.rn.f32 %f3, %f2, %f1, %f1;
	add.rn.f32 %f3, %f3, %f1;
	max.f32 %f3, %f3, 0f00000000;
	st.global.f32 [%rd8], %f3;
	add.u32 %r2, %r2, 1024;
	setp.lt.u32 %p1, %r2, 65536;
	@%p1 bra A;
`

func BenchmarkElements(b *testing.B)        { bench(b, element, true) }
func BenchmarkElementsNoCheck(b *testing.B) { bench(b, element, false) }
