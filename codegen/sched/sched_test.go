package sched

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// maker builds programs launch by launch and derives the lifetimes.
type maker struct{ p plan.Program }

func (m *maker) buffer(name string, bytes int) *plan.Buffer {
	b := &plan.Buffer{ID: len(m.p.Buffers), Name: name, Type: ir.T(ir.I8, bytes), Bytes: bytes, Arena: plan.Work, First: 1 << 30, Last: -2}
	m.p.Buffers = append(m.p.Buffers, b)
	return b
}

func (m *maker) input(name string, bytes int) *plan.Buffer {
	b := m.buffer(name, bytes)
	b.First = -1
	m.p.Inputs = append(m.p.Inputs, b)
	return b
}

func (m *maker) output(name string, b *plan.Buffer) {
	m.p.Outputs = append(m.p.Outputs, plan.Output{Name: name, Buffer: b})
}

// launch appends a kernel that reads ins, writes outs and updates inouts.
func (m *maker) launch(ins, outs, inouts []*plan.Buffer) {
	at := len(m.p.Launches)
	k := &kern.Kernel{Name: fmt.Sprintf("k%d", at)}
	var l plan.Launch
	add := func(bs []*plan.Buffer, mode kern.Mode) {
		for _, b := range bs {
			k.Bufs = append(k.Bufs, kern.Buf{Name: b.Name, DType: ir.I8, Len: b.Bytes, Mode: mode})
			l.Args = append(l.Args, b)
			b.First, b.Last = min(b.First, at), max(b.Last, at)
		}
	}
	add(ins, kern.In)
	add(outs, kern.Out)
	add(inouts, kern.InOut)
	l.Kernel = k
	m.p.Launches = append(m.p.Launches, l)
}

func (m *maker) done() *plan.Program {
	n := len(m.p.Launches)
	for _, b := range m.p.Inputs {
		b.Last = n
	}
	for _, o := range m.p.Outputs {
		o.Buffer.Last = n
	}
	m.p.Name = "main"
	return &m.p
}

// transformer has the buffers of one training step: activations kept from the
// forward pass to the backward pass, and short-lived ones in between. With
// remat a block keeps its input alone and recomputes.
func transformer(layers, width, tokens int, remat bool) *plan.Program {
	var m maker
	row := tokens * width * 4
	bs := func(b ...*plan.Buffer) []*plan.Buffer { return b }
	x := m.input("tokens", tokens*4)
	type kept struct{ x, n, qkv, a, h, g *plan.Buffer }
	var stack []kept
	block := func(x *plan.Buffer, i int) (kept, *plan.Buffer) {
		s := kept{x: x}
		mul := func(n string, k int) *plan.Buffer { return m.buffer(fmt.Sprintf("%s%d", n, i), k*row/4) }
		s.n = mul("n", 4)
		m.launch(bs(x), bs(s.n, mul("mean", 1)), nil)
		s.qkv = mul("qkv", 12)
		m.launch(bs(s.n), bs(s.qkv), nil)
		s.a = mul("a", 4)
		m.launch(bs(s.qkv), bs(s.a, mul("lse", 1)), nil)
		y := mul("y", 4)
		m.launch(bs(s.a, x), bs(y), nil)
		n2 := mul("n2.", 4)
		m.launch(bs(y), bs(n2), nil)
		s.h, s.g = mul("h", 16), mul("g", 16)
		m.launch(bs(n2), bs(s.h), nil)
		m.launch(bs(s.h), bs(s.g), nil)
		z := mul("z", 4)
		m.launch(bs(s.g, y), bs(z), nil)
		return s, z
	}
	y := m.buffer("emb", row)
	m.launch(bs(x), bs(y), nil)
	for i := 0; i < layers; i++ {
		var s kept
		s, y = block(y, i)
		stack = append(stack, s)
	}
	loss := m.buffer("loss", 4)
	dy := m.buffer("dlogits", row)
	m.launch(bs(y), bs(loss, dy), nil)
	slices.Reverse(stack)
	for i, s := range stack {
		if remat {
			s, _ = block(s.x, 1000+i)
		}
		dh, dg, dn, dx := m.buffer("dh", 4*row), m.buffer("dg", 4*row), m.buffer("dn", row), m.buffer("dx", row)
		dw := m.buffer("dw", width*width*16)
		m.launch(bs(dy, s.g), bs(dg), nil)
		m.launch(bs(dg, s.h), bs(dh), nil)
		m.launch(bs(dh, s.n), bs(dn, dw), nil)
		part := m.buffer("part", width*64*4)
		m.launch(bs(dw), bs(part), nil)
		dqkv := m.buffer("dqkv", 3*row)
		m.launch(bs(dn, s.qkv, s.a), bs(dqkv), nil)
		m.launch(bs(dqkv, s.x, part), bs(dx), nil)
		dy = dx
	}
	m.output("loss", loss)
	return m.done()
}

func TestTransformerStepsPackWithinFivePercent(t *testing.T) {
	for _, remat := range []bool{false, true} {
		for _, tokens := range []int{100, 1280} {
			p := transformer(24, 512, tokens, remat)
			r, err := Place(p)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
			if r.Gap() > 0.05 {
				t.Errorf("remat=%v tokens=%d: %v, want at most 5%% above the bound", remat, tokens, r)
			}
			if err := Check(p); err != nil {
				t.Error(err)
			}
		}
	}
}

// Random lifetimes and sizes reach no lower bound, so every heuristic runs.
func TestThreeThousandBuffersArePlacedNearTheBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := &plan.Program{Launches: make([]plan.Launch, 1500)}
	for i := 0; i < 3000; i++ {
		first := rng.IntN(1490)
		p.Buffers = append(p.Buffers, &plan.Buffer{Arena: plan.Work, Bytes: 1 + rng.IntN(1<<rng.IntN(24)), First: first, Last: min(1500, first+1+rng.IntN(1<<rng.IntN(10)))})
	}
	r, err := Place(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Gap() > 0.10 {
		t.Errorf("%v, want at most 10%% above the bound even for random lifetimes", r)
	}
}

func TestPlaceIsDeterministic(t *testing.T) {
	p, q := transformer(6, 64, 96, true), transformer(6, 64, 96, true)
	for _, x := range []*plan.Program{p, q} {
		if _, err := Place(x); err != nil {
			t.Fatal(err)
		}
	}
	for i := range p.Buffers {
		if p.Buffers[i].Offset != q.Buffers[i].Offset {
			t.Fatalf("buffer %d is at %d, then at %d", i, p.Buffers[i].Offset, q.Buffers[i].Offset)
		}
	}
}

func randomProgram(t *rapid.T) *plan.Program {
	var m maker
	size := rapid.OneOf(rapid.IntRange(1, 300), rapid.SampledFrom([]int{64, 128, 4096, 4097, 65536}))
	var have []*plan.Buffer
	for i, n := 0, rapid.IntRange(1, 4).Draw(t, "inputs"); i < n; i++ {
		have = append(have, m.input(fmt.Sprintf("in%d", i), size.Draw(t, "bytes")))
	}
	for i, n := 0, rapid.IntRange(1, 40).Draw(t, "launches"); i < n; i++ {
		pick := func(from int) []*plan.Buffer {
			var out []*plan.Buffer
			for j, c := 0, rapid.IntRange(0, 2).Draw(t, "args"); j < c; j++ {
				if b := have[rapid.IntRange(from, len(have)-1).Draw(t, "arg")]; !slices.Contains(out, b) {
					out = append(out, b)
				}
			}
			return out
		}
		ins := pick(0)
		var inouts []*plan.Buffer
		if len(have) > len(m.p.Inputs) {
			for _, b := range pick(len(m.p.Inputs)) {
				if !slices.Contains(ins, b) {
					inouts = append(inouts, b)
				}
			}
		}
		out := m.buffer(fmt.Sprintf("b%d", i), size.Draw(t, "bytes"))
		m.launch(ins, []*plan.Buffer{out}, inouts)
		have = append(have, out)
	}
	m.output("last", have[len(have)-1])
	return m.done()
}

func TestRandomProgramsArePlacedSoundly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomProgram(t)
		r, err := Place(p)
		if err != nil {
			t.Fatal(err)
		}
		if r.Bytes < r.LowerBound || r.Bytes != p.WorkBytes {
			t.Fatalf("%+v, work arena of %d", r, p.WorkBytes)
		}
		if err := Check(p); err != nil {
			t.Fatal(err)
		}
	})
}

// Moving one buffer of a placed program by one line either keeps all pairs
// that live at the same time apart, or the checker objects: both directions,
// against a brute-force comparison of all pairs.
func TestCheckAgreesWithAllPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomProgram(t)
		if _, err := Place(p); err != nil {
			t.Fatal(err)
		}
		b := p.Buffers[rapid.IntRange(0, len(p.Buffers)-1).Draw(t, "moved")]
		b.Offset = 64 * rapid.IntRange(0, (p.WorkBytes-b.Bytes)/64).Draw(t, "to")
		clash := false
		for _, o := range p.Buffers {
			if o != b && b.First <= o.Last && o.First <= b.Last && b.Offset < o.Offset+o.Bytes && o.Offset < b.Offset+b.Bytes {
				clash = true
			}
		}
		if err := Check(p); (err != nil) != clash {
			t.Fatalf("moved %s to %d: clash %v, checker: %v", b.Name, b.Offset, clash, err)
		}
	})
}

// small is x -> a -> b -> y, with c a dead end computed beside b.
func small() (*plan.Program, map[string]*plan.Buffer) {
	var m maker
	bs := func(b ...*plan.Buffer) []*plan.Buffer { return b }
	x := m.input("x", 100)
	a, b, c, y := m.buffer("a", 100), m.buffer("b", 100), m.buffer("c", 100), m.buffer("y", 100)
	m.launch(bs(x), bs(a), nil)
	m.launch(bs(a), bs(b), nil)
	m.launch(bs(a), bs(c), nil)
	m.launch(bs(b), bs(y), nil)
	m.output("y", y)
	return m.done(), map[string]*plan.Buffer{"x": x, "a": a, "b": b, "c": c, "y": y}
}

func TestCheckNamesTheProblem(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(p *plan.Program, b map[string]*plan.Buffer)
		want  string
	}{
		{"live buffer overwritten", func(p *plan.Program, b map[string]*plan.Buffer) { b["c"].Offset = b["b"].Offset },
			"launch 3 (k3) reads b, but launch 2 wrote c over its bytes 0 to 100"},
		{"output over its operand", func(p *plan.Program, b map[string]*plan.Buffer) { b["b"].Offset = b["a"].Offset },
			"launch 1 (k1): b, which it writes, overlaps its argument a"},
		{"input destroyed", func(p *plan.Program, b map[string]*plan.Buffer) { b["c"].Offset = b["x"].Offset },
			"after the last launch, the input is x, but launch 2 wrote c over its bytes 0 to 100"},
		{"output destroyed", func(p *plan.Program, b map[string]*plan.Buffer) {
			p.Launches[2], p.Launches[3] = p.Launches[3], p.Launches[2]
			b["c"].Offset = b["y"].Offset
		}, "output y is y, but launch 3 wrote c"},
		{"use before write", func(p *plan.Program, b map[string]*plan.Buffer) { p.Launches[3].Args[0] = b["y"] },
			"launch 3 (k3) reads y, which nothing has written"},
		{"input written", func(p *plan.Program, b map[string]*plan.Buffer) { p.Launches[2].Args[1] = b["x"] },
			"launch 2 (k2) writes the input x"},
		{"lifetime too short", func(p *plan.Program, b map[string]*plan.Buffer) { b["b"].Last = 2 },
			"buffer b is declared alive from launch 1 to 2 but used from 1 to 3"},
		{"output not kept", func(p *plan.Program, b map[string]*plan.Buffer) { b["y"].Last = 3 },
			"buffer y is declared alive from launch 3 to 3 but used from 3 to 4"},
		{"outside the arena", func(p *plan.Program, b map[string]*plan.Buffer) { b["y"].Offset = p.WorkBytes - 64 },
			"lie outside the work arena of"},
		{"misaligned", func(p *plan.Program, b map[string]*plan.Buffer) { b["a"].Offset += 8 },
			"buffer a: offset 8 is not a multiple of 64"},
		{"too small for its type", func(p *plan.Program, b map[string]*plan.Buffer) { b["a"].Bytes = 99 },
			"buffer a: 99 bytes hold no i8[100]"},
		{"kernel touches more", func(p *plan.Program, b map[string]*plan.Buffer) { p.Launches[1].Kernel.Bufs[0].Len = 101 },
			"launch 1: kernel k1 touches 101 bytes of a, buffer a has 100"},
		{"output larger than its buffer", func(p *plan.Program, b map[string]*plan.Buffer) { p.Outputs[0].Type = ir.T(ir.F32, 26) },
			"output y: f32[26] is more than the 100 bytes of buffer y"},
		{"foreign buffer", func(p *plan.Program, b map[string]*plan.Buffer) {
			p.Launches[1].Args[0] = &plan.Buffer{Name: "z", Bytes: 100, Arena: plan.Work}
		}, "argument z is not among the program's buffers"},
		{"wrong number of arguments", func(p *plan.Program, b map[string]*plan.Buffer) { p.Launches[1].Args = p.Launches[1].Args[:1] },
			"launch 1: kernel k1 takes 2 buffers, got 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, b := small()
			// Side by side, in order of the buffers: a at 0.
			p.WorkBytes = 128 * len(p.Buffers)
			for i, n := range []string{"a", "b", "c", "x", "y"} {
				b[n].Offset = 128 * i
			}
			if err := Check(p); err != nil {
				t.Fatalf("before: %v", err)
			}
			tt.spoil(p, b)
			err := Check(p)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %q", err, tt.want)
			}
		})
	}
}

func TestPlaceRefusesImpossibleLifetimes(t *testing.T) {
	p, b := small()
	b["c"].First = 9
	if _, err := Place(p); err == nil || !strings.Contains(err.Error(), "buffer c lives from launch 9 to 2 of 4") {
		t.Errorf("got %v", err)
	}
}

func stateModel() *plan.Model {
	m := &plan.Model{Name: "m"}
	add := func(name string, ty ir.Type, role ir.Role, decay bool, of *plan.Global) *plan.Global {
		g := &plan.Global{Global: &ir.Global{Name: name, Type: ty, Role: role, Decay: decay}}
		if of != nil {
			g.Of = of.Global
		}
		m.Globals = append(m.Globals, g)
		return g
	}
	step := add("step", ir.T(ir.I32), ir.State, false, nil)
	var ps []*plan.Global
	for i, n := range []int{10, 200, 64, 65} {
		ps = append(ps, add(fmt.Sprintf("p%d", i), ir.T(ir.F32, n), ir.Param, i%2 == 1, nil))
	}
	for _, p := range ps {
		add(p.Name+".m", p.Type, ir.Moment1, false, p)
		add(p.Name+".v", ir.T(ir.UE6M10, p.Type.Shape...), ir.Moment2, false, p)
	}
	b := &plan.Buffer{Name: "@" + step.Name, Type: step.Type, Bytes: 4, Arena: plan.State}
	m.Programs = []*plan.Program{{Name: "train", Buffers: []*plan.Buffer{b}}}
	return m
}

func TestStateArraysRunInParallel(t *testing.T) {
	m := stateModel()
	if err := PlaceState(m); err != nil {
		t.Fatal(err)
	}
	if err := CheckState(m); err != nil {
		t.Fatal(err)
	}
	byName := map[string]*plan.Global{}
	for _, g := range m.Globals {
		byName[g.Name] = g
	}
	at := func(n string) int { return byName[n].Offset }
	// Decayed parameters p1 and p3 lead.
	if at("p1") != 0 || at("p3") <= at("p1") || at("p0") <= at("p3") || at("p2") <= at("p0") {
		t.Errorf("parameters at %d %d %d %d", at("p0"), at("p1"), at("p2"), at("p3"))
	}
	for _, p := range []string{"p0", "p1", "p2", "p3"} {
		e := at(p) / 4
		if at(p+".m") != at("p1.m")+4*e || at(p+".v") != at("p1.v")+2*e {
			t.Errorf("%s is element %d, its moments are at %d and %d", p, e, at(p+".m"), at(p+".v"))
		}
	}
	if b := m.Programs[0].Buffers[0]; b.Offset != at("step") {
		t.Errorf("the program's @step is at %d, the global at %d", b.Offset, at("step"))
	}
}

func TestCheckStateFindsOverlaps(t *testing.T) {
	for want, spoil := range map[string]func(m *plan.Model){
		"overlap at byte":                     func(m *plan.Model) { m.Globals[2].Offset = m.Globals[1].Offset },
		"lie outside the state arena":         func(m *plan.Model) { m.StateBytes -= 64 },
		"is not a multiple of 64":             func(m *plan.Model) { m.Globals[0].Offset += 4 },
		"state buffer @step has 4 bytes at 0": func(m *plan.Model) { m.Programs[0].Buffers[0].Offset = 0 },
		"state buffer @other is no global":    func(m *plan.Model) { m.Programs[0].Buffers[0].Name = "@other" },
	} {
		m := stateModel()
		if err := PlaceState(m); err != nil {
			t.Fatal(err)
		}
		spoil(m)
		if err := CheckState(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestPlaceStateExplainsAnOrphanedMoment(t *testing.T) {
	m := stateModel()
	m.Globals[5].Of = nil
	if err := PlaceState(m); err == nil || !strings.Contains(err.Error(), "@p0.m has role moment1 but belongs to no parameter") {
		t.Errorf("got %v", err)
	}
}
