package compiled

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/models/systems"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
	"github.com/gouache-ml/gouache/runtime/trainer"
)

var long = flag.Bool("long", false, "train demo on an emulated GPU with its own batches, and for every target with the least")

// demoModel is a model of demo, how it is compiled and what its training is given.
type demoModel struct {
	name             string // of the test, and in overrides
	model, precision string
	batch, least     int // demo's, and one that the emulator is through with in seconds
	lr, clip         float64
	nn.AdamW
}

// demoModels are demo's models, what takes longest first.
func demoModels() []*demoModel {
	d, r := systems.Demo, trainer.Recipe("demo")
	return []*demoModel{
		{"demo dvae", "dvae", "fp32", d.DVAE.Batch, 1, r.DVAE.LR, r.DVAE.Clip, d.DVAE.Optimizer},
		{"demo prior", "prior", "fp32", d.Prior.Batch, 1, r.Prior.LR, r.Prior.Clip, d.Prior.Optimizer},
		{"demo clip", "clip", "fp32", d.CLIP.Batch, 2, r.CLIP.LR, r.CLIP.Clip, d.CLIP.Optimizer},
		{"demo prior in paper", "prior", "paper", d.Prior.Batch, 1, r.Prior.LR, r.Prior.Clip, d.Prior.Optimizer},
	}
}

// compile makes the model's kernels for a device.
func (d *demoModel) compile(t *testing.T, batch int, device string) *exec.Spec {
	t.Helper()
	demo, err := systems.Lookup("demo")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := system.Choices{Set: []string{fmt.Sprintf("%s.batch=%d", d.model, batch), "precision=" + d.precision}}.Build(demo)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(modules, func(m *ir.Module) bool { return m.Name == d.model })
	if m := modules[i]; !*long { // the other programs aren't run
		m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return f.Name != "train" && f.Name != "average" })
	}
	t.Setenv("GOUACHE_TEST_DEVICE", device)
	spec, err := Compile("demo", modules[i])
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// inputs are those of an update, in the ranges that the program allows.
func (d *demoModel) inputs(t *testing.T, p *exec.Program, update int) map[string][]float64 {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(update), 7))
	scalars := map[string]float64{"lr": d.lr, "clip": d.clip, "update": float64(update), "seed": 12345, "step": float64(update - 1), "tau": 1, "beta": trainer.Recipe("demo").DVAE.Beta}
	in := map[string][]float64{}
	for _, x := range p.Inputs() {
		data := make([]float64, x.Len())
		if x.Name == "images" {
			// Half is noise: the gradient of an absolute difference jumps at 0, and all of a white
			// ground may be next to it.
			pictures := shapes.Source{Seed: 1, Size: x.Shape[1]}
			size := x.Len() / x.Shape[0]
			for i := range x.Shape[0] {
				pixels, _ := pictures.Sample(uint64(update*x.Shape[0] + i))
				for j, v := range pixels {
					data[i*size+j] = (float64(v)/255 + r.Float64()) / 2
				}
			}
		} else if v, ok := scalars[x.Name]; ok {
			data[0] = v
		} else if x.From < x.Below {
			for i := range data {
				data[i] = float64(x.From + r.Int32N(x.Below-x.From))
			}
		} else {
			t.Fatalf("%s has an input %s", p.Name(), &x)
		}
		in[x.Name] = data
	}
	return in
}

// Updates before those that are compared, on this processor: the weights that start as zeros keep
// gradients from whole layers, and moments are zeros at first.
const demoStart = 8

// sameDraws is the largest share of a tensor of 16-bit weights that may be rounded to other numbers,
// since what is rounded is a hair apart. Other random numbers would do that to a third of them.
const sameDraws = 0.2 // 0.106

// Whole updates of demo's models have the same results on an emulated GPU, all checks on, and on this
// processor, from the same weights and moments: losses, both moments, weights, averages and whatever
// else is stored.
//
// Nothing but the batches is smaller than in demo, and they are not with -long, which makes two updates
// of each model: 24 minutes of processor time, so that make test, and the targets after the first, have
// a picture, a caption or two pairs and one update.
//
// The devices are these two whatever GOUACHE_TEST_DEVICE says.
func TestDemoTrainsOnAnEmulatedGPUAsOnAProcessor(t *testing.T) {
	for _, d := range demoModels() {
		run := func(batch, updates int, targets ...string) {
			cpu, gpu := d.compile(t, batch, ""), d.compile(t, batch, "emu")
			for _, target := range targets {
				t.Run(d.name+"/"+target, func(t *testing.T) {
					t.Parallel()
					d.compare(t, open(t, cpu, "", 2), open(t, gpu, target, 1), updates)
				})
			}
		}
		if !*long {
			run(d.least, 1, "sm_90a")
			continue
		}
		run(d.batch, 2, "sm_90a")
		run(d.least, 1, "sm_80", "sm_70")
	}
}

// compare makes updates on two devices.
func (d *demoModel) compare(t *testing.T, cpu, gpu *exec.System, updates int) {
	var models [2]*exec.Model
	for i, s := range []*exec.System{cpu, gpu} {
		var err error
		if models[i], err = s.Model(d.model); err != nil {
			t.Fatal(err)
		}
	}
	first := models[0]
	if err := first.Init(1); err != nil {
		t.Fatal(err)
	}
	train, err := first.Program("train")
	if err != nil {
		t.Fatal(err)
	}
	call := func(m *exec.Model, program string, in map[string][]float64) map[string][]float64 {
		t.Helper()
		out, err := Call(m, program, in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	update := func(m *exec.Model, n int) map[string][]float64 {
		t.Helper()
		out := call(m, "train", d.inputs(t, train, n))
		if m != first {
			return out
		}
		if err := cmp.Or(train.CheckFinite(), first.CheckFinite()); err != nil || out["skipped"][0] != 0 {
			t.Fatalf("update %d on the processor: skipped is %v, %v", n, out["skipped"], err)
		}
		return out
	}
	equate := func() {
		to := models[1].Globals()
		for i, g := range first.Globals() {
			if to[i].Name != g.Name || copy(to[i].Data, g.Data) != len(to[i].Data) {
				t.Fatalf("%s is %s on a GPU", &g, &to[i])
			}
		}
	}
	for i := range demoStart {
		update(first, i+1)
	}
	equate()
	c := comparison{T: t, most: map[string]float64{}, where: map[string]string{}}
	var moves [2]map[string][]float64
	for i := range moves {
		moves[i] = map[string][]float64{}
	}
	for i := range updates {
		n := demoStart + 1 + i
		c.when = fmt.Sprintf("update %d", n)
		want, got := update(first, n), update(models[1], n)
		for _, y := range train.Outputs() {
			c.check(d.name+" results", &y, got[y.Name], want[y.Name])
		}
		for i, m := range models {
			d.move(t, m, n, moves[i])
		}
		onGPU := models[1].Globals()
		for i, g := range first.Globals() {
			got, want := onGPU[i].Float64s(), g.Float64s()
			switch g.Role {
			case exec.RoleParam:
				if g.DType != exec.F32 {
					share := differing(got, want)
					c.note("share of weights rounded otherwise", g.Name, share)
					if share > sameDraws {
						t.Errorf("%s: %.3g of %s are rounded otherwise; are they by other random numbers?", c.when, share, g.Name)
					}
				}
				// AdamW divides a gradient by its size. Where it is nothing but rounding errors, as that of
				// the keys' biases, so is the quotient: compared is what the weights would be without it.
				for i := range got {
					got[i] += moves[1][g.Name][i]
					want[i] += moves[0][g.Name][i]
				}
			case exec.RoleMoment1:
				if largestOf(want) == 0 {
					t.Errorf("%s: no gradient arrives at %s, so nothing is compared", c.when, g.Of)
				}
			}
			c.check(d.name, &g.Tensor, got, want)
		}
	}
	equate()
	c.when = "average"
	decay := map[string][]float64{"decay": {0.9}}
	for _, m := range models {
		call(m, "average", decay)
	}
	onGPU := models[1].Globals()
	for i, g := range first.Globals() {
		c.check("average", &g.Tensor, onGPU[i].Float64s(), g.Float64s())
	}
	for _, what := range slices.Sorted(maps.Keys(c.most)) {
		t.Logf("largest %s: %.3g, %s", what, c.most[what], c.where[what])
	}
}

// move adds to sum how much an update has taken off each weight, by the moments it has left; what decay
// takes isn't in it.
func (d *demoModel) move(t *testing.T, m *exec.Model, update int, sum map[string][]float64) {
	t.Helper()
	get := func(name string) []float64 {
		x, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		return x.Float64s()
	}
	bias1, bias2 := 1/(1-math.Pow(d.Beta1, float64(update))), 1/(1-math.Pow(d.Beta2, float64(update)))
	for _, g := range m.Globals() {
		if g.Role != exec.RoleParam {
			continue
		}
		if sum[g.Name] == nil {
			sum[g.Name] = make([]float64, g.Len())
		}
		m1, m2 := get(g.Name+".m"), get(g.Name+".v")
		for i := range m1 {
			sum[g.Name][i] += d.lr * m1[i] * bias1 / (math.Sqrt(m2[i]*bias2) + d.Eps)
		}
	}
}

// comparison holds tensors against others, within what the table of tolerances allows.
type comparison struct {
	*testing.T
	when  string
	most  map[string]float64 // by what was measured
	where map[string]string
}

// note keeps the largest x of its kind.
func (c *comparison) note(what, tensor string, x float64) {
	if x >= c.most[what] {
		c.most[what], c.where[what] = x, c.when+", "+tensor
	}
}

func (c *comparison) check(what string, x *exec.Tensor, got, want []float64) {
	c.Helper()
	d, err := ir.ParseDType(string(x.DType))
	if err != nil {
		c.Fatal(err)
	}
	// Gradients are far below 1, and their squares farther: the largest magnitude is the measure
	// however small it is.
	size := largestOf(want)
	if size == 0 {
		size = 1
	}
	e := errorOf(scaled(got, 1/size), scaled(want, 1/size))
	if tol := allowed(what, d); !(e <= tol) {
		i := worstElement(got, want)
		c.Errorf("%s, %s: error %.3g, more than %.3g; element %d is %.9g, want %.9g", c.when, x, e, tol, i, got[i], want[i])
	}
	c.note(fmt.Sprintf("error of %s in %s", what, d), x.Name, e)
}

// differing is the share of elements that differ.
func differing(got, want []float64) float64 {
	n := 0
	for i, w := range want {
		if got[i] != w {
			n++
		}
	}
	return float64(n) / float64(len(want))
}

func largestOf(x []float64) float64 {
	size := 0.0
	for _, v := range x {
		size = max(size, math.Abs(v))
	}
	return size
}

func scaled(x []float64, by float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = v * by
	}
	return out
}
