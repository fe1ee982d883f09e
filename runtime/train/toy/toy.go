package toy

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/train"
)

// The sizes of the system.
const (
	Side      = 16
	Grid      = 4
	Codes     = 27
	TextLen   = 12
	TextVocab = 300
	Batch     = 6
	patch     = Side / Grid
	image     = Grid * Grid
	stream    = TextLen + image
)

// System is the toy; it implements train.System.
type System struct {
	// Explode makes the gradient of every step from this one on infinite; 0 is never.
	Explode int
	// Kernel differs between versions of the models: it goes into the fingerprint.
	Kernel string

	models map[string]*model
}

// New makes a system with its three models.
func New() *System { return &System{models: map[string]*model{}} }

func (s *System) Name() string     { return "toy" }
func (s *System) Target() string   { return "go" }
func (s *System) Threads() int     { return 1 }
func (s *System) Models() []string { return []string{"dvae", "prior", "clip"} }
func (s *System) Close() error     { return nil }

// Model makes the model anew unless it is open.
func (s *System) Model(name string) (train.Model, error) {
	if m := s.models[name]; m != nil {
		return m, nil
	}
	m := &model{sys: s, name: name, programs: map[string]*program{}}
	switch name {
	case "dvae":
		m.dvae()
	case "prior":
		m.prior()
	case "clip":
		m.clip()
	default:
		return nil, fmt.Errorf("toy: no model %q", name)
	}
	s.models[name] = m
	return m, nil
}

type model struct {
	sys      *System
	name     string
	globals  []exec.Global
	names    []string
	programs map[string]*program
}

func (m *model) Name() string           { return "toy." + m.name }
func (m *model) Fingerprint() string    { return "toy-" + m.name + m.sys.Kernel }
func (m *model) Globals() []exec.Global { return m.globals }
func (m *model) Select(want func(*exec.Global) bool) []*exec.Global {
	var out []*exec.Global
	for i := range m.globals {
		if want(&m.globals[i]) {
			out = append(out, &m.globals[i])
		}
	}
	return out
}
func (m *model) Programs() []string         { return m.names }
func (m *model) Bytes() (state, work int64) { return 4 * int64(m.Params()), 0 }
func (m *model) Close() error               { delete(m.sys.models, m.name); return nil }
func (m *model) Params() int {
	n := 0
	for i := range m.globals {
		if m.globals[i].Role == exec.RoleParam {
			n += m.globals[i].Len()
		}
	}
	return n
}

// Init sets parameters to small random numbers, averages to them, the rest to 0.
func (m *model) Init(seed uint64) error {
	for i := range m.globals {
		x, err := m.globals[i].F32()
		if err != nil {
			return err
		}
		clear(x)
		if m.globals[i].Role == exec.RoleParam {
			r := dice.New(seed, dice.HashString(m.globals[i].Name))
			for k := range x {
				x[k] = float32(r.Float64()-0.5) / 10
			}
		}
	}
	for i := range m.globals {
		if g := &m.globals[i]; g.Role == exec.RoleAverage {
			copy(g.Data, m.global(g.Of).Data)
		}
	}
	return nil
}

func (m *model) Program(name string) (train.Program, error) {
	p := m.programs[name]
	if p == nil {
		return nil, fmt.Errorf("%s: no program %q", m.Name(), name)
	}
	return p, nil
}

func (m *model) global(name string) *exec.Global {
	for i := range m.globals {
		if m.globals[i].Name == name {
			return &m.globals[i]
		}
	}
	return nil
}

// values are the elements of a stored tensor.
func (m *model) values(name string) []float32 {
	x, _ := m.global(name).F32()
	return x
}

func tensor(name string, d exec.DType, shape ...int) exec.Tensor {
	t := exec.Tensor{Name: name, DType: d, Shape: shape}
	words := make([]uint32, t.Len())
	t.Data = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words))
	return t
}

// param adds a parameter with its moments and its average.
func (m *model) param(name string, shape ...int) {
	m.globals = append(m.globals,
		exec.Global{Tensor: tensor(name, exec.F32, shape...), Role: exec.RoleParam},
		exec.Global{Tensor: tensor(name+".m", exec.F32, shape...), Role: exec.RoleMoment1, Of: name},
		exec.Global{Tensor: tensor(name+".avg", exec.F32, shape...), Role: exec.RoleAverage, Of: name})
}

type program struct {
	in, out []exec.Tensor
	run     func()
}

func (m *model) program(name string, in, out []exec.Tensor, run func(p *program)) {
	p := &program{in: in, out: out}
	p.run = func() { run(p) }
	m.programs[name] = p
	m.names = append(m.names, name)
}

func (p *program) Run()                   { p.run() }
func (p *program) Inputs() []exec.Tensor  { return p.in }
func (p *program) Outputs() []exec.Tensor { return p.out }

func find(ts []exec.Tensor, name string) (*exec.Tensor, error) {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i], nil
		}
	}
	return nil, fmt.Errorf("toy: no tensor %q", name)
}

func (p *program) Input(name string) (*exec.Tensor, error)  { return find(p.in, name) }
func (p *program) Output(name string) (*exec.Tensor, error) { return find(p.out, name) }

func elements[T any](ts []exec.Tensor, name string, as func(*exec.Tensor) ([]T, error)) ([]T, error) {
	t, err := find(ts, name)
	if err != nil {
		return nil, err
	}
	return as(t)
}

func (p *program) InputF32(name string) ([]float32, error) {
	return elements(p.in, name, (*exec.Tensor).F32)
}
func (p *program) InputI32(name string) ([]int32, error) {
	return elements(p.in, name, (*exec.Tensor).I32)
}
func (p *program) OutputF32(name string) ([]float32, error) {
	return elements(p.out, name, (*exec.Tensor).F32)
}
func (p *program) OutputI32(name string) ([]int32, error) {
	return elements(p.out, name, (*exec.Tensor).I32)
}

// f and i are the elements of an input or output that is known to exist.
func (p *program) f(name string) []float32 {
	x, err := p.InputF32(name)
	if err != nil {
		x, _ = p.OutputF32(name)
	}
	return x
}

func (p *program) i(name string) []int32 {
	x, err := p.InputI32(name)
	if err != nil {
		x, _ = p.OutputI32(name)
	}
	return x
}

func scalars(names ...string) []exec.Tensor {
	var ts []exec.Tensor
	for _, n := range names {
		ts = append(ts, tensor(n, exec.F32))
	}
	return ts
}

// adam moves one parameter along its momentum, the way the compiled update does.
func (m *model) adam(p *program, name string, gradient []float32) {
	w, mom := m.values(name), m.values(name+".m")
	lr, bias1 := p.f("lr")[0], float32(1/(1-math.Pow(0.9, float64(p.i("update")[0]))))
	for k, g := range gradient {
		mom[k] = 0.9*mom[k] + 0.1*g
		w[k] -= lr * mom[k] * bias1
	}
}

// update ends a train program: it applies the gradients unless they aren't finite.
func (m *model) update(p *program, names []string, gradients ...[]float32) {
	norm := 0.0
	for _, g := range gradients {
		for _, v := range g {
			norm += float64(v) * float64(v)
		}
	}
	norm = math.Sqrt(norm)
	if m.sys.Explode > 0 && p.f("clip")[0] >= 0 && m.steps() >= m.sys.Explode {
		norm = math.Inf(1)
	}
	m.values("steps.count")[0]++
	p.f("grad_norm")[0], p.f("skipped")[0] = float32(norm), 0
	if math.IsInf(norm, 1) {
		p.f("skipped")[0] = 1
		return
	}
	for k, name := range names {
		m.adam(p, name, gradients[k])
	}
}

func (m *model) steps() int { return int(m.values("steps.count")[0]) }

// finish adds the state that lives from step to step, and the average program.
func (m *model) finish() {
	m.globals = append(m.globals, exec.Global{Tensor: tensor("steps.count", exec.F32, 1), Role: exec.RoleState})
	m.program("average", scalars("decay"), nil, func(p *program) {
		decay := p.f("decay")[0]
		for i := range m.globals {
			if g := &m.globals[i]; g.Role == exec.RoleAverage {
				avg, w := m.values(g.Name), m.values(g.Of)
				for k := range avg {
					avg[k] = decay*avg[k] + (1-decay)*w[k]
				}
			}
		}
	})
}

// code is the colour class of a patch: three levels a channel.
func code(images []float32, b, py, px int) int32 {
	mean := patchMean(images, b, py, px)
	c := int32(0)
	for _, v := range mean {
		c = c*3 + min(2, int32(v*3))
	}
	return c
}

func patchMean(images []float32, b, py, px int) (mean [3]float32) {
	for y := range patch {
		for x := range patch {
			for ch := range mean {
				mean[ch] += images[((b*Side+py*patch+y)*Side+px*patch+x)*3+ch] / (patch * patch)
			}
		}
	}
	return mean
}

func (m *model) dvae() {
	m.param("palette", Codes, 3)
	m.finish()
	images := func() exec.Tensor { return tensor("images", exec.F32, Batch, Side, Side, 3) }
	tokens := func() exec.Tensor { return tensor("tokens", exec.I32, Batch, Grid, Grid) }
	encode := func(p *program) {
		in, out := p.f("images"), p.i("tokens")
		for k := range out {
			out[k] = code(in, k/image, k%image/Grid, k%Grid)
		}
	}
	loss := func(p *program) (gradient []float32) {
		encode(p)
		in, w := p.f("images"), m.values("palette")
		gradient = make([]float32, len(w))
		sum := float32(0)
		for k, c := range p.i("tokens") {
			for ch, v := range patchMean(in, k/image, k%image/Grid, k%Grid) {
				e := w[int(c)*3+ch] - v
				gradient[int(c)*3+ch] += e / Batch
				sum += e * e / float32(Batch*image*3)
			}
		}
		p.f("reconstruction")[0], p.f("kl")[0] = sum, 1
		p.f("loss")[0] = sum + p.f("beta")[0]/100
		return gradient
	}
	m.program("train", append(scalars("lr", "clip", "tau", "beta"), tensor("update", exec.I32), images(), tensor("seed", exec.I32), tensor("step", exec.I32)),
		append(scalars("loss", "reconstruction", "kl", "grad_norm", "skipped"), tokens()), func(p *program) {
			g := loss(p)
			noise := dice.New(uint64(p.i("seed")[0]), uint64(p.i("step")[0]))
			for k := range g {
				g[k] += p.f("tau")[0] * float32(noise.Float64()-0.5) / 100
			}
			m.update(p, []string{"palette"}, g)
		})
	m.program("eval", append(scalars("beta"), images()), append(scalars("loss", "reconstruction", "kl", "mse"), tokens()), func(p *program) { loss(p) })
	m.program("encode", []exec.Tensor{images()}, []exec.Tensor{tokens()}, encode)
	m.program("decode", []exec.Tensor{tokens()}, []exec.Tensor{images()}, func(p *program) {
		out, w := p.f("images"), m.values("palette")
		for k := range out {
			b, y, x, ch := k/(Side*Side*3), k/(Side*3)%Side, k/3%Side, k%3
			c := p.i("tokens")[b*image+y/patch*Grid+x/patch]
			out[k] = w[int(c)*3+ch]
		}
	})
}

func softmax(w []float32) []float64 {
	p, sum := make([]float64, len(w)), 0.0
	for i, v := range w {
		p[i] = math.Exp(float64(v))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func (m *model) prior() {
	const rows = TextVocab + TextLen + 1 + Codes
	m.param("embed.token", rows, 1)
	m.param("unigram", image, Codes)
	m.param("follow", Codes, Codes)
	m.finish()
	m.globals = append(m.globals, exec.Global{Tensor: tensor("layer0.cache.k", exec.F32, Batch, stream), Role: exec.RoleState})
	text := func() exec.Tensor { return tensor("text", exec.I32, Batch, TextLen) }
	pictures := func() exec.Tensor { return tensor("image", exec.I32, Batch, image) }
	// row is the logits of image token i after token prev, with the text's shift.
	row := func(i int, prev int32, shift float32) []float32 {
		out := make([]float32, Codes)
		copy(out, m.values("unigram")[i*Codes:])
		for c := range out {
			if i > 0 {
				out[c] += m.values("follow")[int(prev)*Codes+c]
			}
			out[c] += shift * float32(c%3)
		}
		return out
	}
	shift := func(ids []int32) float32 {
		s := float32(0)
		for _, id := range ids {
			s += m.values("embed.token")[id] / TextLen
		}
		return s
	}
	loss := func(p *program) (embed, unigram, follow []float32) {
		unigram, follow = make([]float32, image*Codes), make([]float32, Codes*Codes)
		embed = make([]float32, rows)
		total := 0.0
		for b := range Batch {
			ids := p.i("text")[b*TextLen : (b+1)*TextLen]
			s := shift(ids)
			for i := range image {
				target, prev := p.i("image")[b*image+i], int32(0)
				if i > 0 {
					prev = p.i("image")[b*image+i-1]
				}
				q := softmax(row(i, prev, s))
				total -= math.Log(q[target]) / (Batch * image)
				q[target]--
				for c, g := range q {
					g := float32(g / Batch)
					unigram[i*Codes+c] += g
					if i > 0 {
						follow[int(prev)*Codes+c] += g
					}
					for _, id := range ids {
						embed[id] += g * float32(c%3) / TextLen
					}
				}
			}
		}
		p.f("loss")[0], p.f("image_loss")[0], p.f("text_loss")[0] = float32(total), float32(total), 0
		return embed, unigram, follow
	}
	m.program("train", append(scalars("lr", "clip"), tensor("update", exec.I32), text(), pictures()),
		scalars("loss", "text_loss", "image_loss", "grad_norm", "skipped"), func(p *program) {
			a, b, c := loss(p)
			m.update(p, []string{"embed.token", "unigram", "follow"}, a, b, c)
		})
	m.program("eval", []exec.Tensor{text(), pictures()}, scalars("loss", "text_loss", "image_loss"), func(p *program) { loss(p) })
	// A stream's cache holds its text's shift at the start token's position, and each
	// image token at its own.
	logits := tensor("logits", exec.F32, Batch, Codes) // shared by both programs, as memory of compiled ones is
	first := logits
	first.Shape, first.Data = []int{1, Codes}, logits.Data[:4*Codes]
	m.program("prefill", []exec.Tensor{tensor("text", exec.I32, 1, TextLen), tensor("slot", exec.I32)}, []exec.Tensor{first}, func(p *program) {
		s := shift(p.i("text"))
		m.values("layer0.cache.k")[int(p.i("slot")[0])*stream] = s
		copy(p.f("logits"), row(0, 0, s))
	})
	m.program("decode", []exec.Tensor{tensor("token", exec.I32, Batch), tensor("slot", exec.I32, Batch), tensor("pos", exec.I32)}, []exec.Tensor{logits}, func(p *program) {
		pos, caches := int(p.i("pos")[0]), m.values("layer0.cache.k")
		for b := range Batch {
			caches[b*stream+pos] = float32(p.i("token")[b])
			copy(p.f("logits")[b*Codes:], row(pos-TextLen, p.i("token")[b], caches[int(p.i("slot")[b])*stream]))
		}
	})
}

func (m *model) clip() {
	m.param("text.token", TextVocab, 3)
	m.param("temperature", 1)
	m.finish()
	images := func() exec.Tensor { return tensor("images", exec.F32, Batch, Side, Side, 3) }
	text := func() []exec.Tensor {
		return []exec.Tensor{tensor("text", exec.I32, Batch, TextLen), tensor("end", exec.I32, Batch)}
	}
	features := func() []exec.Tensor { return []exec.Tensor{tensor("features", exec.F32, Batch, 3)} }
	unit := func(v []float32) {
		n := math.Sqrt(float64(v[0]*v[0]+v[1]*v[1]+v[2]*v[2])) + 1e-9
		for k := range v {
			v[k] /= float32(n)
		}
	}
	ofImage := func(p *program, out []float32) {
		clear(out)
		for k, v := range p.f("images") {
			out[k/(Side*Side*3)*3+k%3] += 1 - v
		}
		for b := range Batch {
			unit(out[b*3 : b*3+3])
		}
	}
	ofText := func(p *program, out []float32) {
		clear(out)
		for b := range Batch {
			for k := range int(p.i("end")[b]) + 1 {
				for ch := range 3 {
					out[b*3+ch] += m.values("text.token")[int(p.i("text")[b*TextLen+k])*3+ch]
				}
			}
			unit(out[b*3 : b*3+3])
		}
	}
	loss := func(p *program) []float32 {
		x, t := make([]float32, Batch*3), make([]float32, Batch*3)
		ofImage(p, x)
		ofText(p, t)
		g := make([]float32, TextVocab*3)
		sum := float32(0)
		for b := range Batch {
			for ch := range 3 {
				e := t[b*3+ch] - x[b*3+ch]
				sum += e * e / Batch
				for k := range int(p.i("end")[b]) + 1 {
					g[int(p.i("text")[b*TextLen+k])*3+ch] += e / Batch
				}
			}
		}
		p.f("loss")[0], p.f("accuracy")[0], p.f("scale")[0] = sum, 0, 1
		return g
	}
	m.program("train", append(append(scalars("lr", "clip"), tensor("update", exec.I32), images()), text()...),
		scalars("loss", "accuracy", "scale", "grad_norm", "skipped"), func(p *program) {
			m.update(p, []string{"text.token"}, loss(p))
		})
	m.program("eval", append([]exec.Tensor{images()}, text()...), scalars("loss", "accuracy", "scale"), func(p *program) { loss(p) })
	m.program("embed_image", []exec.Tensor{images()}, features(), func(p *program) { ofImage(p, p.f("features")) })
	m.program("embed_text", text(), features(), func(p *program) { ofText(p, p.f("features")) })
}
