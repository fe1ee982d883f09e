package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"text/tabwriter"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/load"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// profile runs the program through the runtime and prints where its time goes.
func (s *session) profile(ctx context.Context) error {
	so, err := s.compile(ctx, s.plan.Kernels)
	if err != nil {
		return err
	}
	spec, err := s.spec(so)
	if err != nil {
		return err
	}
	sys, err := exec.Open(spec, exec.Options{Threads: s.threads, Target: s.variant.Name, Profile: true})
	if err != nil {
		return err
	}
	defer sys.Close()
	m, err := sys.Model(s.model.Name)
	if err != nil {
		return err
	}
	if err := m.Init(1); err != nil {
		return err
	}
	p, err := m.Program(s.prog.Name)
	if err != nil {
		return err
	}
	in, err := s.inputs()
	if err != nil {
		return err
	}
	set := func() {
		for i, t := range p.Inputs() {
			copy(t.Data, in[i])
		}
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.machine.close()
	var whole, inside, waiting, busy []float64
	launches := make([][]float64, len(s.prog.Launches))
	for start, i := time.Now(), -1; i < max(s.count, minSamples) || time.Since(start) < s.budget; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i == 0 {
			sys.Profile().Reset()
		}
		set()
		sys.Profile().Mark("inputs")
		p.ResetProfile()
		_, _, cpu := usage()
		began := time.Now()
		p.Run()
		t := time.Since(began).Seconds()
		_, _, cpu2 := usage()
		if i < 0 { // the first run meets fresh pages and cold caches
			continue
		}
		sys.Profile().Step()
		sum, working := 0.0, 0.0
		for _, l := range p.Profile() {
			launches[l.Launch] = append(launches[l.Launch], l.Total.Seconds())
			sum += l.Total.Seconds()
			working += l.Busy.Seconds() / float64(s.threads)
		}
		whole, inside, busy = append(whole, t), append(inside, sum/t), append(busy, (cpu2-cpu).Seconds())
		waiting = append(waiting, (sum-working)/t)
	}
	if s.trace != "" {
		if err := s.writeTrace(sys.Profile()); err != nil {
			return err
		}
	}
	if s.pprof != "" {
		if err := s.writePprof(func(_ *plan.Program, i int, _ *plan.Launch) float64 { return 1e9 * median(launches[i]) }); err != nil {
			return err
		}
	}
	return s.account(whole, inside, waiting, busy, launches)
}

func (s *session) writeTrace(p *exec.Profile) error {
	f, err := os.Create(s.trace)
	if err != nil {
		return err
	}
	err = p.WriteTrace(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return stat.Quantile(0.5, stat.LinInterp, x, nil)
}

// spec describes the program to the runtime as generated code would.
func (s *session) spec(so []byte) (*exec.Spec, error) {
	model, sys := *s.model, *s.plan
	model.Programs, sys.Models = []*plan.Program{s.prog}, []*plan.Model{&model}
	spec, err := load.Spec(&sys)
	if err != nil {
		return nil, err
	}
	spec.Objects = []exec.Object{{Target: s.variant.Name, Code: so, Scratch: cpu.ScratchBytes(s.plan.Kernels, []*build.Target{s.variant})}}
	return spec, nil
}

// inputs makes contents for the program's inputs: numbers in (0.1, 0.9),
// indices in range; scalars, which are rates and weights, are 1/100.
func (s *session) inputs() ([][]byte, error) {
	limits, err := plan.InputRanges(s.model, s.prog)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var out [][]byte
	for _, b := range s.prog.Inputs {
		data := make([]byte, b.Type.Bytes())
		if b.Type.DType == ir.F32 {
			for i := 0; i < b.Type.Len(); i++ {
				x := 0.1 + 0.8*rng.Float64()
				if b.Type.Len() == 1 {
					x = 0.01
				}
				putF32(data[4*i:], x)
			}
		} else {
			in := plan.Range{Hi: 100}
			if l, ok := limits[b]; ok {
				in = plan.Range{Lo: float64(l.From), Hi: float64(l.Below - 1)}
			}
			random(data, b.Type.DType, in, rng)
		}
		out = append(out, data)
	}
	return out, nil
}

// share is a part of a program's time.
type share struct {
	Program  string  `json:"program"`
	By       string  `json:"by"` // block, kind, kernel or launch
	Name     string  `json:"name"`
	Kind     string  `json:"kind,omitempty"`
	Launches int     `json:"launches"`
	Ms       float64 `json:"ms"` // a run, median
	Share    float64 `json:"share"`
	RoofMs   float64 `json:"roof_ms"` // the same at the roofs of its kernels
	GFLOPs   float64 `json:"gflops"`  // a second
}

// account prints the medians by block, kind of kernel, kernel and launch. Of
// each run it takes the time, the share spent in launches, the share of these in
// which threads wait for others, and the processor time of all threads.
func (s *session) account(whole, inside, waiting, busy []float64, launches [][]float64) error {
	kinds := map[*kern.Kernel]*subject{}
	for _, x := range s.subjects {
		kinds[x.Kernel] = x
	}
	run, sum, roofs := median(whole), 0.0, 0.0
	sections := []string{"block", "kind", "kernel", "launch"}
	parts := make([]map[string]*share, len(sections))
	for i := range parts {
		parts[i] = map[string]*share{}
	}
	var flops int64
	for i, l := range s.prog.Launches {
		t := median(launches[i])
		k := kinds[l.Kernel]
		roof := s.machine.roof(k.FLOPs, k.bytes, working(k.Kernel), k.Chunks).seconds()
		sum, roofs, flops = sum+t, roofs+roof, flops+k.FLOPs
		block := l.Block
		if block == "" {
			block = "-"
		}
		if l.Backward {
			block += " backward"
		}
		for j, name := range []string{block, k.kind, k.Name, fmt.Sprintf("%d %s %s", i, k.Name, l.Pos)} {
			p := parts[j][name]
			if p == nil {
				p = &share{Program: s.program, By: sections[j], Name: name}
				if j > 1 {
					p.Kind = k.kind
				}
				parts[j][name] = p
			}
			p.Launches++
			p.Ms += t * 1e3
			p.RoofMs += roof * 1e3
			p.GFLOPs += float64(k.FLOPs) / 1e9
		}
	}
	if !s.json {
		fmt.Fprintf(s.out, "%s: %d runs of %d launches, median %.1f ms (least %.1f, processor time %.1f); launches account for %.1f%% of a run, %.1f%% are threads that wait for the others' last chunks; %.1f GFLOP/s; at the roofs %.1f ms (%.0f%%)\n",
			s.program, len(whole), len(s.prog.Launches), run*1e3, slices.Min(whole)*1e3, median(busy)*1e3, 100*median(inside), 100*median(waiting), float64(flops)/run/1e9, roofs*1e3, 100*roofs/run)
		if lost := run*float64(s.threads) - median(busy); lost > 0.2*run {
			fmt.Fprintf(s.out, "# the system took the processors away for %.0f%% of the time: compare ratios, not times\n", 100*lost/run/float64(s.threads))
		}
	}
	for j, by := range sections {
		if err := s.section(by, parts[j], sum); err != nil {
			return err
		}
	}
	return nil
}

// section prints the largest parts of one kind, as shares of sum seconds.
func (s *session) section(by string, parts map[string]*share, sum float64) error {
	const most = 40
	var list []*share
	for _, p := range parts {
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Ms != list[j].Ms {
			return list[i].Ms > list[j].Ms
		}
		return list[i].Name < list[j].Name
	})
	w := tabwriter.NewWriter(s.out, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\nms/run\tshare\tat roof\t%%roof\tGFLOP/s\tlaunches\t  %s\n", by)
	for i, p := range list {
		p.Share = p.Ms / 1e3 / sum
		if p.Ms > 0 {
			p.GFLOPs /= p.Ms / 1e3
		}
		if s.json {
			b, err := json.Marshal(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(s.out, "%s\n", b)
			continue
		}
		if i >= most {
			continue
		}
		kind := ""
		if p.Kind != "" {
			kind = " [" + p.Kind + "]"
		}
		roof := "-"
		if p.RoofMs <= p.Ms {
			roof = fmt.Sprintf("%.0f%%", 100*p.RoofMs/p.Ms)
		}
		fmt.Fprintf(w, "%.3f\t%.1f%%\t%.3f\t%s\t%.1f\t%d\t  %s%s\n", p.Ms, 100*p.Share, p.RoofMs, roof, p.GFLOPs, p.Launches, p.Name, kind)
	}
	if s.json {
		return nil
	}
	return w.Flush()
}
