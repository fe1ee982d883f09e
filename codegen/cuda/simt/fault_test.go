package simt_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

// own is the address of the thread's word in shared memory, in %r10; that of its
// neighbour (xor 1) in %r11, of the thread 32 on (xor 32) in %r12.
const own = `
	mov.u32 %r9, smem;
	shl.b32 %r10, %r1, 2; add.u32 %r10, %r10, %r9;
	xor.b32 %r11, %r1, 1; shl.b32 %r11, %r11, 2; add.u32 %r11, %r11, %r9;
	xor.b32 %r12, %r1, 32; shl.b32 %r12, %r12, 2; add.u32 %r12, %r12, %r9;
`

func TestRaces(t *testing.T) {
	f := fault(t, simt.Race, "without synchronisation", own+`
	st.shared.u32 [%r10], %r1;
	bar.sync 0;
	st.shared.u32 [%r10], %r1; // kern.go:12
	ld.shared.u32 %r2, [%r12]; // kern.go:13
	bar.sync 0;
`, 1, 64)
	// Which access comes second depends on the order in which warps run.
	if f.Buffer != "shared" || f.Source != "kern.go:13" && f.Source != "kern.go:12" || !strings.Contains(f.Text, "ld.shared.u32") && !strings.Contains(f.Text, "st.shared.u32") || f.Line == 0 {
		t.Errorf("%+v", f)
	}
	clean(t, own+`
	st.shared.u32 [%r10], %r1;
	bar.sync 0;
	ld.shared.u32 %r2, [%r12];
	bar.sync 0;
	st.shared.u32 [%r10], %r2;
`, 1, 64)
	// read, then written by another warp
	fault(t, simt.Race, "", own+`
	st.shared.u32 [%r10], %r1;
	bar.sync 0;
	ld.shared.u32 %r2, [%r12];
	st.shared.u32 [%r10], %r2;
`, 1, 64)
	fault(t, simt.Race, "without bar.warp.sync", own+`
	st.shared.u32 [%r10], %r1;
	ld.shared.u32 %r2, [%r11];
`, 1, 32)
	clean(t, own+`
	st.shared.u32 [%r10], %r1;
	bar.warp.sync -1;
	ld.shared.u32 %r2, [%r11];
	bar.warp.sync -1;
	st.shared.u32 [%r10], %r2;
`, 1, 32)
	fault(t, simt.Race, "written here by another lane", own+"st.shared.u32 [%r9], %r1;", 1, 32)
	// halves of one word belong to different threads
	clean(t, own+`
	shl.b32 %r2, %r1, 1; add.u32 %r2, %r2, %r9; cvt.u16.u32 %h1, %r1;
	st.shared.u16 [%r2], %h1;
	add.u32 %r2, %r2, 1024; and.b32 %r3, %r1, 31;
	add.u32 %r2, %r1, %r9;
	st.shared.u8 [%r2+4096], %r3;
	bar.sync 0;
	ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r9];
`, 1, 64)
	// global memory: between blocks, and between warps of one
	fault(t, simt.Race, "block", "st.global.u32 [%rd4], %r1;", 2, 32)
	fault(t, simt.Race, "", `
	xor.b32 %r2, %r1, 32; mad.wide.u32 %rd5, %r2, 4, %rd1;
	st.global.u32 [%rd3], %r1;
	ld.global.u32 %r3, [%rd5];
`, 1, 64)
	clean(t, `
	xor.b32 %r2, %r1, 32; mad.wide.u32 %rd5, %r2, 4, %rd2;
	st.global.u32 [%rd4], %r1;
	bar.sync 0;
	ld.global.u32 %r3, [%rd5];
`, 1, 64)
	clean(t, "ld.global.u32 %r3, [%rd1]; ld.global.nc.u32 %r3, [%rd3];", 4, 64)
	// read by many blocks, then written by one
	fault(t, simt.Race, "", `
	ld.global.u32 %r3, [%rd1];
	mov.u32 %r4, %ctaid.x;
	setp.eq.u32 %p1, %r4, 3;
	setp.eq.and.u32 %p1, %r1, 0, %p1;
	@%p1 st.global.u32 [%rd1], %r3;
`, 8, 32)
	fault(t, simt.BadOperand, ".nc", `
	ld.global.u32 %r2, [%rd3];
	st.global.u32 [%rd3], %r2;
	bar.sync 0;
	ld.global.nc.u32 %r2, [%rd3];
`, 1, 32)
}

func TestAtomicsAndFlags(t *testing.T) {
	clean(t, "mov.u32 %r2, 1; red.global.add.u32 [%rd1], %r2; atom.global.add.u32 %r3, [%rd1+4], 1;", 4, 64)
	fault(t, simt.Race, "updated", "red.global.add.u32 [%rd1], 1; ld.global.u32 %r3, [%rd1];", 4, 64)
	// The last block to finish adds up what the others wrote.
	last := func(before, after string) string {
		return `
	mov.u32 %r2, %ctaid.x;
	mad.lo.u32 %r3, %r2, 64, %r1; mad.wide.u32 %rd5, %r3, 4, %rd2;
	st.global.u32 [%rd5], %r3;
	` + before + `
	bar.sync 0;
	mov.u32 %r9, smem;
	setp.ne.u32 %p1, %r1, 0;
	@%p1 bra WAIT;
	` + after + `
	atom.global.add.u32 %r4, [%rd1], 1;
	` + after + `
	st.shared.u32 [%r9], %r4;
WAIT:
	bar.sync 0;
	ld.shared.u32 %r4, [%r9];
	setp.ne.u32 %p1, %r4, 3;
	@%p1 bra DONE;
	ld.global.u32 %r5, [%rd4];
	ld.global.u32 %r5, [%rd4+256];
	ld.global.u32 %r5, [%rd4+512];
	ld.global.u32 %r5, [%rd4+768];
DONE:
`
	}
	clean(t, last("", "fence.acq_rel.gpu;"), 4, 64)
	clean(t, last("", "membar.gl;"), 4, 64)
	fault(t, simt.Race, "", last("", ""), 4, 64)
	fault(t, simt.Race, "", last("", "fence.acq_rel.cta;"), 4, 64)
	clean(t, strings.Replace(last("", ""), "atom.global.add", "atom.acq_rel.gpu.global.add", 1), 4, 64)
	// Block 0 waits for the flags of the others.
	flag := func(st, ld string) string {
		return `
	mov.u32 %r2, %ctaid.x;
	mad.wide.u32 %rd5, %r2, 4, %rd2;
	mov.u32 %r3, 1;
	setp.eq.u32 %p1, %r2, 0;
	@%p1 bra READ;
	st.global.u32 [%rd5], %r3;
	` + st + ` [%rd1+4], %r3;
	bra DONE;
READ:
	` + ld + ` %r4, [%rd1+4];
	setp.eq.u32 %p1, %r4, 0;
	@%p1 bra READ;
	ld.global.u32 %r4, [%rd2+4];
DONE:
`
	}
	clean(t, flag("st.release.gpu.global.u32", "ld.acquire.gpu.global.u32"), 2, 1)
	clean(t, flag("fence.acq_rel.gpu; st.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32"), 2, 1)
	fault(t, simt.Race, "", flag("st.relaxed.gpu.global.u32", "ld.relaxed.gpu.global.u32"), 2, 1)
	fault(t, simt.Race, "", flag("st.global.u32", "ld.acquire.gpu.global.u32"), 2, 1)
	// nobody sets the flag
	f := fault(t, simt.Deadlock, "polling", `
READ:
	ld.relaxed.gpu.global.u32 %r4, [%rd1+4];
	setp.eq.u32 %p1, %r4, 0;
	@%p1 bra READ;
`, 2, 32)
	if f.Line == 0 {
		t.Error(f)
	}
	// sums by atomics
	out, err := launch(t, 3, `
	cvt.rn.f32.u32 %f1, %r1;
	st.global.u32 [%rd4], 0;
	bar.sync 0;
	red.global.add.f32 [%rd2], %f1;
	atom.global.max.u32 %r2, [%rd2+4], %r1;
	atom.global.cas.b32 %r2, [%rd2+8], 0, 77;
	atom.global.exch.b32 %r2, [%rd2+12], 5;
	red.global.add.s32 [%rd2+16], -1;
`, 1, 64, nil)
	if err != nil || f32(out[0]) != 63*32 || out[1] != 63 || out[2] != 77 || out[3] != 5 || int32(out[4]) != -64 {
		t.Error(out[:5], err)
	}
}

func TestMemoryFaults(t *testing.T) {
	f := fault(t, simt.OutOfBounds, "out+256", "st.global.u32 [%rd4+4], %r1; // a/b.go:7", 1, 64)
	if f.Buffer != "out" || f.Offset != 256 || f.Thread != 63 || f.Source != "a/b.go:7" || f.CTA != [3]int{} || f.Text != "st.global.u32 [%rd4+4], %r1" {
		t.Errorf("%+v", f)
	}
	f = fault(t, simt.OutOfBounds, "in-4", "ld.global.u32 %r2, [%rd3+-4];", 1, 64)
	if f.Offset != -4 || f.Thread != 0 {
		t.Errorf("%+v", f)
	}
	fault(t, simt.OutOfBounds, "no buffer", "mov.u64 %rd5, 4096; ld.global.u32 %r2, [%rd5];", 1, 32)
	fault(t, simt.OutOfBounds, "shared", own+"st.shared.u32 [%r10+16384], %r1;", 1, 32)
	fault(t, simt.OutOfBounds, "shared", own+"mov.u32 %r2, 0; st.shared.u32 [%r2], %r1;", 1, 32)
	f = fault(t, simt.Misaligned, "8 bytes", "ld.global.v2.u32 {%r2, %r3}, [%rd3];", 1, 32)
	if f.Thread != 1 || f.Offset != 4 || f.Buffer != "in" {
		t.Errorf("%+v", f)
	}
	fault(t, simt.Misaligned, "", own+"st.shared.u32 [%r10+2], %r1;", 1, 32)
	f = fault(t, simt.Uninitialised, "never written", "ld.global.u32 %r2, [%rd4];", 1, 32)
	if f.Buffer != "out" || f.Thread != 0 {
		t.Errorf("%+v", f)
	}
	fault(t, simt.Uninitialised, "shared", own+"ld.shared.u32 %r2, [%r10];", 1, 32)
	// one byte of four
	fault(t, simt.Uninitialised, "out+1", "st.global.u8 [%rd4], %r1; ld.global.u32 %r2, [%rd4];", 1, 32)
	// Lanes whose predicate is false access nothing.
	clean(t, "setp.lt.u32 %p1, %r1, 3; mov.u64 %rd5, 0; @!%p1 mov.u64 %rd3, 0; @%p1 ld.global.u32 %r2, [%rd3];", 1, 32)
}

func TestCollectiveFaults(t *testing.T) {
	half := "setp.lt.u32 %p1, %r1, 16;\n"
	fault(t, simt.Divergent, "barrier", half+"@%p1 bar.sync 0;", 1, 32)
	fault(t, simt.Divergent, "barrier", half+"@%p1 bra A; bra B; A: bar.sync 0; B:", 1, 32)
	fault(t, simt.Deadlock, "barrier 0 (1 of 2 warps)", "setp.lt.u32 %p1, %r1, 32; @!%p1 bra B; bar.sync 0; B:", 1, 64)
	fault(t, simt.Deadlock, "barrier 1 (1 of 2 warps)", "bar.sync 1, 64;", 1, 96)
	fault(t, simt.BadOperand, "barrier", "bar.sync 1, 48;", 1, 64)
	fault(t, simt.Divergent, "shuffle", half+"@%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;", 1, 32)
	fault(t, simt.BadOperand, "doesn't take part", half+"@%p1 shfl.sync.bfly.b32 %r2, %r1, 16, 31, 0xffff;", 1, 32)
	clean(t, half+"@%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, 0xffff;", 1, 32)
	fault(t, simt.Divergent, "bra.uni", half+"@%p1 bra.uni A; A:", 1, 32)
	clean(t, `
	setp.lt.u32 %p1, %r1, 32;
	@%p1 bra A;
	bar.arrive 1, 64;
	bra B;
A:	bar.sync 1, 64;
B:	bar.sync 0;
`, 1, 64)
	// Lanes that have returned needn't come to the barrier.
	clean(t, half+"@%p1 ret; bar.sync 0; shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;", 1, 32)
	clean(t, half+"@%p1 bra OUT; bar.sync 0; ret; OUT: ret;", 1, 32)
	clean(t, half+"@!%p1 bra OUT; bar.sync 0; ret; OUT: ret;", 1, 32)
	fault(t, simt.StepLimit, "", "A: add.u32 %r2, %r2, 1; bra A;", 1, 32)
	fault(t, simt.BadOperand, "trap", "trap;", 1, 32)
}

func TestShufflesAndVotes(t *testing.T) {
	for _, x := range []struct {
		text string
		want func(l uint32) uint32
	}{
		{"shfl.sync.bfly.b32 %r2, %r1, 5, 31, -1;", func(l uint32) uint32 { return l ^ 5 }},
		{"shfl.sync.up.b32 %r2, %r1, 3, 0, -1;", func(l uint32) uint32 {
			if l < 3 {
				return l
			}
			return l - 3
		}},
		{"shfl.sync.down.b32 %r2|%p1, %r1, 3, 31, -1; @!%p1 mov.u32 %r2, 99;", func(l uint32) uint32 {
			if l > 28 {
				return 99
			}
			return l + 3
		}},
		{"shfl.sync.idx.b32 %r2, %r1, 7, 31, -1;", func(l uint32) uint32 { return 7 }},
		{"shfl.sync.idx.b32 %r2, %r1, 1, 0x1c1f, -1;", func(l uint32) uint32 { return l&^3 | 1 }},
		{"setp.lt.u32 %p1, %r1, 5; vote.sync.ballot.b32 %r2, %p1, -1;", func(l uint32) uint32 { return 31 }},
		{"setp.lt.u32 %p1, %r1, 5; vote.sync.any.pred %p2, %p1, -1; selp.b32 %r2, 1, 0, %p2;", func(l uint32) uint32 { return 1 }},
		{"setp.lt.u32 %p1, %r1, 5; vote.sync.all.pred %p2, !%p1, -1; selp.b32 %r2, 1, 0, %p2;", func(l uint32) uint32 { return 0 }},
		{"redux.sync.add.u32 %r2, %r1, -1;", func(l uint32) uint32 { return 31 * 16 }},
		{"redux.sync.max.s32 %r2, %r1, -1;", func(l uint32) uint32 { return 31 }},
		{"elect.sync _|%p1, -1; vote.sync.ballot.b32 %r2, %p1, -1; popc.b32 %r2, %r2;", func(l uint32) uint32 { return 1 }},
		{"setp.lt.u32 %p1, %r1, 7; bar.red.popc.u32 %r2, 0, %p1;", func(l uint32) uint32 { return 7 }},
		{"setp.lt.u32 %p1, %r1, 7; bar.red.or.pred %p2, 0, %p1; selp.b32 %r2, 3, 4, %p2;", func(l uint32) uint32 { return 3 }},
		{"mov.u32 %r2, %lanemask_lt;", func(l uint32) uint32 { return 1<<l - 1 }},
		{"mov.u32 %r2, 5; setp.lt.u32 %p1, %r1, 8; @%p1 activemask.b32 %r2;", func(l uint32) uint32 {
			if l < 8 {
				return 255
			}
			return 5
		}},
	} {
		out, err := launch(t, 2, x.text+"\nst.global.u32 [%rd4], %r2;", 1, 32, nil)
		if err != nil {
			t.Errorf("%s: %v", x.text, err)
		}
		for l, v := range out {
			if w := x.want(uint32(l)); v != w {
				t.Errorf("%s: lane %d has %d, want %d", x.text, l, v, w)
			}
		}
	}
}

func TestControlFlow(t *testing.T) {
	// Loops of different length, with branches and a shuffle behind them.
	in := make([]uint32, 256)
	for i := range in {
		in[i] = uint32(i + 1)
	}
	for seed := range int64(5) {
		out, err := launch(t, seed, `
	ld.global.u32 %r2, [%rd3];
	mov.u32 %r3, 0;
HEAD:
	setp.le.u32 %p1, %r2, 1;
	@%p1 bra EXIT;
	and.b32 %r4, %r2, 1;
	setp.eq.u32 %p2, %r4, 0;
	@%p2 bra EVEN;
	mad.lo.u32 %r2, %r2, 3, 1;
	bra LATCH;
EVEN:
	shr.u32 %r2, %r2, 1;
LATCH:
	add.u32 %r3, %r3, 1;
	bra HEAD;
EXIT:
	shfl.sync.bfly.b32 %r4, %r3, 1, 31, -1;
	add.u32 %r3, %r3, %r4;
	st.global.u32 [%rd4], %r3;
`, 1, 256, in)
		if err != nil {
			t.Fatal(err)
		}
		length := func(n uint32) (k uint32) {
			for ; n > 1; k++ {
				if n&1 == 1 {
					n = 3*n + 1
				} else {
					n /= 2
				}
			}
			return
		}
		for i, v := range out {
			if w := length(in[i]) + length(in[i^1]); v != w {
				t.Fatal(i, v, w)
			}
		}
	}
	// A loop inside of a branch inside of a loop, with continue and break.
	out, err := launch(t, 1, `
	mov.u32 %r3, 0; mov.u32 %r4, 0;
A:	setp.ge.u32 %p1, %r4, 10;
	@%p1 bra DONE;
	add.u32 %r4, %r4, 1;
	and.b32 %r5, %r1, %r4;
	setp.eq.u32 %p2, %r5, 0;
	@%p2 bra A;
	setp.gt.u32 %p2, %r3, 100;
	@%p2 bra DONE;
	mov.u32 %r6, %r5;
B:	add.u32 %r3, %r3, %r6;
	sub.u32 %r6, %r6, 1;
	setp.ne.u32 %p2, %r6, 0;
	@%p2 bra B;
	bra A;
DONE:
	bar.warp.sync -1;
	st.global.u32 [%rd4], %r3;
`, 1, 32, nil)
	if err != nil {
		t.Fatal(err)
	}
	for l := range uint32(32) {
		s := uint32(0)
		for i := uint32(1); i <= 10; i++ {
			if l&i == 0 {
				continue
			}
			if s > 100 {
				break
			}
			for k := l & i; k > 0; k-- {
				s += k
			}
		}
		if out[l] != s {
			t.Fatal(l, out[l], s)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, x := range []struct{ body, says string }{
		{"frob.s32 %r2, %r1;", "unknown instruction: frob.s32 %r2, %r1"},
		{"add.s32 %r2, %rd1, 1;", "register %rd1 has type b64"},
		{"add.s32 %f2, %r1, 1;", "register %f2 has type f32"},
		{"add.f32 %f2, %f1, 1;", "integer 1 for type f32"},
		{"add.s32 %r2, %r1;", "2 operands, not 3"},
		{"add.wobbly.s32 %r2, %r1, 1;", "unknown modifier .wobbly"},
		{"fma.f32 %f1, %f1, %f1, %f1;", "must say how it rounds"},
		{"mov.u32 %r2, %r99;", "undeclared register %r99"},
		{"bra NOWHERE;", "label NOWHERE is not declared"},
		{"A: A: ret;", "label A is declared twice"},
		{"mov.u32 %tid.x, 1;", "can't be written"},
		{"st.shared.u32 [%f1], %r1;", "as an address"},
		{"ld.global.u32 %r2, [%r1];", "as an address"},
		{"ld.global.v2.u32 %r2, [%rd1];", "registers for 2 elements"},
		{"@%r1 ret;", "expected a predicate"},
		{"{ .reg .b32 z; } mov.u32 z, 1;", "no register"},
		{"add.s32 %r2, %r1, %r3;", "reads a register that nothing writes"},
		{"@%p1 ret;", "reads a register that nothing writes"},
		{"add.s32 %r2, %r1, 4294967296;", "out of the range"},
	} {
		_, err := simt.Parse(kernel("\n\n" + x.body))
		if err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: want %q, got %v", x.body, x.says, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "21: ") {
			t.Errorf("%s: line of %v", x.body, err)
		}
	}
}

func TestModules(t *testing.T) {
	m := parse(t, `.version 7.0
.target sm_80
.address_size 64
.file 1 "x.go"
.global .align 16 .b32 table[4] = {1, 2, 3, 0xffffffff};
.const .align 4 .f32 scale[] = {0f40000000, 0f3F000000};
.global .align 8 .b8 scratch[64];
.visible .entry first(
	.param .b64 P0,
	.param .align 64 .b8 P1[128],
	.param .f32 P2)
.maxntid 64, 1, 1
.minnctapersm 2
{
	.reg .b64 %d<9>;
	.reg .b32 %r<9>;
	.reg .f32 %f<9>;
	.shared .align 8 .b32 box[8];
	.loc 1 7 0
	ld.param.u64 %d1, [P0];
	mov.b64 %d2, P1;
	ld.param.b32 %r1, [%d2+8];
	ld.param.f32 %f1, [P2];
	ld.const.f32 %f2, [scale+4]; /* of two
	values */
	mul.rn.f32 %f1, %f1, %f2;
	ld.global.s32 %r2, [table+8];
	mov.u64 %d3, table;
	ld.b32 %r3, [%d3+4];
	add.s32 %r1, %r1, %r2;
	add.s32 %r1, %r1, %r3;
	mov.u32 %r4, box;
	cvt.u64.u32 %d4, %r4;
	cvta.shared.u64 %d4, %d4;
	st.b32 [%d4+4], %r1;
	ld.shared.b32 %r1, [box+4];
	st.global.v2.b32 [%d1], {%r1, %f1};
	mov.u64 %d3, scratch;
	st.global.b64 [%d3+56], %d1;
	ret;
}
.visible .entry second(.param .b64 P0) .reqntid 1
{
	.reg .b64 %d<9>;
	ld.param.b64 %d1, [P0];
	ld.global.b64 %d2, [scratch+56];
	st.global.b64 [%d1+8], %d2;
}
`)
	if e := m.Entries(); len(e) != 2 || e[0] != "first" || e[1] != "second" {
		t.Fatal(e)
	}
	mach := simt.NewMachine(simt.Options{Check: true})
	b := mach.Alloc("b", 16)
	var array [128]byte
	array[8] = 100
	one := simt.Launch{Entry: "first", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}, Params: []any{b.Addr(), array, float32(3)}}
	if err := mach.Launch(m, one); err != nil {
		t.Fatal(err)
	}
	if word(b, 0) != 105 || f32(word(b, 1)) != 1.5 {
		t.Error(word(b, 0), word(b, 1))
	}
	// What one launch has written, the next finds.
	if err := mach.Launch(m, simt.Launch{Entry: "second", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}, Params: []any{b.Addr()}}); err != nil {
		t.Fatal(err)
	}
	if binary.LittleEndian.Uint64(b.Bytes()[8:]) != b.Addr() {
		t.Error(b.Bytes())
	}
	for _, bad := range []simt.Launch{
		{Entry: "third", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}},
		{Entry: "second", Grid: [3]int{1, 1, 1}, Block: [3]int{2, 1, 1}, Params: []any{b.Addr()}},
		{Entry: "second", Grid: [3]int{1, 0, 1}, Block: [3]int{1, 1, 1}, Params: []any{b.Addr()}},
		{Entry: "second", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}, Params: []any{int32(1)}},
		{Entry: "second", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}},
		{Entry: "second", Grid: [3]int{1, 1, 1}, Block: [3]int{1, 1, 1}, Params: []any{b.Addr()}, Shared: 1 << 20},
	} {
		var f *simt.Fault
		if err := mach.Launch(m, bad); err == nil || errors.As(err, &f) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The same seed gives the same run; other seeds, and runs without checks, the same
// result.
func TestRuns(t *testing.T) {
	m := parse(t, kernel(element))
	run := func(seed int64, check bool) (simt.Stats, string) {
		mach := simt.NewMachine(simt.Options{Seed: seed, Check: check})
		in, out := mach.Alloc("in", 4<<16), mach.Alloc("out", 4<<16)
		for i := range in.Bytes() {
			in.Bytes()[i] = byte(i * 7)
		}
		in.Init()
		mach.FillUninit(0x55)
		if out.Bytes()[5] != 0x55 || in.Bytes()[5] != 35 {
			t.Fatal("FillUninit")
		}
		if err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{4, 1, 1}, Block: [3]int{256, 1, 1}, Params: []any{in.Addr(), out.Addr()}}); err != nil {
			t.Fatal(err)
		}
		return mach.Stats(), string(out.Bytes())
	}
	s1, o1 := run(1, true)
	s2, o2 := run(1, true)
	if s1 != s2 || o1 != o2 {
		t.Error("same seed, different runs")
	}
	if _, o := run(2, false); o != o1 {
		t.Error("different results without checks")
	}
	if s1.Instructions == 0 || s1.Global != 2*65536/32 || s1.Special != 65536/32 {
		t.Errorf("%+v", s1)
	}
	// Bank conflicts and sectors.
	for _, x := range []struct {
		body               string
		waves, ideal, s, i int64
	}{
		{own + "st.shared.u32 [%r10], %r1;", 1, 1, 0, 0},
		{own + "mad.lo.u32 %r2, %r1, 128, %r9; st.shared.u32 [%r2], %r1;", 32, 1, 0, 0},
		{own + "mad.lo.u32 %r2, %r1, 16, %r9; st.shared.v4.u32 [%r2], {%r1, %r1, %r1, %r1};", 4, 4, 0, 0},
		{own + "mad.lo.u32 %r2, %r1, 8, %r9; st.shared.u32 [%r2], %r1;", 2, 1, 0, 0},
		{"ld.global.u32 %r2, [%rd3];", 0, 0, 4, 4},
		{"ld.global.u32 %r2, [%rd1];", 0, 0, 1, 1},
		{"mul.wide.u32 %rd5, %r1, 32; add.s64 %rd5, %rd5, %rd1; ld.global.u32 %r2, [%rd5];", 0, 0, 32, 4},
	} {
		mach := simt.NewMachine(simt.Options{Check: true, Count: true})
		in := mach.Alloc("in", 4096)
		in.Init()
		if err := mach.Launch(parse(t, kernel(x.body)), simt.Launch{Entry: "k", Grid: [3]int{1, 1, 1}, Block: [3]int{32, 1, 1}, Shared: 8192, Params: []any{in.Addr(), in.Addr()}}); err != nil {
			t.Fatal(err)
		}
		if s := mach.Stats(); s.Wavefronts != x.waves || s.WavefrontsIdeal != x.ideal || s.Sectors != x.s || s.SectorsIdeal != x.i {
			t.Errorf("%s: %+v", x.body, s)
		}
	}
}

// A barrier of the whole grid, of atomics on global memory: all blocks read what one
// of them writes afterwards.
func TestGridBarrier(t *testing.T) {
	body := func(fence string) string {
		return `
	mov.u32 %r2, %ctaid.x;
	ld.global.u32 %r3, [%rd3+64];
	bar.sync 0;
	setp.ne.u32 %p1, %r1, 0;
	@%p1 bra JOIN;
	` + fence + `
	atom.global.add.u32 %r4, [%rd1], 1;
SPIN:
	ld.relaxed.gpu.global.u32 %r5, [%rd1];
	setp.lt.u32 %p2, %r5, 8;
	@%p2 bra SPIN;
	` + fence + `
JOIN:
	bar.sync 0;
	setp.ne.u32 %p3, %r2, 5;
	@%p3 bra DONE;
	st.global.u32 [%rd3+64], %r1;
DONE:
`
	}
	clean(t, body("fence.acq_rel.gpu;"), 8, 64)
	fault(t, simt.Race, "", body(""), 8, 64)
}

func TestAtomics(t *testing.T) {
	for _, x := range []struct {
		op, typ  string
		old, arg uint32 // the argument is the lane where it's 0
		want     uint32
	}{
		{"add.noftz", "f16x2", 0x3c003c00, 0x40003c00, 0}, // see below
		{"min", "s32", 5, 0x80000000, 0x80000000},
		{"min", "u32", 5, 0x80000000, 5},
		{"max", "s32", 5, 0x80000000, 5},
		{"and", "b32", 0xff, 0x3c, 0x3c},
		{"or", "b32", 0xf0, 0x0f, 0xff},
		{"inc", "u32", 0, 9, 2}, // 32 times, from 0 to 9
		{"dec", "u32", 3, 9, 1},
		{"max.noftz", "bf16x2", 0x3f80bf80, 0xbf803f80, 0x3f803f80},
	} {
		body := fmt.Sprintf("st.shared.b32 [smem], %d; bar.sync 0; red.shared.%s.%s [smem], %d; bar.sync 0; ld.shared.b32 %%r2, [smem]; st.global.b32 [%%rd4], %%r2;", x.old, x.op, x.typ, x.arg)
		body = "setp.eq.u32 %p1, %r1, 0;\n@%p1 " + strings.Replace(strings.Replace(body, fmt.Sprintf("[smem], %d; bar", x.arg), "[smem], %r5; bar", 1), "bar.sync 0;", fmt.Sprintf("mov.b32 %%r5, %d; bar.sync 0;", x.arg), 1)
		out, err := launch(t, 1, body, 1, 32, nil)
		if err != nil {
			t.Errorf("%s.%s: %v", x.op, x.typ, err)
			continue
		}
		want := x.want
		if x.typ == "f16x2" {
			want = half(1+32) | half(1+64)<<16
		}
		if out[0] != want {
			t.Errorf("%s.%s: %#x, want %#x", x.op, x.typ, out[0], want)
		}
	}
	out, err := launch(t, 1, `
	mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000; mov.u64 %rd5, 3;
	st.global.v4.u32 [%rd2], {0, 0, 0, 0}; st.global.v2.u64 [%rd2+16], {0, 0};
	bar.sync 0;
	red.global.add.v2.f32 [%rd2], {%f1, %f2};
	atom.global.add.u64 %rd6, [%rd2+16], %rd5;
	atom.global.xor.b32 %r2, [%rd2+24], 5;
	red.global.max.s64 [%rd2+16], 7;
`, 1, 1, nil)
	if err == nil {
		t.Error("the output is too small", out)
	}
	out, err = launch(t, 1, `
	mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000; mov.u64 %rd5, 3;
	setp.eq.u32 %p1, %r1, 0;
	@%p1 st.global.v4.u32 [%rd2], {0, 0, 0, 0}; @%p1 st.global.v2.u64 [%rd2+16], {0, 0};
	bar.sync 0;
	red.global.add.v2.f32 [%rd2], {%f1, %f2};
	atom.global.add.u64 %rd6, [%rd2+16], %rd5;
	atom.global.xor.b32 %r2, [%rd2+24], 5;
`, 1, 33, nil)
	if err != nil || f32(out[0]) != 33 || f32(out[1]) != 66 || out[4] != 99 || out[6] != 5 {
		t.Error(out[:8], err)
	}
}

func TestSpecialRegisters(t *testing.T) {
	regs := []string{"%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z",
		"%laneid", "%warpid", "%nwarpid", "%clusterid.x", "%clusterid.y", "%nclusterid.x", "%cluster_ctaid.x", "%cluster_ctaid.y", "%cluster_nctaid.x",
		"%cluster_ctarank", "%cluster_nctarank", "%dynamic_smem_size", "%lanemask_eq", "%lanemask_le", "%lanemask_gt", "%lanemask_ge"}
	body := `
	mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mad.lo.u32 %r4, %r3, 2, %r2; mad.lo.u32 %r4, %r4, 6, %r1;
	mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.x; mad.lo.u32 %r5, %r5, 4, %r6; mad.lo.u32 %r4, %r5, 36, %r4;
	mul.wide.u32 %rd5, %r4, ` + fmt.Sprint(4*len(regs)) + `; add.s64 %rd5, %rd5, %rd2;
`
	for i, r := range regs {
		body += fmt.Sprintf("st.global.u32 [%%rd5+%d], %s;\n", 4*i, r)
	}
	m := parse(t, kernel(body))
	mach := simt.NewMachine(simt.Options{Seed: 3, Check: true})
	const threads = 6 * 2 * 3
	out := mach.Alloc("out", 4*len(regs)*threads*4*2)
	if err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{4, 2, 1}, Block: [3]int{6, 2, 3}, Cluster: [3]int{2, 1, 1}, Shared: 512, Params: []any{out.Addr(), out.Addr()}}); err != nil {
		t.Fatal(err)
	}
	for b := range 8 {
		for th := range threads {
			x, y, lane := b%4, b/4, th%32
			want := []int{th % 6, th / 6 % 2, th / 12, 6, 2, 3, x, y, 0, 4, 2, 1,
				lane, th / 32, 2, x / 2, y, 2, x % 2, 0, 2,
				x % 2, 2, 512, 1 << lane, 1<<(lane+1) - 1, 0, 0}
			want[26] = int(^uint32(want[25]))
			want[27] = int(^uint32(1<<lane - 1))
			for i, r := range regs {
				if got := word(out, (b*threads+th)*len(regs)+i); got != uint32(want[i]) {
					t.Fatalf("%s of thread %d of block %d is %d, want %d", r, th, b, got, want[i])
				}
			}
		}
	}
}

func TestHints(t *testing.T) {
	clean(t, `
	griddepcontrol.wait;
	prefetch.global.L2 [%rd3];
	nanosleep.u32 20;
	setmaxnreg.dec.sync.aligned.u32 40;
	ld.global.nc.L1::no_allocate.L2::128B.u32 %r2, [%rd3];
	ld.global.ca.u32 %r2, [%rd3];
	cvta.to.global.u64 %rd5, %rd3;
	ld.volatile.global.u32 %r2, [%rd5];
	griddepcontrol.launch_dependents;
	exit;
`, 1, 32)
	fault(t, simt.Divergent, "setmaxnreg", "setp.eq.u32 %p1, %r1, 0; @%p1 setmaxnreg.inc.sync.aligned.u32 40;", 1, 32)
	// Generic addresses reach all memory.
	clean(t, own+`
	cvt.u64.u32 %rd5, %r10; cvta.shared.u64 %rd5, %rd5;
	st.u32 [%rd5], %r1; ld.u32 %r2, [%rd5]; ld.u32 %r3, [%rd3];
	cvta.to.shared.u64 %rd5, %rd5; cvt.u32.u64 %r4, %rd5; ld.shared.u32 %r2, [%r4];
`, 1, 32)
	// An mbarrier's memory serves other ends after its end.
	clean(t, own+`
	setp.eq.u32 %p1, %r1, 0;
	@%p1 mbarrier.init.shared.b64 [%r9], 1;
	@%p1 mbarrier.arrive.shared.b64 %rd5, [%r9];
	@%p1 mbarrier.test_wait.shared.b64 %p2, [%r9], %rd5;
	@%p1 mbarrier.inval.shared.b64 [%r9];
	bar.sync 0;
	st.shared.u32 [%r10], %r1;
`, 1, 32)
}
