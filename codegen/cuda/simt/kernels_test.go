package simt_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/runtime/format16"
)

// text is a kernel of testdata, printed by the study that this package grew from; in
// fa3, wgmma.fence had to go behind the moves that set accumulators.
func text(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".ptx"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// halves fills a new buffer with n random f16 and gives their values.
func halves(mach *simt.Machine, name string, n int, r *rand.Rand) (*simt.Buffer, []float64) {
	b := mach.Alloc(name, 2*n)
	v := make([]float64, n)
	for i := range v {
		h := format16.Half.Encode(float32(r.NormFloat64()))
		binary.LittleEndian.PutUint16(b.Bytes()[2*i:], h)
		v[i] = float64(format16.Half.Decode(h))
	}
	b.Init()
	return b, v
}

func ints(mach *simt.Machine, name string, v ...int) *simt.Buffer {
	b := mach.Alloc(name, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b.Bytes()[4*i:], uint32(x))
	}
	b.Init()
	return b
}

// checkProduct compares C with a product of f16 matrices, b's rows being k.
func checkProduct(c *simt.Buffer, a, b []float64, M, N, K int, at func(k, n int) int) error {
	worst := 0.0
	for i := range M {
		for j := range N {
			s := 0.0
			for q := range K {
				s += a[i*K+q] * b[at(q, j)]
			}
			worst = math.Max(worst, math.Abs(s-float64(f32(word(c, i*N+j)))))
		}
	}
	if !(worst < 1e-3) {
		return fmt.Errorf("off by %g", worst)
	}
	return nil
}

// runGemm runs the mma.sync kernel: tiles of 64x64x32 in three stages.
func runGemm(ptx string, seed int64, M, N, K int, check bool) (simt.Stats, error) {
	m, err := simt.Parse(ptx)
	if err != nil {
		return simt.Stats{}, err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: check, Count: true, Steps: 1 << 24})
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	A, a := halves(mach, "A", M*K, r)
	B, b := halves(mach, "B", K*N, r)
	C := mach.Alloc("C", 4*M*N)
	err = mach.Launch(m, simt.Launch{Entry: "gemm64", Grid: [3]int{N / 64, M / 64, 1}, Block: [3]int{128, 1, 1}, Shared: 24576,
		Params: []any{A.Addr(), B.Addr(), C.Addr(), int32(N), int32(K)}})
	if err == nil {
		err = checkProduct(C, a, b, M, N, K, func(k, n int) int { return k*N + n })
	}
	return mach.Stats(), err
}

func TestGemm(t *testing.T) {
	ptx := text(t, "gemm64")
	for seed := range int64(3) {
		st, err := runGemm(ptx, seed, 128, 64, 256, true)
		if err != nil {
			t.Fatal(err)
		}
		if st.MMA != 2*4*8*2*8 || st.Wavefronts != st.WavefrontsIdeal || st.Sectors != st.SectorsIdeal {
			t.Errorf("%+v", st)
		}
	}
}

// attention is softmax(q k^T / 8) v of one head of 64.
func attention(q, k, v []float64, S int, causal bool) []float64 {
	out := make([]float64, S*64)
	for i := range S {
		sum := 0.0
		o := out[i*64 : i*64+64]
		for j := 0; j < S && (!causal || j <= i); j++ {
			s := 0.0
			for d := range 64 {
				s += q[i*64+d] * k[j*64+d]
			}
			e := math.Exp(s / 8)
			sum += e
			for d := range o {
				o[d] += e * v[j*64+d]
			}
		}
		for d := range o {
			o[d] /= sum
		}
	}
	return out
}

func checkHalves(b *simt.Buffer, want []float64, tolerance float64) error {
	worst := 0.0
	for i, w := range want {
		g := float64(format16.Half.Decode(binary.LittleEndian.Uint16(b.Bytes()[2*i:])))
		worst = math.Max(worst, math.Abs(g-w))
	}
	if !(worst < tolerance) {
		return fmt.Errorf("off by %g", worst)
	}
	return nil
}

func runAttn(ptx string, seed int64) error {
	const S, heads, nb = 128, 2, 2
	m, err := simt.Parse(ptx)
	if err != nil {
		return err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Steps: 1 << 24})
	r := rand.New(rand.NewPCG(uint64(seed), 2))
	Q, q := halves(mach, "Q", heads*S*64, r)
	K, k := halves(mach, "K", heads*S*64, r)
	V, v := halves(mach, "V", heads*S*64, r)
	O, L := mach.Alloc("O", 2*heads*S*64), mach.Alloc("L", 4*heads*S)
	idx, cnt := ints(mach, "idx", 0, 0, 0, 1), ints(mach, "cnt", 1, 2)
	err = mach.Launch(m, simt.Launch{Entry: "attn_causal", Grid: [3]int{nb, heads, 1}, Block: [3]int{128, 1, 1}, Shared: 40960,
		Params: []any{Q.Addr(), K.Addr(), V.Addr(), O.Addr(), L.Addr(), idx.Addr(), cnt.Addr(), int32(S), int32(nb)}})
	if err != nil {
		return err
	}
	var want []float64
	for h := range heads {
		o := h * S * 64
		want = append(want, attention(q[o:o+S*64], k[o:o+S*64], v[o:o+S*64], S, true)...)
	}
	return checkHalves(O, want, 4e-3)
}

func TestAttention(t *testing.T) {
	ptx := text(t, "attn_causal")
	for seed := range int64(2) {
		if err := runAttn(ptx, seed); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkGemm(b *testing.B) {
	ptx := text(b, "gemm64")
	n := int64(0)
	for b.Loop() {
		st, err := runGemm(ptx, 1, 256, 256, 256, true)
		if err != nil {
			b.Fatal(err)
		}
		n += st.Instructions
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Minst/s")
}

func tensor(t *simt.TensorMap) [128]byte {
	b, err := simt.EncodeTensorMap(*t)
	if err != nil {
		panic(err)
	}
	return b
}

func matrixMap(b *simt.Buffer, rows, cols, boxRows int) [128]byte {
	return tensor(&simt.TensorMap{Addr: b.Addr(), DType: simt.F16, Dims: []uint64{uint64(cols), uint64(rows)},
		Strides: []uint64{uint64(2 * cols)}, Box: []uint32{64, uint32(boxRows)}, Swizzle: 128})
}

// runHopper runs a kernel of TMA and wgmma: tiles of 128 x bn x 64 in four stages,
// by a warpgroup that copies and two that multiply.
func runHopper(ptx, name string, seed int64, bn int, transposed bool, M, N, K int) (simt.Stats, error) {
	m, err := simt.Parse(ptx)
	if err != nil {
		return simt.Stats{}, err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Count: true, Steps: 1 << 22})
	r := rand.New(rand.NewPCG(uint64(seed), 3))
	A, a := halves(mach, "A", M*K, r)
	B, b := halves(mach, "B", K*N, r)
	C := mach.Alloc("C", 4*M*N)
	mb := matrixMap(B, N, K, bn)
	at := func(k, n int) int { return n*K + k }
	if transposed {
		mb = matrixMap(B, K, N, 64)
		at = func(k, n int) int { return k*N + n }
	}
	err = mach.Launch(m, simt.Launch{Entry: name, Grid: [3]int{N / bn, M / 128, 1}, Block: [3]int{384, 1, 1}, Shared: 4*(128+bn)*128 + 64,
		Params: []any{matrixMap(A, M, K, 128), mb, C.Addr(), int32(N), int32(K)}})
	if err == nil {
		err = checkProduct(C, a, b, M, N, K, at)
	}
	return mach.Stats(), err
}

func TestHopperGemm(t *testing.T) {
	for seed := range int64(2) {
		st, err := runHopper(text(t, "hopper128"), "hopper128", seed, 128, false, 128, 128, 512)
		if err != nil {
			t.Fatal(err)
		}
		if st.WGMMA != 2*4*8*4 {
			t.Errorf("%+v", st)
		}
	}
	if _, err := runHopper(text(t, "hopper256t"), "hopper256t", 3, 256, true, 128, 256, 128); err != nil {
		t.Fatal(err)
	}
}

func runFA3(ptx string, seed int64, S int) error {
	m, err := simt.Parse(ptx)
	if err != nil {
		return err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Steps: 1 << 22})
	r := rand.New(rand.NewPCG(uint64(seed), 4))
	Q, q := halves(mach, "Q", S*64, r)
	K, k := halves(mach, "K", S*64, r)
	V, v := halves(mach, "V", S*64, r)
	nb := S / 128
	O, L := mach.Alloc("O", 2*S*64), mach.Alloc("L", 4*S)
	idx, cnt, part := make([]int, nb*nb), make([]int, nb), make([]int, nb)
	for i := range nb {
		part[i], cnt[i] = 1, i+1 // the diagonal block first, with the mask
		idx[i*nb] = i
		for j := range i {
			idx[i*nb+1+j] = j
		}
	}
	err = mach.Launch(m, simt.Launch{Entry: "fa3", Grid: [3]int{nb, 1, 1}, Block: [3]int{384, 1, 1}, Shared: 16384*5 + 8*9,
		Params: []any{matrixMap(Q, S, 64, 128), matrixMap(K, S, 64, 128), matrixMap(V, S, 64, 128), O.Addr(), L.Addr(),
			ints(mach, "idx", idx...).Addr(), ints(mach, "cnt", cnt...).Addr(), ints(mach, "part", part...).Addr(), int32(S), int32(nb)}})
	if err != nil {
		return err
	}
	return checkHalves(O, attention(q, k, v, S, true), 4e-3)
}

func TestHopperAttention(t *testing.T) {
	if err := runFA3(text(t, "fa3"), 1, 512); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkHopperAttention(b *testing.B) {
	ptx := text(b, "fa3")
	for b.Loop() {
		if err := runFA3(ptx, 1, 512); err != nil {
			b.Fatal(err)
		}
	}
}
