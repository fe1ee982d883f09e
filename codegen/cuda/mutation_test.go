package cuda_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"regexp"
	"slices"
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

// A mutant is a kernel that is shipped with one change: it lacks a synchronising
// instruction, or an address, an index or a number of a loop is off by one. The
// emulator must report it, or its results must differ, except for what excuses
// explains. So what the compiler writes tests the checks of the emulator, and each
// synchronisation is shown to be needed.
type mutant struct {
	line int      // that changes, from 0
	with []string // takes the place of as many lines
	sync bool     // is about a synchronising instruction
	what string
	// at is the line of the generator that wrote it; before and after are the
	// synchronising instructions of the kernel before it and behind it.
	at, before, after string
}

// excuses are the mutants that no check can report, and why: what matches subject,
// what, at, before and after of them.
var excuses = []struct{ subject, what, at, before, after, why string }{
	// Synchronisation that isn't needed where it stands.
	{subject: `^decode`, what: `^without bar\.sync`, at: `what was combined before`, before: `^bar\.sync 0; $`,
		why: "nothing was combined before"},
	{subject: `^mma`, what: `cp\.async\.wait_group 0`,
		why: "the groups that have not been waited for in the loop are empty"},
	{subject: `^wgmma in parts$`, what: `^(without|address 0 of) mbarrier\.arrive\.release`, after: `^barrier\.cluster`,
		why: "a block has one tile: nobody waits for the last stages to be empty"},
	{subject: `^wgmma in turns$`, what: `^without bar\.warp\.sync`, after: `^$`,
		why: "before it writes there again, the warp waits for its turn at a barrier"},
	{subject: `^attention (wgmma|mma|m8n8k4)`, what: `^without bar\.warp\.sync`, after: `^$`,
		why: "nothing behind it writes to shared memory"},
	{subject: `^attention wgmma$`, what: `^without fence\.proxy\.async`, before: `wait_group 2; $`,
		why: "until the next one, only ldmatrix reads what has been copied"},
	{subject: `^attention wgmma (q|kv)$`, what: `^without cp\.async\.commit_group`, before: `^$`, why: rowsLater},
	{subject: `^attention wgmma (q|kv)$`, what: `cp\.async\.wait_group 2`, why: rowsLater},
	{subject: `^attention wgmma (q|kv)$`, what: `^without (fence\.proxy\.async|bar\.sync)`, before: `wait_group 2; (fence\S+; )?$`, why: rowsLater},
	{subject: `^attention wgmma kv$`, what: `wgmma\.wait_group\S* 1`, after: `^wgmma\.wait_group\S* 0;`,
		why: "the next instruction waits for more"},
	{subject: `^attention wgmma kv$`, what: `wgmma\.wait_group\S* 0`, after: `^wgmma\.fence\S*; (wgmma\S+( \d)?; )+cp\.async`, why: otherHalf},
	{subject: `^attention wgmma kv$`, what: `^without wgmma\.commit`, after: `^wgmma\.wait_group\S* 1; wgmma\.wait_group\S* 0; wgmma\.fence\S*; (wgmma\S+( \d)?; )+cp\.async`, why: otherHalf},

	// Loops that do the same.
	{subject: `^rows in batches$`, what: `^bound -1 `, at: `e\.For\(from, build\.Int\(full`,
		why: "no thread has a number between the bounds"},
	{subject: `^scatter_add$`, what: `^bound \+`, at: `build\.Int\(scatterTurn\)`,
		why: "nothing is found past the end of the list"},
	{subject: `^scatter_add$`, what: `^step -1`, at: `popc\(word\)`,
		why: "past the last hit of a word nothing is added"},
	{subject: `^(mma by registers|m8n8k4)$`, what: `^bound \+1`, at: `build\.Int\(steps\)`,
		why: "terms past the last are 0"},
	{subject: `^f32 in parts$`, what: `^step -1`, at: `e\.For\(from, to`,
		why: "the loop runs once"},
	{subject: `in parts$`, what: `^step \+1`, at: `e\.For\((first|mine|from), `,
		why: "the loop runs once"},
	{subject: `^wgmma`, what: `^bound \+1`, at: `build\.Int\(chunks\)`,
		why: "columns past the last of a tile are not written"},
	{subject: `^attention (wgmma|mma|m8n8k4)`, what: `^bound \+1`, at: `tileSize/maskBits`,
		why: "past the halves of a tile no warp is busy"},
	{subject: `^attention f32`, what: `^bound \+`, at: `build\.Int\(x\.depth\)|ceil\(x\.attention\.d, unrolled\)`,
		why: "elements past the end of a row are 0"},
	{subject: `^decode`, what: `^step -1`, at: `x\.For\(x\.id, n`, before: `^bar\.sync 0; $`,
		why: "the largest score is the same if some are looked at twice"},
}

const (
	rowsLater = "only products read what has been copied, and they wait and fence and meet in the loop again"
	otherHalf = "nothing changes what these products read and write before the other half of the tile has waited for them"
)

// seeds is how many schedules a mutant runs under before it counts as unnoticed.
const seeds = 3

// subject is a kernel with operands.
type subject struct {
	name  string
	k     *kern.Kernel
	entry cuda.Entry
	lines []string
	first int // line of the entry
	data  [][]byte
	want  [][]byte // what it leaves
	steps int64    // of its own
	// syncs says that only mutants that are about synchronisation are tried. A matrix
	// for which all loops of householder have several turns takes too long.
	syncs bool
	most  int64 // that a mutant may take
}

func newSubject(t *testing.T, name string, k *kern.Kernel, tg *cuda.Target, entry int, contents [][]float64) *subject {
	t.Helper()
	s := &subject{name: name, k: k}
	for i, b := range k.Bufs {
		d := make([]byte, len(contents[i])*b.DType.Size())
		if err := emu.Encode(b.DType, d, contents[i]); err != nil {
			t.Fatal(err)
		}
		s.data = append(s.data, d)
	}
	text, entries, err := cuda.Text(k, tg, true)
	if err != nil {
		t.Fatal(err)
	}
	s.entry, s.lines = entries[entry], strings.Split(text, "\n")
	s.first = slices.IndexFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, ".visible .entry "+s.entry.Name+"(") })
	if s.first < 0 {
		t.Fatalf("%s: no entry %s", name, s.entry.Name)
	}
	for seed := range seeds {
		got, stats, err := s.run(text, int64(seed+1))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if seed == 0 {
			s.want, s.steps = got, stats.Instructions
			s.most = 2*s.steps + 10000
		}
		if !slices.EqualFunc(got, s.want, bytes.Equal) {
			t.Fatalf("%s: other bits under another schedule", name)
		}
		if !*long {
			break
		}
	}
	return s
}

// run runs a text in the kernel's place and gives all buffers.
func (s *subject) run(text string, seed int64) ([][]byte, simt.Stats, error) {
	none := simt.Stats{}
	mod, err := simt.Parse(text)
	if err != nil {
		return nil, none, err
	}
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Steps: s.most})
	var bufs []*simt.Buffer
	for i, b := range s.k.Bufs {
		d := mach.Alloc(b.Name, len(s.data[i]))
		if b.Mode != kern.Out {
			copy(d.Bytes(), s.data[i])
			d.Init()
		}
		bufs = append(bufs, d)
	}
	l, err := emu.Launch(&s.entry, func(i int) uint64 { return bufs[i].Addr() })
	if err != nil {
		return nil, none, err
	}
	if err := mach.Launch(mod, l); err != nil {
		return nil, none, err
	}
	var out [][]byte
	for _, b := range bufs {
		out = append(out, b.Bytes())
	}
	return out, mach.Stats(), nil
}

// reported says how a mutant is noticed, or "".
func (s *subject) reported(t *testing.T, m *mutant) string {
	t.Helper()
	lines := slices.Clone(s.lines)
	copy(lines[m.line:], m.with)
	text := strings.Join(lines, "\n")
	for seed := range seeds {
		got, _, err := s.run(text, int64(seed+1))
		var f *simt.Fault
		switch {
		case errors.As(err, &f):
			return string(f.Kind)
		case err != nil:
			t.Fatalf("%s: %s: %v", s.name, m.what, err)
		case !slices.EqualFunc(got, s.want, bytes.Equal):
			return "results"
		}
	}
	return ""
}

var (
	synchronises = regexp.MustCompile(`^\t(?:\{.*[ \t])?((?:bar\.(?:warp\.)?(?:sync|arrive)|fence|cp\.async\.(?:bulk\.)?(?:wait|commit)_group|mbarrier\.(?:arrive|try_wait)|wgmma\.(?:fence|commit_group|wait_group)|barrier\.cluster)\b[\w.:]*(?: \d+)?)`)
	waits        = regexp.MustCompile(`^(\t(?:cp\.async|wgmma)\.wait_group\S* )(\d+);`)
	accesses     = regexp.MustCompile(`\b(?:ld|st)(?:\.\w+)?\.(?:shared|global)(?:::\w+)?(?:\.nc)?(?:\.v([24]))?\.[a-z]+(\d+) |\bcp\.async\.c[ag]\S* .*, (\d+), |\b(ldmatrix)\.|\b(mbarrier)\.|\bcp\.async\.bulk\.(tensor)\.`)
	address      = regexp.MustCompile(`\[([%$\w]+)([+-]\d+)?\]`)
	coordinates  = regexp.MustCompile(`\[%rd\d+, \{([^}]*)\}\]`)
	descriptors  = regexp.MustCompile(`wgmma\.mma_async\S* \{[^}]*\}, (?:(%rd\d+)|\{[^}]*\}), (%rd\d+), `)
	label        = regexp.MustCompile(`^(\$L\d+):`)
	compares     = regexp.MustCompile(`^(\tsetp\.lt\.s32 %p\d+, (%r\d+), )([-%r\d]+);`)
	leaves       = regexp.MustCompile(`^\t@!%p\d+ bra \$L\d+;`)
	adds         = regexp.MustCompile(`^(\tadd\.s32 (%r\d+), (%r\d+), )(-?\d+);`)
	moves        = regexp.MustCompile(`^\tmov\.b32 (%r\d+), (%r\d+|-?\d+);`)
)

// mutants lists those of s.
func (s *subject) mutants(t *testing.T) []*mutant {
	t.Helper()
	var out []*mutant
	add := func(sync bool, i int, what string, with ...string) {
		out = append(out, &mutant{line: i, sync: sync, what: what, with: with})
	}
	syncs := map[int]string{}
	last := s.first
	for i := s.first; s.lines[i] != "}"; i++ {
		last = i
		c, _, _ := strings.Cut(s.lines[i], " //")
		plain := strings.TrimSpace(c)
		if m := synchronises.FindStringSubmatch(c); m != nil {
			syncs[i] = m[1]
			add(true, i, "without "+m[1], "")
			if strings.Contains(c, "cluster.arrive") && strings.Contains(s.lines[i+1], "cluster.wait") {
				add(true, i, "without barrier.cluster", "", "")
			}
		}
		if m := waits.FindStringSubmatch(c); m != nil {
			add(true, i, "a group less in "+plain, fmt.Sprintf("%s%d;", m[1], number(m[2])+1))
		}
		if m := accesses.FindStringSubmatch(c); m != nil {
			size := 16 // bytes of an access, of ldmatrix a row
			switch {
			case m[2] != "":
				size = number(m[2]) / 8 * max(1, number(m[1]))
			case m[3] != "":
				size = number(m[3])
			case m[5] != "":
				size = 8
			case m[6] != "":
				size = 128 // which copies are aligned to
			}
			for k, at := range address.FindAllStringSubmatchIndex(c, -1) {
				off := size
				if m[6] != "" && k > 0 {
					off = 8 // its mbarrier
				}
				if at[4] >= 0 {
					off += number(c[at[4]:at[5]])
				}
				add(false, i, fmt.Sprintf("address %d of %s", k, plain), fmt.Sprintf("%s[%s+%d]%s", c[:at[0]], c[at[2]:at[3]], off, c[at[1]:]))
			}
		}
		// In place of an operand, what is one more.
		other := func(what, ty string, from, to int) {
			x := c[from:to]
			add(false, i, fmt.Sprintf("%s %s of %s", what, x, plain), fmt.Sprintf("\t{ .reg .%s off; add.%s off, %s, 1; %soff%s }", ty, ty, x, c[:from], c[to:]))
		}
		if at := coordinates.FindStringSubmatchIndex(c); at != nil {
			from := at[2]
			for _, x := range strings.Split(c[at[2]:at[3]], ", ") {
				other("coordinate", "s32", from, from+len(x))
				from += len(x) + 2
			}
		}
		if at := descriptors.FindStringSubmatchIndex(c); at != nil {
			for g := 2; g < len(at); g += 2 {
				if at[g] >= 0 {
					other("descriptor", "s64", at[g], at[g+1]) // by 16 bytes
				}
			}
		}
		if m := label.FindStringSubmatch(c); m != nil {
			out = append(out, s.loop(i, m[1])...)
		}
	}
	for _, m := range out {
		m.at = source(t, s.lines[m.line])
		for i := s.first; i <= last; i++ {
			switch x := syncs[i]; {
			case x == "":
			case i < m.line:
				m.before += x + "; "
			case i >= m.line+len(m.with):
				m.after += x + "; "
			}
		}
	}
	return out
}

// loop lists the mutants of the loop whose label stands in a line, if there is one:
// other bounds and steps, as far as they are numbers and the loop isn't one that runs
// once or not at all either way.
func (s *subject) loop(at int, label string) []*mutant {
	end, head := -1, -1
	for j := at; s.lines[j] != "}"; j++ {
		if strings.HasPrefix(s.lines[j], "\tbra "+label+";") {
			end = j
		}
	}
	for j := at + 1; j < end && head < 0 && s.lines[j][0] != '$'; j++ {
		if compares.MatchString(s.lines[j]) && leaves.MatchString(s.lines[j+1]) {
			head = j
		}
	}
	if head < 0 {
		return nil
	}
	m := compares.FindStringSubmatch(s.lines[head])
	v := m[2]
	// What is added to the variable, there or before it is moved there.
	adding, step := -1, 0
	names := []string{v}
	tail := false // nothing else uses the sum
	for j := end - 1; j > head; j-- {
		if x := moves.FindStringSubmatch(s.lines[j]); x != nil && x[1] == v {
			names = append(names, x[2])
		}
		if x := adds.FindStringSubmatch(s.lines[j]); x != nil && x[3] == v && slices.Contains(names, x[2]) {
			adding, step = j, number(x[4])
			break
		}
		tail = tail || !strings.HasPrefix(s.lines[j], "\tmov.")
	}
	start, known := 0, false
	for j := at - 1; strings.HasPrefix(s.lines[j], "\tmov.") && !known; j-- {
		if x := moves.FindStringSubmatch(s.lines[j]); x != nil && x[1] == v && x[2][0] != '%' {
			start, known = number(x[2]), true
		}
	}
	turns := func(bound, step int) int {
		if step <= 0 || start >= bound {
			return start - bound
		}
		return (bound - start + step - 1) / step
	}
	var out []*mutant
	bound, err := strconv.Atoi(m[3])
	if err == nil {
		bys := []int{-1, 1}
		if step > 1 {
			bys = append(bys, -step, step)
		}
		for _, by := range bys {
			if known && adding >= 0 && turns(bound, step) == turns(bound+by, step) {
				continue
			}
			out = append(out, &mutant{line: head, what: fmt.Sprintf("bound %+d of %s", by, v), with: []string{fmt.Sprintf("%s%d;", m[1], bound+by)}})
		}
	}
	if adding >= 0 {
		x := adds.FindStringSubmatch(s.lines[adding])
		for _, by := range []int{-1, 1} {
			if err == nil && known && !tail && turns(bound, step) == 1 && turns(bound, step+by) == 1 {
				continue
			}
			out = append(out, &mutant{line: adding, what: fmt.Sprintf("step %+d of %s", by, v), with: []string{fmt.Sprintf("%s%d;", x[1], step+by)}})
		}
	}
	return out
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// source is the line of a generator that a line of PTX says it is from.
func source(t *testing.T, line string) string {
	t.Helper()
	_, at, ok := strings.Cut(line, " // ")
	if !ok {
		return ""
	}
	name, n, _ := strings.Cut(at, ":")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.Split(string(text), "\n")[number(n)-1])
}

// sums has two sums of every row, or every column.
func sums(n, terms int, columns bool) *kern.Kernel {
	b := kern.NewBuilder("sums")
	i := b.Dim(n)
	x := b.Buf("x", ir.F32, n*terms, kern.In)
	out, err := b.For(terms, []kern.Combine{kern.Sum, kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) {
		at := kern.V(i).Scale(terms).Add(kern.V(v))
		if columns {
			at = kern.V(v).Scale(n).Add(kern.V(i))
		}
		y := b.Load(x, at)
		return []*kern.Node{y, b.Op(kern.Mul, y, y)}, nil
	})
	if err != nil {
		panic(err)
	}
	b.Store(b.Buf("sum", ir.F32, n, kern.Out), kern.V(i), out[0])
	b.Store(b.Buf("squares", ir.F32, n, kern.Out), kern.V(i), out[1])
	return b.Done()
}

// subjects are kernels of every kind, so small as lets rings of stages go round
// twice and loops have several turns.
func subjects(t *testing.T) []*subject {
	var out []*subject
	v70, v80, v90 := on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)
	shape := func(s cuda.Shape) *cuda.Target { return on(t, "sm_90a", "wgmma", &s) }
	add := func(name string, k *kern.Kernel, tg *cuda.Target) {
		out = append(out, newSubject(t, name, k, tg, 0, fill(k, 5)))
	}
	reflections := func(name string, n, r int, tg *cuda.Target) {
		// Neighbours, columns or fours of them, need very different scales.
		k := householderKernel(1, n, r)
		d := fill(k, 1)
		for i := range d[0] {
			d[0][i] = math.Ldexp(d[0][i], 80*[]int{-1, 0, 1}[(i%r+i%r/4)%3])
		}
		x := newSubject(t, name, k, tg, 0, d)
		x.syncs = true
		out = append(out, x)
	}
	reflections("householder of many rows", 2100, 3, v90)
	reflections("householder by fours", 150, 12, v80)
	reflections("householder one by one", 50, 43, v70)
	add("rows", sums(3, 2100, false), v90)
	add("rows in batches", sums(3, 17000, false), v80)
	add("rows of warps", sums(38, 460, false), v90)
	add("columns", sums(40, 300, true), v90)
	add("columns of clusters", sums(72, 1100, true), v90)
	// More hits than are noted at once.
	scatter := ops.ScatterAddOp{Rows: 5}.Kernel([]ir.Type{ir.T(ir.I32, 3500), ir.T(ir.F32, 3500, 10)}, []ir.Type{ir.T(ir.F32, 5, 10)})
	list := fill(scatter, 1)
	for i := 0; i < len(list[0]); i += 4 {
		list[0][i] = float64(i % 5)
	}
	out = append(out, newSubject(t, "scatter_add", scatter, v90, 0, list))
	add("f32", matmul{batch: 1, m: 33, n: 36, k: 70, in: ir.F32, out: ir.F32, rest: true}.kernel(), v70)
	add("f32 in parts", matmul{batch: 1, m: 33, n: 36, k: 1100, ta: true, in: ir.F32, out: ir.F32}.kernel(), v90)
	add("m8n8k4", matmul{batch: 1, m: 40, n: 72, k: 104, in: ir.F16, out: ir.F16, rest: true}.kernel(), v70)
	add("mma", matmul{batch: 1, m: 40, n: 72, k: 296, in: ir.F16, out: ir.F16, rest: true}.kernel(), v80)
	add("mma by registers", matmul{batch: 1, m: 33, n: 35, k: 290, ta: true, in: ir.F16, out: ir.F32}.kernel(), v80)
	add("mma in parts", matmul{batch: 1, m: 24, n: 72, k: 1040, tb: true, in: ir.F16, out: ir.F16}.kernel(), on(t, "sm_90a", "mma", nil))
	// Eight stages, which 18 steps go round twice.
	add("wgmma", matmul{batch: 1, m: 136, n: 40, k: 360, in: ir.F16, out: ir.F16, rest: true}.kernel(), shape(cuda.Shape{M: 64, N: 32, Cluster: 1, Parts: 1, Blocks: 2}))
	add("wgmma in clusters", matmul{batch: 1, m: 264, n: 40, k: 360, ta: true, in: ir.F16, out: ir.F16}.kernel(), shape(cuda.Shape{M: 64, N: 32, Cluster: 2, Parts: 1, Blocks: 2}))
	add("wgmma in parts", matmul{batch: 1, m: 64, n: 32, k: 2184, in: ir.F16, out: ir.F16}.kernel(), shape(cuda.Shape{M: 64, N: 32, Cluster: 1, Parts: 2}))
	add("wgmma in turns", matmul{batch: 1, m: 264, n: 40, k: 584, tb: true, in: ir.F16, out: ir.F16}.kernel(), shape(cuda.Shape{M: 128, N: 32, Cluster: 1, Parts: 1, Blocks: 2, Alternate: true}))
	attention := func(name, kind string, entry int, c attentionCase, tg *cuda.Target) {
		k, d := c.kernel("attention_" + kind)
		if kind == "decode" {
			// The last position sees all keys. In each of the first heads one has all
			// the weight, which is another warp's; if its score isn't found to be the
			// largest, the results are no numbers.
			d[3][0] = float64(c.t - 1)
			for h, key := range []int{128, 37, 69, 101} {
				for i := range c.d {
					d[1][(key*c.h+h)*c.d+i] = 20 * d[0][h*c.d+i]
				}
			}
		}
		out = append(out, newSubject(t, name, k, tg, entry, d))
	}
	// With these masks, blocks have more tiles than twice the stages, whole ones and
	// more others than stages, steps of 32 and of 16 columns, and all rows.
	tiles := func(m mask.Mask, t, d int) attentionCase { return attentionCase{m, 1, t, 1, d, ir.F16, "dense"} }
	conv, column := mask.Conv(207, 20, 11, 11), mask.Column(151, 20, 12)
	plain := attentionCase{mask.Row(70, 8, 3), 1, mask.Len(70, 8, 3), 1, 36, ir.F32, "dense"}
	attention("attention wgmma", "fwd", 0, tiles(conv, 427, 64), v90)
	attention("attention wgmma q", "bwd", 0, tiles(conv, 427, 64), v90)
	attention("attention wgmma kv", "bwd given delta", 1, tiles(column, 391, 64), v90)
	attention("attention mma", "fwd", 0, tiles(conv, 427, 32), v80)
	attention("attention mma q", "bwd", 0, tiles(conv, 427, 32), v80)
	attention("attention mma kv", "bwd given delta", 1, tiles(conv, 427, 32), v80)
	attention("attention m8n8k4", "fwd", 0, tiles(conv, 427, 32), v70)
	attention("attention m8n8k4 q", "bwd", 0, tiles(conv, 427, 32), v70)
	attention("attention m8n8k4 kv", "bwd given delta", 1, tiles(conv, 427, 32), v70)
	attention("attention f32", "fwd", 0, plain, v70)
	attention("attention f32 q", "bwd", 0, plain, v70)
	attention("attention f32 kv", "bwd given delta", 1, plain, v70)
	attention("decode 16 bits", "decode", 0, attentionCase{mask.Causal(), 1, 255, 6, 64, ir.F16, "dense"}, v90)
	attention("decode", "decode", 0, attentionCase{mask.Causal(), 1, 150, 6, 131, ir.BF16, "dense"}, v90)
	return out
}

// sampled is about how many instructions the mutants of a kernel may take that are
// run where not all of them are.
const sampled = 150_000

func TestMutants(t *testing.T) {
	used := make([]bool, len(excuses))
	var reported, total int
	for _, s := range subjects(t) {
		start := time.Now()
		all := s.mutants(t)
		if s.syncs {
			all = slices.DeleteFunc(all, func(m *mutant) bool { return !m.sync })
		}
		some := all
		if !*long {
			order := func(m *mutant) uint64 {
				h := fnv.New64a()
				fmt.Fprint(h, m.what, m.before)
				return h.Sum64()
			}
			some = slices.Clone(all)
			slices.SortStableFunc(some, func(a, b *mutant) int { return cmp.Compare(order(a), order(b)) })
			some = some[:min(len(some), 2+int(sampled/s.steps))]
		}
		// Reported and in all, of those that lack synchronisation and of the others.
		var syncs, others [2]int
		how := map[string]int{}
		for _, m := range some {
			why := ""
			for i, e := range excuses {
				if match(e.subject, s.name) && match(e.what, m.what) && match(e.at, m.at) && match(e.before, m.before) && match(e.after, m.after) {
					why, used[i] = e.why, true
				}
			}
			r := s.reported(t, m)
			count := &others
			if m.sync {
				count = &syncs
			}
			count[1]++
			if r != "" {
				count[0]++
				how[r]++
			}
			at := fmt.Sprintf("%s:%d: %s (from %s)", s.name, m.line+1, m.what, m.at)
			switch {
			case r == "" && why == "":
				t.Errorf("%s isn't noticed", at)
			case r != "" && why != "":
				t.Errorf("%s is noticed (%s), although %s", at, r, why)
			case r == "":
				t.Logf("%s: %s", at, why)
			}
		}
		t.Logf("%s: reported are %d of %d without synchronisation, %d of %d others (there are %d mutants): %v, %.1f s",
			s.name, syncs[0], syncs[1], others[0], others[1], len(all), how, time.Since(start).Seconds())
		reported, total = reported+syncs[0]+others[0], total+syncs[1]+others[1]
	}
	t.Logf("reported are %d of %d; the others are excused", reported, total)
	for i, u := range used {
		if *long && !u {
			t.Errorf("no mutant is excused by %+v", excuses[i])
		}
	}
}

var patterns = map[string]*regexp.Regexp{}

func match(pattern, s string) bool {
	if patterns[pattern] == nil {
		patterns[pattern] = regexp.MustCompile(pattern)
	}
	return patterns[pattern].MatchString(s)
}
