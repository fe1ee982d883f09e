package simt_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// Fragment layouts as the manual of PTX has them: element i of a thread's fragment
// is at a row and column of the matrix.
type layout func(lane, i int) (row, col int)

func group(l int) int    { return l >> 2 }
func inGroup(l int) int  { return l % 4 }
func pick(c bool) int    { return map[bool]int{true: 1}[c] }
func rowsOf(l int) int   { return l%4 + pick(l >= 16)*4 }
func quadPair(l int) int { return l % 16 / 4 }

var (
	a16816 layout = func(l, i int) (int, int) {
		row := group(l)
		if !(0 <= i && i < 2 || 4 <= i && i < 6) {
			row += 8
		}
		return row, inGroup(l)*2 + i&1 + pick(i >= 4)*8
	}
	b16816 layout = func(l, i int) (int, int) { return inGroup(l)*2 + i&1 + pick(i >= 2)*8, group(l) }
	c1688  layout = func(l, i int) (int, int) { return group(l) + pick(i >= 2)*8, inGroup(l)*2 + i&1 }
	a1688h layout = func(l, i int) (int, int) { return group(l) + pick(i >= 2)*8, inGroup(l)*2 + i&1 }
	b1688h layout = func(l, i int) (int, int) { return inGroup(l)*2 + i, group(l) }
	a1688t layout = func(l, i int) (int, int) {
		return group(l) + pick(i == 1 || i == 3)*8, inGroup(l) + pick(i >= 2)*4
	}
	b1688t layout = func(l, i int) (int, int) { return inGroup(l) + pick(i == 1)*4, group(l) }
	a1684t layout = func(l, i int) (int, int) { return group(l) + pick(i == 1)*8, inGroup(l) }
	b1684t layout = func(l, i int) (int, int) { return inGroup(l), group(l) }
	a884r  layout = func(l, i int) (int, int) { return rowsOf(l), i }
	a884c  layout = func(l, i int) (int, int) { return i%4 + pick(l >= 16)*4, l % 4 }
	b884c  layout = func(l, i int) (int, int) { return i, rowsOf(l) }
	b884r  layout = func(l, i int) (int, int) { return l % 4, i + pick(l >= 16)*4 }
	c884f  layout = func(l, i int) (int, int) { return l&1 + i&2 + pick(l >= 16)*4, i&4 + l&2 + i&1 }
	c884h  layout = func(l, i int) (int, int) { return rowsOf(l), i }
)

func TestMMA(t *testing.T) {
	for _, x := range []struct {
		op, typ    string
		m, n, k    int
		an, bn, cn int // elements of fragments
		a, b, c    layout
		c16        bool
	}{
		{"m16n8k16.row.col.f32.f16.f16.f32", "f16", 16, 8, 16, 8, 4, 4, a16816, b16816, c1688, false},
		{"m16n8k16.row.col.f32.bf16.bf16.f32", "bf16", 16, 8, 16, 8, 4, 4, a16816, b16816, c1688, false},
		{"m16n8k16.row.col.f16.f16.f16.f16", "f16", 16, 8, 16, 8, 4, 4, a16816, b16816, c1688, true},
		{"m16n8k8.row.col.f32.f16.f16.f32", "f16", 16, 8, 8, 4, 2, 4, a1688h, b1688h, c1688, false},
		{"m16n8k8.row.col.f32.bf16.bf16.f32", "bf16", 16, 8, 8, 4, 2, 4, a1688h, b1688h, c1688, false},
		{"m16n8k8.row.col.f32.tf32.tf32.f32", "tf32", 16, 8, 8, 4, 2, 4, a1688t, b1688t, c1688, false},
		{"m16n8k4.row.col.f32.tf32.tf32.f32", "tf32", 16, 8, 4, 2, 1, 4, a1684t, b1684t, c1688, false},
		{"m8n8k4.row.col.f32.f16.f16.f32", "f16", 8, 8, 4, 4, 4, 8, a884r, b884c, c884f, false},
		{"m8n8k4.col.row.f32.f16.f16.f32", "f16", 8, 8, 4, 4, 4, 8, a884c, b884r, c884f, false},
		{"m8n8k4.row.row.f16.f16.f16.f16", "f16", 8, 8, 4, 4, 4, 8, a884r, b884r, c884h, true},
	} {
		enc, dec, per := half, fromHalf, 2
		switch x.typ {
		case "bf16":
			enc, dec = brain, fromBrain
		case "tf32":
			enc, dec, per = func(v float32) uint32 { return math.Float32bits(v) &^ 0x1fff }, f32, 1
		}
		// Four products at once for the quad pairs of m8n8k4.
		sets := 1
		if x.m == 8 {
			sets = 4
		}
		r := rand.New(rand.NewPCG(5, 6))
		matrix := func(rows, cols int, round func(float32) float32) [][]float32 {
			m := make([][]float32, rows)
			for i := range m {
				for range cols {
					m[i] = append(m[i], round(float32(r.NormFloat64())))
				}
			}
			return m
		}
		exact := func(v float32) float32 { return dec(enc(v)) }
		exactC := func(v float32) float32 { return v }
		if x.c16 {
			exactC = func(v float32) float32 { return fromHalf(half(v)) }
		}
		var A, B, C [][][]float32
		for range sets {
			A, B, C = append(A, matrix(x.m, x.k, exact)), append(B, matrix(x.k, x.n, exact)), append(C, matrix(x.m, x.n, exactC))
		}
		ra, rb, rc := x.an/per, x.bn/per, x.cn
		if x.c16 {
			rc /= 2
		}
		words := ra + rb + rc
		in := make([]uint32, 32*words)
		set := func(l int) int {
			if sets == 1 {
				return 0
			}
			return quadPair(l)
		}
		for l := range 32 {
			put := func(at, i, per int, v uint32) {
				in[l*words+at+i/per] |= v << (16 * (i % per))
			}
			for i := range x.an {
				row, col := x.a(l, i)
				put(0, i, per, enc(A[set(l)][row][col]))
			}
			for i := range x.bn {
				row, col := x.b(l, i)
				put(ra, i, per, enc(B[set(l)][row][col]))
			}
			for i := range x.cn {
				row, col := x.c(l, i)
				v := C[set(l)][row][col]
				if x.c16 {
					put(ra+rb, i, 2, half(v))
				} else {
					put(ra+rb, i, 1, math.Float32bits(v))
				}
			}
		}
		// a in %r10.., b in %r20.., c and d in %f or %r30..
		body := fmt.Sprintf("mul.lo.u32 %%r2, %%r1, %d; cvt.u64.u32 %%rd5, %%r2; add.s64 %%rd5, %%rd5, %%rd1;\n", 4*words)
		list := func(prefix string, from, n, at int) string {
			var s []string
			for i := range n {
				reg := fmt.Sprintf("%s%d", prefix, from+i)
				s = append(s, reg)
				if at >= 0 {
					body += fmt.Sprintf("ld.global.b32 %s, [%%rd5+%d];\n", reg, 4*(at+i))
				}
			}
			return "{" + strings.Join(s, ", ") + "}"
		}
		acc := "%f"
		if x.c16 {
			acc = "%r"
		}
		a, b, c := list("%r", 10, ra, 0), list("%r", 20, rb, ra), list(acc, 30, rc, ra+rb)
		body += fmt.Sprintf("mma.sync.aligned.%s %s, %s, %s, %s;\n", x.op, c, a, b, c)
		for i := range rc {
			body += fmt.Sprintf("st.global.b32 [%%rd4+%d], %s%d;\n", 128*i, acc, 30+i)
		}
		out, err := launchRoom(t, body, in, 32*rc)
		if err != nil {
			t.Errorf("%s: %v", x.op, err)
			continue
		}
		for l := range 32 {
			for i := range x.cn {
				row, col := x.c(l, i)
				s := set(l)
				want := float64(C[s][row][col])
				for k := range x.k {
					want += float64(A[s][row][k]) * float64(B[s][k][col])
				}
				var got float64
				tolerance := 1e-5
				if x.c16 {
					got, tolerance = float64(fromHalf(out[32*(i/2)+l]>>(16*(i%2)))), 1e-2
				} else {
					got = float64(f32(out[32*i+l]))
				}
				if math.Abs(got-want) > tolerance {
					t.Fatalf("%s: %d, %d is %g, want %g", x.op, row, col, got, want)
				}
			}
		}
	}
}

// ldmatrix, stmatrix and movmatrix, against the layout of fragments.
func TestMatrixCopies(t *testing.T) {
	in := make([]uint32, 512) // 32 rows of 8 f16: four matrices
	for i := range in {
		in[i] = uint32(2*i) | uint32(2*i+1)<<16
	}
	at := func(m, row, col int) uint32 { return uint32(m*64 + row*8 + col) }
	load := own + `
	shl.b32 %r13, %r1, 4; add.u32 %r13, %r13, %r9; mul.wide.u32 %rd5, %r1, 16; add.s64 %rd5, %rd5, %rd1;
	ld.global.v4.b32 {%r20, %r21, %r22, %r23}, [%rd5];
	st.shared.v4.b32 [%r13], {%r20, %r21, %r22, %r23};
	bar.warp.sync -1;
`
	store := `
	st.global.b32 [%rd4], %r30; st.global.b32 [%rd4+128], %r31; st.global.b32 [%rd4+256], %r32; st.global.b32 [%rd4+384], %r33;
`
	for _, trans := range []bool{false, true} {
		suffix := ""
		if trans {
			suffix = ".trans"
		}
		out, err := launchRoom(t, load+"ldmatrix.sync.aligned.m8n8.x4"+suffix+".shared.b16 {%r30, %r31, %r32, %r33}, [%r13];"+store, in, 128)
		if err != nil {
			t.Fatal(err)
		}
		for m := range 4 {
			for l := range 32 {
				r, c := group(l), inGroup(l)*2
				want := at(m, r, c) | at(m, r, c+1)<<16
				if trans {
					want = at(m, c, r) | at(m, c+1, r)<<16
				}
				if out[32*m+l] != want {
					t.Fatalf("ldmatrix%s: matrix %d lane %d has %#x, want %#x", suffix, m, l, out[32*m+l], want)
				}
			}
		}
		// Back again, elsewhere, and read row by row.
		out, err = launchRoom(t, load+`
	ldmatrix.sync.aligned.m8n8.x4`+suffix+`.shared.b16 {%r30, %r31, %r32, %r33}, [%r13];
	stmatrix.sync.aligned.m8n8.x4`+suffix+`.shared.b16 [%r13+2048], {%r30, %r31, %r32, %r33};
	bar.warp.sync -1;
	ld.shared.v4.b32 {%r30, %r31, %r32, %r33}, [%r13+2048];
	`+store, in, 128)
		if err != nil {
			t.Fatal(err)
		}
		for l := range 32 {
			for i := range 4 {
				if out[32*i+l] != in[4*l+i] {
					t.Fatalf("stmatrix%s: row %d word %d is %#x", suffix, l, i, out[32*i+l])
				}
			}
		}
	}
	out, err := launchRoom(t, load+"ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r30}, [%r13]; movmatrix.sync.aligned.m8n8.trans.b16 %r30, %r30; mov.u32 %r31, 0; mov.u32 %r32, 0; mov.u32 %r33, 0;"+store, in, 128)
	if err != nil {
		t.Fatal(err)
	}
	for l := range 32 {
		r, c := group(l), inGroup(l)*2
		if want := at(0, c, r) | at(0, c+1, r)<<16; out[l] != want {
			t.Fatalf("movmatrix: lane %d has %#x, want %#x", l, out[l], want)
		}
	}
	// Rows of other lanes need a synchronisation, and alignment.
	fault(t, "race", "", strings.Replace(load, "bar.warp.sync -1;", "", 1)+"xor.b32 %r13, %r13, 16; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r30, %r31, %r32, %r33}, [%r13];", 1, 32)
	fault(t, "misaligned", "", load+"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r30, %r31, %r32, %r33}, [%r13+8];", 1, 32)
	fault(t, "divergent", "ldmatrix", load+"setp.lt.u32 %p1, %r1, 8; @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r30}, [%r13];", 1, 32)
	fault(t, "divergent", "mma", "setp.lt.u32 %p1, %r1, 8; mov.u32 %r2, 0; mov.u32 %r3, 0; mov.b32 %f1, %r1; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1; @%p1 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2}, {%r3}, {%f1,%f2,%f3,%f4};", 1, 32)
}

func TestCopies(t *testing.T) {
	// 16 bytes a lane, of which 4*(lane%5) exist.
	body := own + `
	shl.b32 %r13, %r1, 4; add.u32 %r13, %r13, %r9; mul.wide.u32 %rd5, %r1, 16; add.s64 %rd5, %rd5, %rd1;
	rem.u32 %r14, %r1, 5; shl.b32 %r14, %r14, 2;
	cp.async.cg.shared.global [%r13], [%rd5], 16, %r14;
	cp.async.commit_group;
	cp.async.ca.shared.global.L2::128B [%r10+1024], [%rd3], 4;
	cp.async.commit_group;
	cp.async.wait_group 1;
	ld.shared.v4.b32 {%r20, %r21, %r22, %r23}, [%r13];
	mad.lo.u32 %r20, %r21, 2, %r20; mad.lo.u32 %r20, %r22, 3, %r20; mad.lo.u32 %r20, %r23, 4, %r20;
	cp.async.wait_all;
	ld.shared.b32 %r21, [%r10+1024];
	mad.lo.u32 %r20, %r21, 1000, %r20;
	st.global.b32 [%rd4], %r20;
`
	in := make([]uint32, 128)
	for i := range in {
		in[i] = uint32(i + 1)
	}
	out, err := launch(t, 1, body, 1, 32, in)
	if err != nil {
		t.Fatal(err)
	}
	for l := range 32 {
		want := in[l] * 1000
		for i := range l % 5 {
			want += in[4*l+i] * uint32(i+1)
		}
		if out[l] != want {
			t.Fatal(l, out[l], want)
		}
	}
	fault(t, "missing wait", "ld.shared", strings.Replace(body, "cp.async.wait_group 1;", "", 1), 1, 32)
	fault(t, "missing wait", "ld.shared", strings.Replace(body, "cp.async.wait_group 1;", "cp.async.wait_group 2;", 1), 1, 32)
	fault(t, "missing wait", "ld.shared", strings.Replace(body, "cp.async.wait_all;", "", 1), 1, 32)
	fault(t, "missing wait", "returns", own+"cp.async.ca.shared.global [%r10], [%rd3], 4;", 1, 32)
	// Waiting is each thread's own business: others need a barrier as well.
	other := own + `
	cp.async.ca.shared.global [%r10], [%rd3], 4;
	cp.async.commit_group;
	cp.async.wait_group 0;
	BARRIER
	ld.shared.b32 %r20, [%r12];
`
	fault(t, "", "", strings.Replace(other, "BARRIER", "", 1), 1, 64)
	clean(t, strings.Replace(other, "BARRIER", "bar.sync 0;", 1), 1, 64)
	// By mbarrier.
	bar := own + `
	add.u32 %r15, %r9, 8192;
	setp.eq.u32 %p1, %r1, 0;
	@%p1 mbarrier.init.shared.b64 [%r15], 64;
	bar.sync 0;
	cp.async.ca.shared.global [%r10], [%rd3], 4;
	cp.async.mbarrier.arrive.noinc.shared.b64 [%r15];
W:	mbarrier.try_wait.parity.shared.b64 %p2, [%r15], 0;
	@!%p2 bra W;
	ld.shared.b32 %r20, [%r12];
`
	clean(t, bar, 1, 64)
	fault(t, "", "", strings.Replace(bar, "@!%p2 bra W;", "", 1), 1, 64)
}
