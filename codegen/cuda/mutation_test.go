package cuda_test

import (
	"bytes"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

var long = flag.Bool("long", false, "run all mutants of kernels and assemble all kernels of systems, not a sample of them")

// subject is a kernel of which mutants are made.
type subject struct {
	name    string
	k       *kern.Kernel
	target  *cuda.Target
	data    [][]byte
	entries []cuda.Entry
	text    string
	want    [][]byte // what it leaves in its buffers
	steps   int64    // that a mutant may take
}

func newSubject(t *testing.T, name string, k *kern.Kernel, tg *cuda.Target, contents [][]float64) *subject {
	t.Helper()
	s := &subject{name: name, k: k, target: tg, steps: 1 << 40}
	for i, b := range k.Bufs {
		d := make([]byte, len(contents[i])*b.DType.Size())
		if err := emu.Encode(b.DType, d, contents[i]); err != nil {
			t.Fatal(err)
		}
		s.data = append(s.data, d)
	}
	var err error
	if s.text, s.entries, err = cuda.Text(k, tg, true); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var steps int64
	if s.want, steps, err = s.run(s.text, 1); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Logf("%s: %d instructions %v", name, steps, time.Since(start))
	s.steps = 2*steps + 10000
	return s
}

// run runs a text in the kernel's place.
func (s *subject) run(text string, seed int64) (out [][]byte, steps int64, err error) {
	m, err := simt.Parse(text)
	if err != nil {
		return nil, 0, err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Steps: s.steps})
	var bufs []*simt.Buffer
	for i, b := range s.k.Bufs {
		d := mach.Alloc(b.Name, len(s.data[i]))
		if b.Mode != kern.Out {
			copy(d.Bytes(), s.data[i])
			d.Init()
		}
		bufs = append(bufs, d)
	}
	for _, en := range s.entries {
		l := simt.Launch{Entry: en.Name, Grid: en.Grid, Block: [3]int{en.Block, 1, 1}, Shared: en.Shared, Cluster: [3]int{max(1, en.Cluster), 1, 1}}
		for _, m := range en.Maps {
			d, err := simt.TypeOf(m.DType.String())
			if err != nil {
				return nil, 0, err
			}
			tm := simt.TensorMap{Addr: bufs[m.Arg].Addr() + uint64(m.Offset), DType: d, Swizzle: m.Swizzle}
			for i, d := range m.Dims {
				tm.Dims, tm.Box = append(tm.Dims, uint64(d)), append(tm.Box, uint32(m.Box[i]))
			}
			for _, s := range m.Strides {
				tm.Strides = append(tm.Strides, uint64(s))
			}
			code, err := simt.EncodeTensorMap(tm)
			if err != nil {
				return nil, 0, err
			}
			l.Params = append(l.Params, code)
		}
		for _, i := range en.Args {
			l.Params = append(l.Params, bufs[i].Addr())
		}
		if err := mach.Launch(m, l); err != nil {
			return nil, mach.Stats().Instructions, err
		}
	}
	for _, b := range bufs {
		out = append(out, b.Bytes())
	}
	return out, mach.Stats().Instructions, nil
}

// reported says how mutant text m is noticed, or "".
func (s *subject) reported(m string) string {
	for seed := range int64(3) {
		got, _, err := s.run(m, seed+1)
		if err != nil {
			if f, ok := err.(*simt.Fault); ok {
				return string(f.Kind)
			}
			return "error " + err.Error()
		}
		for i := range got {
			if !bytes.Equal(got[i], s.want[i]) {
				return "result"
			}
		}
	}
	return ""
}

// mutant is a change of one line, or of a line and the next.
type mutant struct {
	sync bool // lacks a synchronisation; else has another address or number
	line int  // from 0
	what string
	with []string // takes the place of as many lines
}

var (
	synchronises = regexp.MustCompile(`^\t(\{.*[ \t])?(bar\.(warp\.)?(sync|arrive)|fence|cp\.async\.(bulk\.)?(wait|commit)|mbarrier\.(arrive|try_wait)|wgmma\.(fence|commit|wait)|barrier\.cluster)\b.*$`)
	accesses     = regexp.MustCompile(`\b(ld|st)(?:\.\w+)?\.(?:shared|global)(?:::\w+)?(?:\.nc)?(?:\.v([24]))?\.[a-z]+(\d+) |\b(cp\.async)\.c[ag]\S* .*, (\d+), |\b(ldmatrix|stmatrix)\b|\b(mbarrier\.)(?:arrive|try_wait|init)|\bcp\.async\.bulk\.(tensor)\b`)
	address      = regexp.MustCompile(`\[([%$\w]+)([+-]\d+)?\]`)
	coordinates  = regexp.MustCompile(`\[(%rd\d+), \{([^}]*)\}\]`)
	product64    = regexp.MustCompile(`(wgmma\.mma_async.*\}), (%rd\d+), (%rd\d+), `)
	productRS    = regexp.MustCompile(`(wgmma\.mma_async.*\}, \{[^}]*\}), (%rd\d+), `)
	loopHead     = regexp.MustCompile(`^(\$L\d+):$`)
	compares     = regexp.MustCompile(`^\tsetp\.(lt|le)\.s32 (%p\d+), (%r\d+), ([-%r\d]+);`)
	leaves       = regexp.MustCompile(`^\t@!(%p\d+) bra (\$L\d+);`)
	adds         = regexp.MustCompile(`^\tadd\.s32 (%r\d+), (%r\d+), (-?\d+);`)
	moves        = regexp.MustCompile(`^\tmov\.b32 (%r\d+), (%r\d+);`)
)

func code(line string) string {
	c, _, _ := strings.Cut(line, " //")
	return strings.TrimRight(c, " ")
}

func mutants(text string) []mutant {
	lines := strings.Split(text, "\n")
	var out []mutant
	add := func(sync bool, i int, what string, with ...string) {
		out = append(out, mutant{sync, i, what, with})
	}
	for i, l := range lines {
		c := code(l)
		if synchronises.MatchString(c) {
			add(true, i, "without "+strings.TrimSpace(c), "")
			if strings.Contains(c, "barrier.cluster.arrive") && strings.Contains(lines[i+1], "barrier.cluster.wait") {
				add(true, i, "without barrier.cluster", "", "")
			}
		}
		if m := accesses.FindStringSubmatch(c); m != nil {
			size := 16
			switch {
			case m[1] != "":
				bits, _ := strconv.Atoi(m[3])
				many := 1
				if m[2] != "" {
					many, _ = strconv.Atoi(m[2])
				}
				size = bits / 8 * many
			case m[4] != "":
				size, _ = strconv.Atoi(m[5])
			case m[7] != "":
				size = 8
			case m[8] != "":
				size = 128
			}
			for k, at := range address.FindAllStringSubmatchIndex(c, -1) {
				by := size
				if m[8] != "" && k > 0 {
					by = 8 // its mbarrier
				}
				off := 0
				if at[4] >= 0 {
					off, _ = strconv.Atoi(c[at[4]:at[5]])
				}
				add(false, i, fmt.Sprintf("address %d of %s", k, strings.TrimSpace(c)), fmt.Sprintf("%s[%s+%d]%s", c[:at[0]], c[at[2]:at[3]], off+by, c[at[1]:]))
			}
			if m[8] != "" {
				at := coordinates.FindStringSubmatchIndex(c)
				list := strings.Split(c[at[4]:at[5]], ", ")
				for k, x := range list {
					list[k] = "off"
					add(false, i, fmt.Sprintf("coordinate %d of %s", k, strings.TrimSpace(c)),
						fmt.Sprintf("\t{ .reg .b32 off; add.s32 off, %s, 1; %s%s%s }", x, strings.TrimSpace(c[:at[4]]), strings.Join(list, ", "), c[at[5]:]))
					list[k] = x
				}
			}
		}
		descriptor := func(at []int, groups ...int) {
			for _, g := range groups {
				from, to := at[2*g], at[2*g+1]
				add(false, i, fmt.Sprintf("descriptor %s of %s", c[from:to], strings.TrimSpace(c)),
					fmt.Sprintf("\t{ .reg .b64 off; add.s64 off, %s, 1; %soff%s }", c[from:to], c[:from], c[to:]))
			}
		}
		if at := productRS.FindStringSubmatchIndex(c); at != nil {
			descriptor(at, 2)
		} else if at := product64.FindStringSubmatchIndex(c); at != nil {
			descriptor(at, 2, 3)
		}
		if m := loopHead.FindStringSubmatch(c); m != nil {
			out = append(out, loopMutants(lines, i, m[1])...)
		}
	}
	return out
}

// loopMutants changes the bound and the step of the loop whose label stands in a
// line, if it is one.
func loopMutants(lines []string, at int, label string) []mutant {
	var out []mutant
	end := -1
	for j := at; j < len(lines) && !strings.HasPrefix(lines[j], "}"); j++ {
		if strings.HasPrefix(code(lines[j]), "\tbra "+label+";") {
			end = j
		}
	}
	if end < 0 {
		return nil
	}
	head := -1
	for j := at + 1; j < end; j++ {
		if compares.MatchString(code(lines[j])) && leaves.MatchString(code(lines[j+1])) {
			head = j
			break
		}
		if strings.HasPrefix(lines[j], "$") {
			return nil
		}
	}
	if head < 0 {
		return nil
	}
	m := compares.FindStringSubmatch(code(lines[head]))
	v := m[3]
	// What is added to the variable, there or before it is moved.
	step, stepAt := 0, -1
	from := map[string]bool{v: true}
	for j := at + 1; j < end; j++ {
		if x := moves.FindStringSubmatch(code(lines[j])); x != nil && x[1] == v {
			from[x[2]] = true
		}
	}
	for j := at + 1; j < end; j++ {
		if x := adds.FindStringSubmatch(code(lines[j])); x != nil && x[2] == v && from[x[1]] {
			step, _ = strconv.Atoi(x[3])
			stepAt = j
		}
	}
	if n, err := strconv.Atoi(m[4]); err == nil {
		bys := []int{-1, 1}
		if step > 1 {
			bys = append(bys, -step, step)
		}
		for _, by := range bys {
			out = append(out, mutant{false, head, fmt.Sprintf("bound %+d of %s", by, strings.TrimSpace(code(lines[head]))), []string{fmt.Sprintf("\tsetp.%s.s32 %s, %s, %d;", m[1], m[2], v, n+by)}})
		}
	}
	if stepAt >= 0 {
		x := adds.FindStringSubmatch(code(lines[stepAt]))
		for _, by := range []int{-1, 1} {
			out = append(out, mutant{false, stepAt, fmt.Sprintf("step %+d of %s", by, strings.TrimSpace(code(lines[stepAt]))), []string{fmt.Sprintf("\tadd.s32 %s, %s, %d;", x[1], x[2], step+by)}})
		}
	}
	return out
}

func apply(text string, m mutant) string {
	lines := strings.Split(text, "\n")
	copy(lines[m.line:], m.with)
	return strings.Join(lines, "\n")
}

func sums(rows, cols int, across bool) *kern.Kernel {
	b := kern.NewBuilder("sums")
	i := b.Dim(rows)
	x := b.Buf("x", ir.F32, rows*cols, kern.In)
	out, err := b.For(cols, []kern.Combine{kern.Sum, kern.MaxOf}, func(v *kern.Var) ([]*kern.Node, error) {
		at := kern.V(i).Scale(cols).Add(kern.V(v))
		if across {
			at = kern.V(v).Scale(rows).Add(kern.V(i))
		}
		y := b.Load(x, at)
		return []*kern.Node{y, b.Op(kern.Mul, y, y)}, nil
	})
	if err != nil {
		panic(err)
	}
	b.Store(b.Buf("sum", ir.F32, rows, kern.Out), kern.V(i), out[0])
	b.Store(b.Buf("most", ir.F32, rows, kern.Out), kern.V(i), out[1])
	return b.Done()
}

func subjects(t *testing.T) []*subject {
	var out []*subject
	only := regexp.MustCompile(os.Getenv("ONLY"))
	add := func(name string, k *kern.Kernel, tg *cuda.Target) {
		if only.MatchString(name) {
			out = append(out, newSubject(t, name, k, tg, fill(k, 5)))
		}
	}
	add("rows", sums(3, 2100, false), on(t, "sm_90a", "wgmma", nil))
	add("warp rows", sums(38, 600, false), on(t, "sm_90a", "wgmma", nil))
	add("columns", sums(40, 300, true), on(t, "sm_90a", "wgmma", nil))
	add("scatter_add", ops.ScatterAddOp{Rows: 5}.Kernel([]ir.Type{ir.T(ir.I32, 300), ir.T(ir.F32, 300, 130)}, []ir.Type{ir.T(ir.F32, 5, 130)}), on(t, "sm_90a", "wgmma", nil))
	add("f32", matmul{batch: 1, m: 33, n: 36, k: 70, in: ir.F32, out: ir.F32, rest: true}.kernel(), on(t, "sm_70", "", nil))
	add("f32 parts", matmul{batch: 1, m: 33, n: 36, k: 1096, in: ir.F32, out: ir.F32}.kernel(), on(t, "sm_90a", "wgmma", nil))
	add("mma", matmul{batch: 1, m: 40, n: 72, k: 296, in: ir.F16, out: ir.F16, rest: true}.kernel(), on(t, "sm_80", "mma", nil))
	add("mma odd", matmul{batch: 1, m: 33, n: 35, k: 290, ta: true, in: ir.F16, out: ir.F32}.kernel(), on(t, "sm_80", "mma", nil))
	add("wgmma", matmul{batch: 1, m: 136, n: 40, k: 360, in: ir.F16, out: ir.F16, rest: true}.kernel(), on(t, "sm_90a", "wgmma", &cuda.Shape{M: 64, N: 32, Cluster: 1, Parts: 1, Blocks: 2}))
	add("wgmma cluster", matmul{batch: 1, m: 264, n: 40, k: 360, ta: true, in: ir.F16, out: ir.F16}.kernel(), on(t, "sm_90a", "wgmma", &cuda.Shape{M: 64, N: 32, Cluster: 2, Parts: 1, Blocks: 2}))
	add("wgmma parts", matmul{batch: 1, m: 64, n: 32, k: 2184, in: ir.F16, out: ir.F16}.kernel(), on(t, "sm_90a", "wgmma", &cuda.Shape{M: 64, N: 32, Cluster: 1, Parts: 2}))
	add("wgmma alternate", matmul{batch: 1, m: 264, n: 40, k: 200, tb: true, in: ir.F16, out: ir.F16}.kernel(), on(t, "sm_90a", "wgmma", &cuda.Shape{M: 64, N: 32, Cluster: 1, Parts: 1, Blocks: 2, Alternate: true}))
	att := func(name, kind string, c attentionCase, tg *cuda.Target) {
		if only.MatchString(name) {
			k, d := c.kernel(kind)
			out = append(out, newSubject(t, name, k, tg, d))
		}
	}
	for _, kind := range []string{"fwd", "bwd", "decode"} {
		att(kind+" wgmma", "attention_"+kind, attentionCase{mask.Causal(), 1, 400, 1, 64, ir.F16, "dense"}, on(t, "sm_90a", "wgmma", nil))
		att(kind+" mma", "attention_"+kind, attentionCase{mask.Causal(), 1, 300, 1, 32, ir.F16, "dense"}, on(t, "sm_80", "mma", nil))
		att(kind+" f32", "attention_"+kind, attentionCase{mask.Causal(), 1, 70, 1, 20, ir.F32, "dense"}, on(t, "sm_70", "", nil))
	}
	return out
}

func TestExplore(t *testing.T) {
	var every, rest uint64 = 1, 0
	fmt.Sscan(os.Getenv("EVERY"), &every)
	for _, s := range subjects(t) {
		how := map[string]int{}
		start := time.Now()
		total := [2]int{}
		good := [2]int{}
		all := mutants(s.text)
		for i, m := range all {
			h := fnv.New64a()
			fmt.Fprint(h, s.name, i)
			if h.Sum64()%every != rest {
				continue
			}
			k := 0
			if m.sync {
				k = 1
			}
			total[k]++
			r := s.reported(apply(s.text, m))
			how[r]++
			if r != "" {
				good[k]++
				if len(r) > 30 {
					t.Logf("%s:%d: %s: %s", s.name, m.line+1, m.what, r)
				}
			} else {
				t.Logf("SURVIVES %s:%d: %s // %s", s.name, m.line+1, m.what, strings.TrimSpace(strings.TrimPrefix(strings.Split(s.text, "\n")[m.line], code(strings.Split(s.text, "\n")[m.line]))))
			}
		}
		t.Logf("%s: sync %d/%d other %d/%d of %d, %v %.3v", s.name, good[1], total[1], good[0], total[0], len(all), time.Since(start), how)
		os.WriteFile("/tmp/mut/"+s.name+".ptx", []byte(s.text), 0o666)
	}
}
