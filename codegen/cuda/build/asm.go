package build

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/llir/llvm/ir/enum"
)

// Asm is the PTX text of a gpu.* function and its constraints as LLVM writes
// them: $0, $1, ... are results, then operands; r, l, f, h are registers of 32
// bits, 64 bits, f32 and 16 bits; a number ties an operand to that result;
// ~{memory} says that memory is touched. ${:uid} is unique to each use.
func Asm(name string) (text, constraints string, ok bool) {
	if a, ok := asm[name]; ok {
		return a[0], a[1], true
	}
	// gpu.wgmma.wait.N.REGS ties the accumulators, so that nothing moves over it.
	if m := waitName.FindStringSubmatch(name); m != nil {
		n, _ := strconv.Atoi(m[2])
		var tied []string
		for i := range n {
			tied = append(tied, strconv.Itoa(i))
		}
		return "wgmma.wait_group.sync.aligned " + m[1] + ";", join(append(repeat("=f", n), append(tied, "~{memory}")...)), true
	}
	// gpu.wgmma.m64nNk16.TYPE.ss|rs.tAB (accumulators..., a, b's descriptor, keep)
	if m := wgmmaName.FindStringSubmatch(name); m != nil {
		n, _ := strconv.Atoi(m[1])
		regs := n / 2
		var d, tied []string
		for i := range regs {
			d = append(d, fmt.Sprintf("$%d", i))
			tied = append(tied, strconv.Itoa(i))
		}
		at := 2 * regs // results, then the accumulators again
		a, in, imm := fmt.Sprintf("$%d", at), []string{"l"}, m[4]+", "+m[5]
		if m[3] == "rs" {
			a, in, imm = fmt.Sprintf("{$%d, $%d, $%d, $%d}", at, at+1, at+2, at+3), repeat("r", 4), m[5]
		}
		at += len(in)
		text := fmt.Sprintf("{ .reg .pred keep; setp.ne.b32 keep, $%d, 0; wgmma.mma_async.sync.aligned.m64n%dk16.f32.%s.%s {%s}, %s, $%d, keep, 1, 1, %s; }",
			at+1, n, m[2], m[2], strings.Join(d, ", "), a, at, imm)
		c := append(append(repeat("=f", regs), tied...), in...)
		return text, join(append(c, "l", "r", "~{memory}")), true
	}
	return "", "", false
}

var (
	waitName  = regexp.MustCompile(`^gpu\.wgmma\.wait\.(\d+)\.(\d+)$`)
	wgmmaName = regexp.MustCompile(`^gpu\.wgmma\.m64n(\d+)k16\.(f16|bf16)\.(ss|rs)\.t(\d)(\d)$`)
)

func join(s []string) string { return strings.Join(s, ",") }

func repeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

const memory = ",~{memory}"

// mma884 is the text of mma.m8n8k4 before and after the layouts, and its constraints.
var mma884 = [3]string{
	"mma.sync.aligned.m8n8k4.",
	".f32.f16.f16.f32 {$0, $1, $2, $3, $4, $5, $6, $7}, {$8, $9}, {$10, $11}, {$12, $13, $14, $15, $16, $17, $18, $19};",
	join(slices.Concat(repeat("=f", 8), repeat("r", 4), repeat("f", 8))),
}

var asm = map[string][2]string{
	"gpu.bar.sync":   {"bar.sync $0, $1;", "r,r" + memory},
	"gpu.bar.arrive": {"bar.arrive $0, $1;", "r,r" + memory},
	"gpu.syncwarp":   {"bar.warp.sync $0;", "r" + memory},

	"gpu.ballot": {"{ .reg .pred set; setp.ne.u32 set, $1, 0; vote.sync.ballot.b32 $0, set, 0xffffffff; }", "=r,r"}, // a bit for each lane
	"gpu.popc":   {"popc.b32 $0, $1;", "=r,r"},

	"gpu.vote.any": {"{ .reg .pred any; setp.ne.b32 any, $1, 0; vote.sync.any.pred any, any, -1; selp.b32 $0, 1, 0, any; }", "=r,r"},

	"gpu.cvt.f16x2":  {"cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f"},                                              // (high, low)
	"gpu.cvt.bf16x2": {"cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f"},                                             // (high, low)
	"gpu.mul.wide":   {"{ .reg .b64 both; mul.wide.u32 both, $2, $3; mov.b64 {$0, $1}, both; }", "=r,=r,r,r"}, // (low, high)
	"gpu.div.full":   {"div.full.f32 $0, $1, $2;", "=f,f,f"},
	"gpu.tanh":       {"tanh.approx.f32 $0, $1;", "=f,f"},

	"gpu.mma.bf16": {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};", "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"},
	"gpu.mma.f16":  {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};", "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"},

	// Of quad pairs, with the layouts of a and b.
	"gpu.mma884.row.row": {mma884[0] + "row.row" + mma884[1], mma884[2]},
	"gpu.mma884.row.col": {mma884[0] + "row.col" + mma884[1], mma884[2]},
	"gpu.mma884.col.row": {mma884[0] + "col.row" + mma884[1], mma884[2]},
	"gpu.mma884.col.col": {mma884[0] + "col.col" + mma884[1], mma884[2]},

	"gpu.ldmatrix.x4":       {"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,r" + memory},
	"gpu.ldmatrix.x4.trans": {"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0, $1, $2, $3}, [$4];", "=r,=r,=r,=r,r" + memory},
	"gpu.ldmatrix.x2":       {"ldmatrix.sync.aligned.m8n8.x2.shared.b16 {$0, $1}, [$2];", "=r,=r,r" + memory},
	"gpu.ldmatrix.x2.trans": {"ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {$0, $1}, [$2];", "=r,=r,r" + memory},
	"gpu.stmatrix.x4":       {"stmatrix.sync.aligned.m8n8.x4.shared.b16 [$0], {$1, $2, $3, $4};", "r,r,r,r,r" + memory},

	// (shared address, global address, bytes to copy; the rest of 16 is zero)
	"gpu.cp.async.16":     {"cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r" + memory},
	"gpu.cp.async.4":      {"cp.async.ca.shared.global [$0], [$1], 4, $2;", "r,l,r" + memory},
	"gpu.cp.async.commit": {"cp.async.commit_group;", "~{memory}"},
	"gpu.cp.async.wait.0": {"cp.async.wait_group 0;", "~{memory}"},
	"gpu.cp.async.wait.1": {"cp.async.wait_group 1;", "~{memory}"},
	"gpu.cp.async.wait.2": {"cp.async.wait_group 2;", "~{memory}"},
	"gpu.cp.async.wait.3": {"cp.async.wait_group 3;", "~{memory}"},

	"gpu.mbarrier.init":   {"mbarrier.init.shared::cta.b64 [$0], $1;", "r,r" + memory},
	"gpu.mbarrier.fence":  {"fence.mbarrier_init.release.cluster;", "~{memory}"},
	"gpu.mbarrier.arrive": {"mbarrier.arrive.release.cta.shared::cta.b64 _, [$0];", "r" + memory},
	"gpu.mbarrier.expect": {"mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [$0], $1;", "r,r" + memory},
	"gpu.mbarrier.wait":   {"{ .reg .pred done; wait${:uid}: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; @!done bra wait${:uid}; }", "r,r" + memory},
	// (address, block of the cluster). With .release.cluster the assembler puts
	// MEMBAR.ALL.GPU before it, hundreds of clocks in a main loop; as written it
	// orders what asynchronous operations need, and nothing of ordinary stores.
	"gpu.mbarrier.arrive.at":  {"{ .reg .b32 there; mapa.shared::cluster.u32 there, $0, $1; mbarrier.arrive.shared::cluster.b64 _, [there]; }", "r,r" + memory},
	"gpu.tma.load.2d":         {"cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];", "r,l,r,r,r" + memory},
	"gpu.tma.load.3d":         {"cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3, $4}], [$5];", "r,l,r,r,r,r" + memory},
	"gpu.tma.load.4d":         {"cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3, $4, $5}], [$6];", "r,l,r,r,r,r,r" + memory},
	"gpu.tma.load.2d.cluster": {"cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [$0], [$1, {$2, $3}], [$4], $5;", "r,l,r,r,r,h" + memory},
	"gpu.tma.load.3d.cluster": {"cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [$0], [$1, {$2, $3, $4}], [$5], $6;", "r,l,r,r,r,r,h" + memory},
	"gpu.tma.load.4d.cluster": {"cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [$0], [$1, {$2, $3, $4, $5}], [$6], $7;", "r,l,r,r,r,r,r,h" + memory},
	"gpu.tma.store.2d":        {"cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [$0, {$1, $2}], [$3];", "l,r,r,r" + memory},
	"gpu.tma.store.4d":        {"cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [$0, {$1, $2, $3, $4}], [$5];", "l,r,r,r,r,r" + memory},
	"gpu.prefetch":            {"prefetch.global.L2 [$0];", "l" + memory},
	"gpu.tma.prefetch":        {"prefetch.tensormap [$0];", "l"},
	"gpu.bulk.commit":         {"cp.async.bulk.commit_group;", "~{memory}"},
	"gpu.bulk.wait_read.0":    {"cp.async.bulk.wait_group.read 0;", "~{memory}"},
	"gpu.bulk.wait.0":         {"cp.async.bulk.wait_group 0;", "~{memory}"},
	"gpu.fence.async":         {"fence.proxy.async.shared::cta;", "~{memory}"},

	"gpu.wgmma.fence":  {"wgmma.fence.sync.aligned;", "~{memory}"},
	"gpu.wgmma.commit": {"wgmma.commit_group.sync.aligned;", "~{memory}"},

	"gpu.cluster.rank":    {"mov.u32 $0, %cluster_ctarank;", "=r"},
	"gpu.cluster.arrive":  {"barrier.cluster.arrive.release.aligned;", "~{memory}"},
	"gpu.cluster.wait":    {"barrier.cluster.wait.acquire.aligned;", "~{memory}"},
	"gpu.cluster.load":    {"{ .reg .b32 there; mapa.shared::cluster.u32 there, $1, $2; ld.shared::cluster.f32 $0, [there]; }", "=f,r,r" + memory}, // (address, block of the cluster)
	"gpu.cluster.load.v4": {"{ .reg .b32 there; mapa.shared::cluster.u32 there, $4, $5; ld.shared::cluster.v4.f32 {$0, $1, $2, $3}, [there]; }", "=f,=f,=f,=f,r,r" + memory},

	"gpu.setmaxnreg.dec": {"setmaxnreg.dec.sync.aligned.u32 $0;", "n"},
	"gpu.setmaxnreg.inc": {"setmaxnreg.inc.sync.aligned.u32 $0;", "n"},
}

// ShuffleXor is v of the lane whose number differs in the bits of mask.
func (f *Func) ShuffleXor(v Value, mask int) Value {
	if v.Type().Equal(F32) {
		return f.Call("llvm.nvvm.shfl.sync.bfly.f32", F32, Int(-1), v, Int(mask), Int(31))
	}
	return f.Call("llvm.nvvm.shfl.sync.bfly.i32", I32, Int(-1), v, Int(mask), Int(31))
}

// ShuffleFrom is v of lane number lane.
func (f *Func) ShuffleFrom(v, lane Value) Value {
	if v.Type().Equal(F32) {
		return f.Call("llvm.nvvm.shfl.sync.idx.f32", F32, Int(-1), v, lane, Int(31))
	}
	return f.Call("llvm.nvvm.shfl.sync.idx.i32", I32, Int(-1), v, lane, Int(31))
}

// Any is whether c holds in any lane of the warp.
func (f *Func) Any(c Value) Value {
	return f.Compare(enum.IPredNE, f.Call("gpu.vote.any", I32, f.Select(c, Int(1), Int(0))), Int(0))
}

// Mma adds the 16x8 product of a (16x16, row by row) and b (16x8, column by
// column) to c, in the fragment layout of PTX's mma.m16n8k16; kind is f16 or
// bf16, two of which are packed in an i32.
func (f *Func) Mma(kind string, a [4]Value, b [2]Value, c [4]Value) [4]Value {
	args := append(append(append([]Value{}, a[:]...), b[:]...), c[:]...)
	r := f.Call("gpu.mma."+kind, Struct(4, F32), args...)
	var out [4]Value
	for i := range out {
		out[i] = f.Part(r, i)
	}
	return out
}

// Mma884 has each quad pair of the warp (lanes 4q to 4q+3 and 16 more) add its own
// 8x8 product of a (8x4) and b (4x8), of f16, to c, in the fragment layouts of
// PTX's mma.m8n8k4. A lane's elements of a row by row are a row's four, of a
// column by column those of one column and four rows, and so with b.
func (f *Func) Mma884(aByRow, bByRow bool, a, b [2]Value, c [8]Value) [8]Value {
	layout := map[bool]string{true: "row", false: "col"}
	args := slices.Concat(a[:], b[:], c[:])
	r := f.Call("gpu.mma884."+layout[aByRow]+"."+layout[bByRow], Struct(8, F32), args...)
	var out [8]Value
	for i := range out {
		out[i] = f.Part(r, i)
	}
	return out
}

// LoadMatrix is ldmatrix.x4: four 8x8 matrices of 16-bit elements, whose rows
// start at the shared addresses (i32) of the 32 lanes.
func (f *Func) LoadMatrix(address Value, transposed bool) [4]Value {
	name := "gpu.ldmatrix.x4"
	if transposed {
		name += ".trans"
	}
	r := f.Call(name, Struct(4, I32), address)
	var out [4]Value
	for i := range out {
		out[i] = f.Part(r, i)
	}
	return out
}

// Pack rounds two f32 to kind (f16 or bf16) and packs them, low first.
func (f *Func) Pack(kind string, low, high Value) Value {
	return f.Call("gpu.cvt."+kind+"x2", I32, high, low)
}

// GlobalAddress is a pointer to device memory as an i64.
func (f *Func) GlobalAddress(p Value) Value { return f.at().NewPtrToInt(p, I64) }
