package simt_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

// mapKernel wraps a body that finds the thread's number in %r1, the start of shared
// memory, a multiple of 1024, in %r9, the address of a tensor map in %rd1 and that
// of the output in %rd2. An mbarrier for one arrival is at %r15, behind 32 KiB.
func mapKernel(body string) string {
	return `.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 smem[];
.visible .entry k(.param .align 64 .b8 tmap[128], .param .b64 out)
{
	.reg .pred %p<16>;
	.reg .b16 %h<32>;
	.reg .b32 %r<64>;
	.reg .f32 %f<160>;
	.reg .b64 %rd<64>;
	mov.b64 %rd1, tmap;
	cvta.param.u64 %rd1, %rd1;
	ld.param.b64 %rd2, [out];
	mov.u32 %r1, %tid.x;
	mov.u32 %r9, smem;
	add.u32 %r15, %r9, 32768;
	setp.eq.u32 %p1, %r1, 0;
` + body + `
	ret;
}
`
}

type mapLaunch struct {
	tmap    simt.TensorMap
	in      *simt.Buffer
	threads int
	blocks  int
	cluster int
	words   int
	seed    int64
	init    bool // the output counts as written
}

// run launches a body of mapKernel and gives the output.
func (l mapLaunch) run(t *testing.T, mach *simt.Machine, body string) ([]uint32, error) {
	t.Helper()
	m := parse(t, mapKernel(body))
	out := mach.Alloc("out", 4*l.words)
	if l.init {
		clear(out.Bytes())
		out.Init()
	}
	if l.tmap.Addr == 0 {
		l.tmap.Addr = out.Addr()
	}
	err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{max(1, l.blocks), 1, 1}, Block: [3]int{l.threads, 1, 1}, Cluster: [3]int{max(1, l.cluster), 1, 1},
		Shared: 33024, Params: []any{tensor(&l.tmap), out.Addr()}})
	v := make([]uint32, l.words)
	for i := range v {
		v[i] = word(out, i)
	}
	return v, err
}

func machine(seed int64) *simt.Machine {
	return simt.NewMachine(simt.Options{Seed: seed, Check: true, Count: true, Steps: 1 << 20})
}

func wantFault(t *testing.T, err error, kind simt.Kind, says string) {
	t.Helper()
	var f *simt.Fault
	if !errors.As(err, &f) || kind != "" && f.Kind != kind || !strings.Contains(f.Error(), says) {
		t.Errorf("want %s with %q, got %v", kind, says, err)
	}
}

const initBar = `
	@%p1 mbarrier.init.shared::cta.b64 [%r15], 1;
	@%p1 fence.mbarrier_init.release.cluster;
	bar.sync 0;
`

const waitBar = `
W:	mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r15], 0;
	@!%p2 bra W;
`

// A box over the edge of a tensor of rank 3, whose outside is zero.
func TestTensorLoad(t *testing.T) {
	for _, sw := range []int{0, 32, 64, 128} {
		for seed := range int64(3) {
			mach := machine(seed)
			const d0, d1, d2 = 20, 5, 3 // f32; rows of 24 elements
			b := mach.Alloc("tensor", 4*24*d1*d2)
			v := make([]uint32, 24*d1*d2)
			for i := range v {
				v[i] = uint32(i + 1)
			}
			words(b, v)
			inner := 8
			if sw > 0 {
				inner = sw / 4
			}
			box := []uint32{uint32(inner), 4, 2}
			n := inner * 4 * 2
			at := [3]int{20 - inner + 2, -1, 2}
			l := mapLaunch{threads: 64, words: n, seed: seed, tmap: simt.TensorMap{Addr: b.Addr(), DType: simt.F32, Dims: []uint64{d0, d1, d2}, Strides: []uint64{96, 96 * d1}, Box: box, Swizzle: sw}}
			out, err := l.run(t, mach, initBar+fmt.Sprintf(`
	mov.u32 %%r20, %d; mov.u32 %%r21, %d; mov.u32 %%r22, %d;
	@!%%p1 bra WAIT;
	mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%%r15], %d;
	cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%%r9], [%%rd1, {%%r20, %%r21, %%r22}], [%%r15];
WAIT:
`, at[0], at[1], at[2], 4*n)+waitBar+fmt.Sprintf(`
	mov.u32 %%r30, %%r1;
L:	setp.ge.u32 %%p3, %%r30, %d;
	@%%p3 bra DONE;
	shl.b32 %%r31, %%r30, 2; add.u32 %%r32, %%r31, %%r9;
	ld.shared.b32 %%r33, [%%r32];
	cvt.u64.u32 %%rd5, %%r31; add.s64 %%rd5, %%rd5, %%rd2;
	st.global.b32 [%%rd5], %%r33;
	add.u32 %%r30, %%r30, 64;
	bra L;
DONE:
`, n))
			if err != nil {
				t.Fatalf("swizzle %d: %v", sw, err)
			}
			for i, got := range out {
				// what lies at byte 4*i, undoing the swizzle
				a := 4 * i
				switch sw {
				case 128:
					a ^= a >> 7 & 7 << 4
				case 64:
					a ^= a >> 7 & 3 << 4
				case 32:
					a ^= a >> 7 & 1 << 4
				}
				e := a / 4
				x, y, z := at[0]+e%inner, at[1]+e/inner%4, at[2]+e/inner/4
				want := uint32(0)
				if x >= 0 && x < d0 && y >= 0 && y < d1 && z >= 0 && z < d2 {
					want = v[24*(z*d1+y)+x]
				}
				if got != want {
					t.Fatalf("swizzle %d: word %d is %d, want %d", sw, i, got, want)
				}
			}
		}
	}
}

// flat is a map over n words of f32 as rows of 32, boxes of 4 rows.
func flat(b *simt.Buffer, n int) simt.TensorMap {
	m := simt.TensorMap{DType: simt.F32, Dims: []uint64{32, uint64(n / 32)}, Strides: []uint64{128}, Box: []uint32{32, 4}}
	if b != nil {
		m.Addr = b.Addr()
	}
	return m
}

func TestTensorLoadFaults(t *testing.T) {
	load := func(init, expect, wait string) string {
		return init + `
	mov.u32 %r20, 0;
	shl.b32 %r10, %r1, 2; add.u32 %r10, %r10, %r9;
	@!%p1 bra WAIT;
	` + expect + `
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r9], [%rd1, {%r20, %r20}], [%r15];
WAIT:
	` + wait + `
	ld.shared.b32 %r2, [%r10];
`
	}
	const expect = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r15], 512;"
	run := func(body string, seed int64) error {
		mach := machine(seed)
		b := mach.Alloc("tensor", 4096)
		words(b, make([]uint32, 1024))
		_, err := mapLaunch{threads: 64, words: 64, tmap: flat(b, 1024)}.run(t, mach, body)
		return err
	}
	for seed := range int64(6) {
		if err := run(load(initBar, expect, waitBar), seed); err != nil {
			t.Fatal(err)
		}
		wantFault(t, run(load(initBar, expect, ""), seed), "", "ld.shared.b32")
		wantFault(t, run(load(strings.Replace(initBar, "@%p1 fence.mbarrier_init.release.cluster;", "", 1), expect, waitBar), seed), simt.MissingFence, "fence.mbarrier_init")
		wantFault(t, run(load("", expect, waitBar), seed), simt.Uninitialised, "no mbarrier")
		wantFault(t, run(load(initBar, strings.Replace(expect, "512", "256", 1), waitBar), seed), simt.Deadlock, "-256 bytes")
		wantFault(t, run(load(initBar, "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r15], 512;", waitBar), seed), simt.Deadlock, "lacks 1 arrivals")
		wantFault(t, run(load(initBar, expect+expect, waitBar), seed), simt.BadOperand, "more arrivals")
		wantFault(t, run(load(initBar, expect, "st.shared.b32 [%r10], %r1;"), seed), "", "")
		wantFault(t, run(load(initBar+"bar.sync 0; @%p1 st.shared.b32 [%r15], %r1; bar.sync 0;", expect, waitBar), seed), simt.BadOperand, "over an mbarrier")
		// A store by this thread, then a copy over it: through different proxies.
		wantFault(t, run(load(initBar+"@%p1 st.shared.b32 [%r9], %r1;", expect, waitBar), seed), simt.MissingFence, "fence.proxy.async")
		if err := run(load(initBar+"@%p1 st.shared.b32 [%r9], %r1; fence.proxy.async.shared::cta;", expect, waitBar), seed); err != nil {
			t.Error(err)
		}
		wantFault(t, run(load(initBar+"add.u32 %r9, %r9, 64;", expect, waitBar), seed), simt.Misaligned, "128 bytes")
		wantFault(t, run(load(initBar+"add.u32 %r9, %r9, 32896;", expect, waitBar), seed), simt.OutOfBounds, "shared+33")
		wantFault(t, run(load(initBar+"add.s64 %rd1, %rd2, 0;", expect, waitBar), seed), simt.BadOperand, "no tensor map")
	}
}

func TestTensorStore(t *testing.T) {
	// Every thread writes a word, one stores the box of 4 x 32 at row 28, of which
	// the tensor has 2 rows less.
	store := func(fence, barrier, op, wait string) string {
		return `
	shl.b32 %r10, %r1, 2; add.u32 %r10, %r10, %r9;
	add.u32 %r2, %r1, 1; cvt.rn.f32.u32 %f1, %r2;
	st.shared.f32 [%r10], %f1;
	` + fence + barrier + `
	mov.u32 %r20, 0; mov.u32 %r21, 28;
	@!%p1 bra DONE;
	` + op + `.tensor.2d.global.shared::cta.ADDbulk_group [%rd1, {%r20, %r21}], [%r9];
	cp.async.bulk.commit_group;
	` + wait + `
DONE:
`
	}
	const fence, barrier, op, wait = "fence.proxy.async.shared::cta;", "bar.sync 0;", "cp.async.bulk", "cp.async.bulk.wait_group.read 0;"
	run := func(body string, seed int64, init bool) ([]uint32, error) {
		m := flat(nil, 960)
		return mapLaunch{threads: 128, words: 1024, tmap: m, init: init}.run(t, machine(seed), strings.Replace(body, "ADD", "", 1))
	}
	for seed := range int64(4) {
		out, err := run(store(fence, barrier, op, wait), seed, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			if f32(out[28*32+i]) != float32(i+1) {
				t.Fatal(i, f32(out[28*32+i]))
			}
		}
		if out[30*32] != 0xffffffff {
			t.Error("stored outside of the tensor")
		}
		_, err = run(store("", barrier, op, wait), seed, false)
		wantFault(t, err, simt.MissingFence, "fence.proxy.async")
		// After the barrier, the fence of the thread that stores is as good.
		if _, err = run(store("", barrier+fence, op, wait), seed, false); err != nil {
			t.Error(err)
		}
		_, err = run(store(fence, "", op, wait), seed, false)
		wantFault(t, err, "", "")
		_, err = run(store(fence, barrier, op, ""), seed, false)
		wantFault(t, err, simt.MissingWait, "returns while")
		// Overwritten before the store has read it.
		_, err = run(store(fence, barrier, op, "st.shared.f32 [%r9], %f1;"), seed, false)
		wantFault(t, err, simt.Race, "bulk stores of warp 0")
		if _, err = run(store(fence, barrier, op, wait+"st.shared.f32 [%r9], %f1;"), seed, false); err != nil {
			t.Error(err)
		}
		// Read back: the whole store must be complete, not only its reads.
		read := "ld.global.f32 %f2, [%rd2+3584];"
		_, err = run(store(fence, barrier, op, wait+read), seed, false)
		wantFault(t, err, simt.Race, "ld.global.f32")
		if _, err = run(store(fence, barrier, op, "cp.async.bulk.wait_group 0;"+read), seed, false); err != nil {
			t.Error(err)
		}
		// Sums.
		add := strings.Replace(store(fence, barrier, "cp.reduce.async.bulk", wait), "ADD", "add.", 1)
		out, err = mapLaunch{threads: 128, words: 1024, tmap: flat(nil, 960), init: true, blocks: 3}.run(t, machine(seed), add)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			if f32(out[28*32+i]) != 3*float32(i+1) {
				t.Fatal(i, f32(out[28*32+i]))
			}
		}
	}
}

// Copies without a tensor.
func TestBulkCopy(t *testing.T) {
	mach := machine(1)
	b := mach.Alloc("in", 1024)
	v := make([]uint32, 256)
	for i := range v {
		v[i] = uint32(i)
	}
	words(b, v)
	out, err := mapLaunch{threads: 32, words: 256, tmap: flat(b, 256)}.run(t, mach, initBar+fmt.Sprintf(`
	mov.u64 %%rd5, %d;
	mov.u32 %%r20, 1024;
	@!%%p1 bra WAIT;
	mbarrier.arrive.expect_tx.shared::cta.b64 _, [%%r15], %%r20;
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%%r9], [%%rd5], %%r20, [%%r15];
WAIT:
`, b.Addr())+waitBar+`
	@!%p1 bra DONE;
	cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r9], %r20;
	cp.async.bulk.commit_group;
	cp.async.bulk.wait_group 0;
DONE:
`)
	if err != nil {
		t.Fatal(err)
	}
	for i := range v {
		if out[i] != v[i] {
			t.Fatal(i, out[i])
		}
	}
}

// offsetOf is where element (row, column) of an operand of rows of k lies in shared
// memory, by the manual's description of its layouts: lead and stride are the
// descriptor's offsets.
func offsetOf(row, k int, mnMajor bool, mode, lead, stride int) int {
	if mode == 0 { // core matrices of 8 pieces of 16 bytes
		if mnMajor {
			return row/8*stride + k/8*lead + k%8*16 + row%8*2
		}
		return row/8*stride + k/8*lead + row%8*16 + k%8*2
	}
	a := row/8*stride + row%8*mode + k*2
	if mnMajor {
		a = row/(mode/2)*lead + row%(mode/2)*2 + k/8*stride + k%8*mode
	}
	switch mode {
	case 128:
		return a ^ a>>7&7<<4
	case 64:
		return a ^ a>>7&3<<4
	}
	return a ^ a>>7&1<<4
}

// Products of a warpgroup, for all layouts of operands.
func TestWgmma(t *testing.T) {
	for _, x := range []struct {
		n            int
		typ          string
		ta, tb       bool
		modeA, modeB int
		regs         bool // A in registers
		keep         bool
		negate       bool
	}{
		{64, "f16", false, false, 128, 128, false, false, false},
		{8, "f16", false, false, 0, 0, false, true, false},
		{32, "bf16", false, false, 64, 32, false, true, true},
		{128, "f16", true, false, 128, 64, false, false, false},
		{256, "bf16", false, true, 32, 128, false, false, false},
		{32, "f16", true, true, 64, 32, false, false, false},
		{32, "f16", true, true, 0, 0, false, false, false},
		{96, "f16", false, true, 128, 64, true, true, false},
		{24, "bf16", false, false, 0, 128, true, false, false},
	} {
		enc, dec := half, fromHalf
		if x.typ == "bf16" {
			enc, dec = brain, fromBrain
		}
		r := rand.New(rand.NewPCG(7, uint64(x.n)))
		num := func() float32 { return dec(enc(float32(r.NormFloat64()))) }
		A, B := make([]float32, 64*16), make([]float32, x.n*16) // rows of k
		for i := range A {
			A[i] = num()
		}
		for i := range B {
			B[i] = num()
		}
		// The image of shared memory: A from 0, B from 8 KiB on.
		img := make([]byte, 24<<10)
		desc := func(at, mode int, mnMajor bool, rows int) (d uint64, lead, stride int) {
			switch {
			case mode == 0 && mnMajor:
				stride, lead = 128, rows/8*128
			case mode == 0:
				stride, lead = 256, 128
			case mnMajor:
				// atoms of mode/2 rows by 8 k: those of one k first
				lead, stride = 8*mode, (rows+mode/2-1)/(mode/2)*8*mode
			default:
				lead, stride = 16, 8*mode
			}
			code := map[int]uint64{0: 0, 128: 1, 64: 2, 32: 3}[mode]
			return uint64(at)>>4 | uint64(lead)>>4<<16 | uint64(stride)>>4<<32 | code<<62, lead, stride
		}
		dA, leadA, strideA := desc(1024, x.modeA, x.ta, 64)
		dB, leadB, strideB := desc(1024+8192, x.modeB, x.tb, x.n)
		for i := range 64 {
			for k := range 16 {
				binary.LittleEndian.PutUint16(img[offsetOf(i, k, x.ta, x.modeA, leadA, strideA):], uint16(enc(A[i*16+k])))
			}
		}
		for j := range x.n {
			for k := range 16 {
				binary.LittleEndian.PutUint16(img[8192+offsetOf(j, k, x.tb, x.modeB, leadB, strideB):], uint16(enc(B[j*16+k])))
			}
		}
		mach := machine(2)
		in := mach.Alloc("image", len(img))
		copy(in.Bytes(), img)
		in.Init()
		frag := mach.Alloc("fragments", 64*16*2)
		for w := range 4 {
			for l := range 32 {
				for i := range 8 {
					row, col := a16816(l, i)
					binary.LittleEndian.PutUint16(frag.Bytes()[(w*32+l)*16+2*i:], uint16(enc(A[(w*16+row)*16+col])))
				}
			}
		}
		frag.Init()
		var acc []string
		body := fmt.Sprintf("mov.u64 %%rd5, %d; shl.b32 %%r2, %%r1, 4; cvt.u64.u32 %%rd6, %%r2; add.s64 %%rd5, %%rd5, %%rd6; add.u32 %%r3, %%r2, %%r9;\n", in.Addr())
		for o := 0; o < len(img); o += 2048 {
			body += fmt.Sprintf("ld.global.v4.b32 {%%r20, %%r21, %%r22, %%r23}, [%%rd5+%d]; st.shared.v4.b32 [%%r3+%d], {%%r20, %%r21, %%r22, %%r23};\n", o, o)
		}
		body += fmt.Sprintf("mov.u64 %%rd5, %d; add.s64 %%rd5, %%rd5, %%rd6; ld.global.v4.b32 {%%r20, %%r21, %%r22, %%r23}, [%%rd5];\n", frag.Addr())
		for i := range x.n / 2 {
			acc = append(acc, fmt.Sprintf("%%f%d", i+10))
			body += fmt.Sprintf("mov.f32 %%f%d, 0f40000000;\n", i+10)
		}
		a := "%rd10"
		imm := fmt.Sprintf("%d, %d", b2u(x.ta), b2u(x.tb))
		if x.regs {
			a, imm = "{%r20, %r21, %r22, %r23}", fmt.Sprint(b2u(x.tb))
		}
		sign := "1, 1, "
		if x.negate {
			sign = "1, -1, "
		}
		body += fmt.Sprintf(`
	mov.u64 %%rd10, %d; mov.u64 %%rd11, %d;
	setp.ne.b32 %%p5, %d, 0;
	fence.proxy.async.shared::cta;
	bar.sync 0;
	wgmma.fence.sync.aligned;
	wgmma.mma_async.sync.aligned.m64n%dk16.f32.%s.%s {%s}, %s, %%rd11, %%p5, %s%s;
	wgmma.commit_group.sync.aligned;
	wgmma.wait_group.sync.aligned 0;
	shl.b32 %%r2, %%r1, 2; cvt.u64.u32 %%rd6, %%r2; add.s64 %%rd6, %%rd6, %%rd2;
`, int64(dA), int64(dB), b2u(x.keep), x.n, x.typ, x.typ, strings.Join(acc, ", "), a, sign, imm)
		for i, f := range acc {
			body += fmt.Sprintf("st.global.f32 [%%rd6+%d], %s;\n", 512*i, f)
		}
		l := mapLaunch{threads: 128, words: 128 * x.n / 2, tmap: flat(in, 1024)}
		out, err := l.run(t, mach, body)
		if err != nil {
			t.Errorf("%+v: %v", x, err)
			continue
		}
		for w := range 4 {
			for l := range 32 {
				for i := range x.n / 2 {
					row, col := c1688(l, i%4)
					row, col = row+16*w, col+i/4*8
					want := 0.0
					for k := range 16 {
						want += float64(A[row*16+k]) * float64(B[col*16+k])
					}
					if x.negate {
						want = -want
					}
					if x.keep {
						want += 2
					}
					if got := float64(f32(out[128*i+w*32+l])); !(math.Abs(got-want) < 1e-4) {
						t.Fatalf("%+v: %d, %d is %g, want %g", x, row, col, got, want)
					}
				}
			}
		}
		if x.n != 64 {
			continue
		}
		broken := func(old, new string, kind simt.Kind, says string) {
			t.Helper()
			if !strings.Contains(body, old) {
				t.Fatal(old)
			}
			_, err := l.run(t, mach, strings.Replace(body, old, new, 1))
			wantFault(t, err, kind, says)
		}
		broken("fence.proxy.async.shared::cta;", "", simt.MissingFence, "fence.proxy.async")
		broken("wgmma.fence.sync.aligned;", "", simt.MissingFence, "accumulator")
		broken("wgmma.wait_group.sync.aligned 0;", "", simt.MissingWait, "wgmma still writes")
		broken("wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", simt.MissingWait, "wgmma still writes")
		broken("wgmma.commit_group.sync.aligned;", "", simt.MissingWait, "wgmma still writes")
		broken("wgmma.wait_group", "st.shared.b32 [%r9], %r1; wgmma.wait_group", simt.Race, "products of warpgroup 0")
		broken("wgmma.mma_async", "mov.f32 %f11, 0f00000000; wgmma.mma_async", simt.MissingFence, "accumulator")
		broken("wgmma.mma_async", "setp.lt.u32 %p6, %r1, 64; @%p6 add.s64 %rd11, %rd11, 1; wgmma.mma_async", "", "")
		broken("wgmma.mma_async", "add.s64 %rd11, %rd11, 16; wgmma.mma_async", simt.BadOperand, "multiples of 1024")
		broken("wgmma.mma_async", "add.s64 %rd11, %rd11, 4096; wgmma.mma_async", simt.OutOfBounds, "wgmma reads")
		broken("setp.ne.b32 %p5, 0, 0;", "setp.lt.u32 %p5, %r1, 5;", simt.BadOperand, "scale-d")
		broken("wgmma.wait_group", "setp.lt.u32 %p6, %r1, 5; @%p6 wgmma.wait_group", "", "")
	}
}

// Blocks of a cluster: distributed shared memory, barriers, multicast.
func TestClusters(t *testing.T) {
	share := func(arrive, wait, last string) string {
		return `
	mov.u32 %r2, %cluster_ctarank;
	shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r9;
	mad.lo.u32 %r4, %r2, 1000, %r1;
	st.shared.b32 [%r3], %r4;
	` + arrive + wait + `
	add.u32 %r5, %r2, 1; rem.u32 %r5, %r5, 4;
	mapa.shared::cluster.u32 %r6, %r3, %r5;
	ld.shared::cluster.b32 %r7, [%r6];
	mov.u32 %r8, %ctaid.x; mad.lo.u32 %r8, %r8, 64, %r1;
	mul.wide.u32 %rd5, %r8, 4; add.s64 %rd5, %rd5, %rd2;
	st.global.b32 [%rd5], %r7;
	` + last
	}
	const arrive, wait = "barrier.cluster.arrive.release.aligned;", "barrier.cluster.wait.acquire.aligned;"
	l := mapLaunch{threads: 64, blocks: 8, cluster: 4, words: 512, tmap: flat(nil, 512)}
	for seed := range int64(4) {
		out, err := l.run(t, machine(seed), share(arrive, wait, arrive+wait))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range out {
			if want := uint32((i/64+1)%4*1000 + i%64); v != want {
				t.Fatal(i, v, want)
			}
		}
		_, err = l.run(t, machine(seed), share("barrier.cluster.arrive.relaxed.aligned;", wait, arrive+wait))
		wantFault(t, err, simt.Race, "ld.shared::cluster")
		_, err = l.run(t, machine(seed), share("", "bar.sync 0;", arrive+wait))
		wantFault(t, err, "", "ld.shared::cluster")
		_, err = l.run(t, machine(seed), share("", wait, ""))
		wantFault(t, err, simt.BadOperand, "without an arrive")
	}
	// A block that returns takes its shared memory along.
	gone := false
	for seed := range int64(16) {
		_, err := l.run(t, machine(seed), share(arrive, wait, ""))
		if err != nil {
			wantFault(t, err, simt.OutOfBounds, "has returned")
			gone = true
		}
	}
	if !gone {
		t.Error("shared memory of a block that has returned")
	}
	// Block 0 loads for both; arrivals go to its mbarrier at 32776.
	both := func(mask string) string {
		return `
	mov.u32 %r2, %cluster_ctarank;
	@%p1 mbarrier.init.shared::cta.b64 [%r15], 1;
	@%p1 mbarrier.init.shared::cta.b64 [%r15+8], 2;
	@%p1 fence.mbarrier_init.release.cluster;
	@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r15], 512;
	barrier.cluster.arrive.release.aligned;
	barrier.cluster.wait.acquire.aligned;
	mov.u32 %r20, 0; mov.b16 %h1, ` + mask + `;
	setp.eq.and.u32 %p3, %r2, 0, %p1;
	@!%p3 bra WAIT;
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r9], [%rd1, {%r20, %r20}], [%r15], %h1;
WAIT:
` + waitBar + `
	shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r9;
	ld.shared.b32 %r7, [%r3];
	mad.lo.u32 %r8, %r2, 32, %r1; mul.wide.u32 %rd5, %r8, 4; add.s64 %rd5, %rd5, %rd2;
	st.global.b32 [%rd5], %r7;
	bar.sync 0;
	add.u32 %r10, %r15, 8;
	mapa.shared::cluster.u32 %r11, %r10, 0;
	@%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r11];
	setp.ne.u32 %p4, %r2, 0;
	@%p4 bra OUT;
V:	mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%r10], 0;
	@!%p2 bra V;
	mov.u32 %r12, 7;
	mov.u32 %r13, 1;
	mapa.shared::cluster.u32 %r14, %r3, 1;
	st.shared::cluster.b32 [%r14], %r12;
OUT:
	barrier.cluster.arrive.release.aligned;
	barrier.cluster.wait.acquire.aligned;
	ld.shared.b32 %r7, [%r3];
`
	}
	for seed := range int64(4) {
		mach := machine(seed)
		b := mach.Alloc("tensor", 4096)
		v := make([]uint32, 1024)
		for i := range v {
			v[i] = uint32(i) + 5
		}
		words(b, v)
		l := mapLaunch{threads: 32, blocks: 2, cluster: 2, words: 64, tmap: flat(b, 1024)}
		out, err := l.run(t, mach, both("3"))
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range out {
			if x != v[i%32] {
				t.Fatal(i, x)
			}
		}
		_, err = l.run(t, mach, both("1"))
		wantFault(t, err, simt.Deadlock, "0 arrivals and 512 bytes")
		_, err = l.run(t, mach, strings.Replace(both("3"), "@!%p2 bra V;", "", 1))
		if err != nil {
			wantFault(t, err, "", "shared")
		}
	}
	// A store that completes at the other block's mbarrier.
	send := `
	mov.u32 %r2, %cluster_ctarank;
	@%p1 mbarrier.init.shared::cta.b64 [%r15], 1;
	@%p1 fence.mbarrier_init.release.cluster;
	@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r15], 128;
	barrier.cluster.arrive.release.aligned;
	barrier.cluster.wait.acquire.aligned;
	xor.b32 %r5, %r2, 1;
	shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r9;
	mapa.shared::cluster.u32 %r6, %r3, %r5;
	mapa.shared::cluster.u32 %r7, %r15, %r5;
	mad.lo.u32 %r8, %r2, 32, %r1;
	st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r6], %r8, [%r7];
` + waitBar + `
	ld.shared.b32 %r10, [%r3];
	mul.wide.u32 %rd5, %r8, 4; add.s64 %rd5, %rd5, %rd2;
	st.global.b32 [%rd5], %r10;
	barrier.cluster.arrive.release.aligned;
	barrier.cluster.wait.acquire.aligned;
`
	l = mapLaunch{threads: 32, blocks: 2, cluster: 2, words: 64, tmap: flat(nil, 64)}
	out, err := l.run(t, machine(1), send)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range out {
		if x != uint32(i^32) {
			t.Fatal(i, x)
		}
	}
	_, err = l.run(t, machine(1), strings.Replace(send, "@!%p2 bra W;", "", 1))
	wantFault(t, err, "", "ld.shared.b32")
}

func TestTensorMaps(t *testing.T) {
	good := simt.TensorMap{Addr: 1 << 36, DType: simt.BF16, Dims: []uint64{64, 32}, Strides: []uint64{128}, Box: []uint32{64, 32}, Swizzle: 128}
	if _, err := simt.EncodeTensorMap(good); err != nil {
		t.Fatal(err)
	}
	for says, f := range map[string]func(m *simt.TensorMap){
		"rank":            func(m *simt.TensorMap) { m.Dims = nil },
		"strides":         func(m *simt.TensorMap) { m.Strides = nil },
		"multiple of 16":  func(m *simt.TensorMap) { m.Addr += 8 },
		"stride 120":      func(m *simt.TensorMap) { m.Strides = []uint64{120} },
		"box of 512":      func(m *simt.TensorMap) { m.Box = []uint32{64, 512} },
		"swizzle of 16":   func(m *simt.TensorMap) { m.Swizzle = 16 },
		"swizzled by 64":  func(m *simt.TensorMap) { m.Swizzle = 64 },
		"no multiple of ": func(m *simt.TensorMap) { m.Swizzle, m.Box = 0, []uint32{6, 1} },
		"dimension 0":     func(m *simt.TensorMap) { m.Dims = []uint64{0, 1} },
	} {
		m := good
		f(&m)
		if _, err := simt.EncodeTensorMap(m); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}
