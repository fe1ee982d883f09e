package ptx

import (
	"slices"
	"strconv"
	"strings"

	"github.com/llir/llvm/ir"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// intrinsics are LLVM's, as templates, with the registers that they give and
// take.
var intrinsics = map[string]struct {
	text string
	out  string
	in   string
	pure bool
}{
	"llvm.fma.f32":                 {"fma.rn.f32 $0, $1, $2, $3;", "f", "fff", true},
	"llvm.fabs.f32":                {"abs.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.sqrt.approx.f":      {"sqrt.approx.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.sqrt.approx.ftz.f":  {"sqrt.approx.ftz.f32 $0, $1;", "f", "f", true},
	"llvm.floor.f32":               {"cvt.rmi.f32.f32 $0, $1;", "f", "f", true},
	"llvm.rint.f32":                {"cvt.rni.f32.f32 $0, $1;", "f", "f", true},
	"llvm.maxnum.f32":              {"max.f32 $0, $1, $2;", "f", "ff", true},
	"llvm.minnum.f32":              {"min.f32 $0, $1, $2;", "f", "ff", true},
	"llvm.nvvm.ex2.approx.f":       {"ex2.approx.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.ex2.approx.ftz.f":   {"ex2.approx.ftz.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.lg2.approx.f":       {"lg2.approx.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.lg2.approx.ftz.f":   {"lg2.approx.ftz.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.rcp.approx.ftz.f":   {"rcp.approx.ftz.f32 $0, $1;", "f", "f", true},
	"llvm.nvvm.add.rz.f":           {"add.rz.f32 $0, $1, $2;", "f", "ff", true},
	"llvm.umin.i32":                {"min.u32 $0, $1, $2;", "r", "rr", true},
	"llvm.nvvm.mulhi.ui":           {"mul.hi.u32 $0, $1, $2;", "r", "rr", true},
	"llvm.nvvm.barrier0":           {"bar.sync 0;", "", "", false},
	"llvm.nvvm.shfl.sync.bfly.f32": {"shfl.sync.bfly.b32 $0, $2, $3, $4, $1;", "f", "rfrr", false},
	"llvm.nvvm.shfl.sync.bfly.i32": {"shfl.sync.bfly.b32 $0, $2, $3, $4, $1;", "r", "rrrr", false},
	"llvm.nvvm.shfl.sync.idx.f32":  {"shfl.sync.idx.b32 $0, $2, $3, $4, $1;", "f", "rfrr", false},
	"llvm.nvvm.shfl.sync.idx.i32":  {"shfl.sync.idx.b32 $0, $2, $3, $4, $1;", "r", "rrrr", false},
}

// call is a call of an intrinsic or of a function of build's asm.go.
func (s *selection) call(i *ir.InstCall) {
	callee, ok := i.Callee.(*ir.Func)
	if !ok {
		s.fail("call of %T", i.Callee)
		return
	}
	name := callee.Name()
	if sreg, ok := strings.CutPrefix(name, "llvm.nvvm.read.ptx.sreg."); ok {
		s.set(i, s.pure(word, "mov.u32 $0, %"+sreg+";"))
		return
	}
	var in []operand
	var cs []class
	for _, a := range i.Args {
		c := s.shape(a.Type())
		in, cs = append(in, s.operands(a)...), append(cs, c...)
	}
	result := s.shape(i.Type())
	if x, ok := intrinsics[name]; ok {
		if letters(cs) != x.in || letters(result) != x.out {
			s.fail("%s: gives %s and takes %s, not %s and %s", name, x.out, x.in, letters(result), letters(cs))
			return
		}
		// One operand must not be a number; of shuffles, that which is shuffled.
		if len(in) > 0 {
			k := 0
			if !x.pure {
				k = 1
			}
			in[k] = s.inReg(cs[k], in[k])
		}
		d := s.regs(result)
		s.emit(x.text, d, in...).pure = x.pure
		s.set(i, operands(d)...)
		return
	}
	if op, ok := strings.CutSuffix(strings.TrimPrefix(name, "llvm."), "imum.f32"); ok && (op == "min" || op == "max") {
		s.set(i, s.orNaN(op, s.inReg(float, in[0]), in[1]))
		return
	}
	text, constraints, ok := build.Asm(name)
	if !ok {
		s.fail("call of %s: no such operation", name)
		return
	}
	s.require(name)
	if name == "gpu.cvt.f16x2" && s.arch.sm < 80 {
		high := s.pure(short, "cvt.rn.f16.f32 $0, $1;", s.inReg(float, in[0]))
		low := s.pure(short, "cvt.rn.f16.f32 $0, $1;", s.inReg(float, in[1]))
		s.set(i, s.pack(low, high))
		return
	}
	s.asm(i, name, text, strings.Split(constraints, ","), in, cs, result)
}

// orNaN is the smaller or larger of two numbers, op being min or max, NaN where one is NaN.
func (s *selection) orNaN(op string, a, b operand) operand {
	if s.arch.sm >= 80 {
		s.needs = max(s.needs, 70)
		return s.pure(float, op+".NaN.f32 $0, $1, $2;", a, b)
	}
	nan := s.pure(pred, "setp.nan.f32 $0, $1, $2;", a, b)
	return s.pure(float, "selp.f32 $0, 0f7FFFFFFF, $1, $2;", s.pure(float, op+".f32 $0, $1, $2;", a, b), nan)
}

// registers are the classes of the constraints.
var registers = map[string]class{"r": word, "l": long, "f": float, "h": short}

// letters writes classes as constraints do.
func letters(cs []class) string {
	var b strings.Builder
	for _, c := range cs {
		b.WriteByte("phrlf"[c])
	}
	return b.String()
}

// asm is a call of a function of asm.go.
func (s *selection) asm(i *ir.InstCall, name, text string, constraints []string, in []operand, cs, result []class) {
	k, tied := 0, 0
	var ins []string
	for _, c := range constraints {
		switch {
		case strings.HasPrefix(c, "~"):
		case strings.HasPrefix(c, "="):
			if k >= len(result) || registers[c[1:]] != result[k] {
				s.fail("%s: results are not as its constraints say", name)
				return
			}
			k++
		default:
			ins = append(ins, c)
		}
	}
	if k != len(result) || len(ins) != len(in) {
		s.fail("%s: takes %d operands and gives %d results, not %d and %d", name, len(ins), k, len(in), len(result))
		return
	}
	t := s.templates.get(text)
	for k, c := range ins {
		if n, err := strconv.Atoi(c); err == nil {
			if n != k || cs[k] != result[n] {
				s.fail("%s: operand %d is tied to result %d", name, k, n)
				return
			}
			tied++
			in[k] = s.accumulator(in[k], cs[k])
			continue
		}
		if c == "n" {
			if in[k].isReg() {
				s.fail("%s: operand %d is no constant", name, k)
				return
			}
			continue
		}
		if registers[c] != cs[k] {
			s.fail("%s: operand %d is %s", name, k, i.Args[k].Type())
			return
		}
		if c != "r" || t.needsRegister(len(result)+k) {
			in[k] = s.inReg(cs[k], in[k])
		}
	}
	s.numbers(name, in)
	d := s.regs(result)
	x := s.emit(text, d, in...)
	x.tied, x.fence = tied, name == "gpu.wgmma.fence"
	x.pure = isPure(name)
	for _, r := range d[:tied] {
		s.inFlight[r] = true
	}
	s.set(i, operands(d)...)
}

// pureOperations are those that any thread may do at any time, by prefix. What
// lanes do together is not among them.
var pureOperations = []string{"gpu.cvt.", "gpu.div.full", "gpu.mul.wide", "gpu.tanh", "gpu.popc", "gpu.cluster.rank"}

func isPure(name string) bool {
	return slices.ContainsFunc(pureOperations, func(p string) bool { return strings.HasPrefix(name, p) })
}

// limits are the numbers that ptxas takes as an operation's operand, if it is
// a number at all.
var limits = []struct {
	prefix             string
	operand            int
	least, most, steps int
}{
	{"gpu.setmaxnreg.", 0, 24, 256, 8},
	{"gpu.bar.", 0, 0, 15, 1},
	{"gpu.bar.", 1, 32, 1024, 32},
	{"gpu.cp.async.16", 2, 0, 16, 1},
	{"gpu.cp.async.4", 2, 0, 4, 1},
	{"gpu.mbarrier.wait", 1, 0, 1, 1},
}

// numbers checks the numbers among an operation's operands.
func (s *selection) numbers(name string, in []operand) {
	for _, l := range limits {
		if !strings.HasPrefix(name, l.prefix) || in[l.operand].isReg() {
			continue
		}
		if n, err := strconv.Atoi(in[l.operand].s); err != nil || n < l.least || n > l.most || n%l.steps != 0 {
			s.fail("%s: operand %d is %s, not from %d to %d in steps of %d", name, l.operand, in[l.operand].s, l.least, l.most, l.steps)
		}
	}
}

// accumulator is the operand of a wgmma that it overwrites. What a wgmma or a
// loop gives stays in its registers. Anything else is copied before the fence
// that comes before the wgmma; the copy goes where the value is not used again.
func (s *selection) accumulator(o operand, c class) operand {
	if s.inFlight[o.r] {
		return o
	}
	d := s.f.reg(c)
	cp := &inst{t: s.templates.get("mov." + classes[c].move + " $0, $1;"), dst: []reg{d}, src: []operand{o}, copy: true, line: s.line}
	insts, at := s.cur.insts, len(s.cur.insts)
	for k := at - 1; k >= 0 && !defines(insts[k], o.r); k-- {
		if insts[k].fence {
			at = k
			break
		}
	}
	s.cur.insts = append(insts[:at], append([]*inst{cp}, insts[at:]...)...)
	return operand{r: d}
}

func defines(in *inst, r reg) bool {
	for _, d := range in.dst {
		if d == r && r != 0 {
			return true
		}
	}
	return false
}
