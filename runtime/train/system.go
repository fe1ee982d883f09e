package train

import (
	"fmt"

	"github.com/gouache-ml/gouache/runtime/exec"
)

// Program is one compiled function; *exec.Program implements it.
type Program interface {
	Run()
	Inputs() []exec.Tensor
	Outputs() []exec.Tensor
	Input(name string) (*exec.Tensor, error)
	Output(name string) (*exec.Tensor, error)
	InputF32(name string) ([]float32, error)
	InputI32(name string) ([]int32, error)
	OutputF32(name string) ([]float32, error)
	OutputI32(name string) ([]int32, error)
}

// Model is one compiled network with its stored tensors, as *exec.Model.
type Model interface {
	Name() string // with the system's: "demo.prior"
	Fingerprint() string
	Select(want func(*exec.Global) bool) []*exec.Global
	Params() int
	Bytes() (state, work int64)
	Init(seed uint64) error
	Programs() []string
	Program(name string) (Program, error)
	Close() error
}

// System is a set of compiled models, as *exec.System.
type System interface {
	Name() string
	Target() string
	Threads() int
	Models() []string
	Model(name string) (Model, error)
	Close() error
}

// Compiled makes a loaded system usable here.
func Compiled(s *exec.System) System { return system{s} }

type system struct{ *exec.System }

func (s system) Model(name string) (Model, error) {
	m, err := s.System.Model(name)
	if err != nil {
		return nil, err
	}
	return model{m}, nil
}

type model struct{ *exec.Model }

func (m model) Program(name string) (Program, error) {
	p, err := m.Model.Program(name)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// shapeOf is the shape of an input, checked to have the rank that the caller knows.
func shapeOf(t *exec.Tensor, rank int) ([]int, error) {
	if len(t.Shape) != rank {
		return nil, fmt.Errorf("%s has %d dimensions, want %d: this trainer knows the models dvae, prior and clip", t, len(t.Shape), rank)
	}
	return t.Shape, nil
}

// setScalar writes an f32 input of one element, if the program has it.
func setScalar(p Program, name string, v float64) error {
	for _, t := range p.Inputs() {
		if t.Name == name {
			x, err := t.F32()
			if err != nil {
				return err
			}
			x[0] = float32(v)
			return nil
		}
	}
	return fmt.Errorf("program has no input %q: this trainer and the compiled model don't fit together, compile the system again", name)
}

// setInt writes an i32 input of one element.
func setInt(p Program, name string, v int64) error {
	x, err := p.InputI32(name)
	if err != nil {
		return err
	}
	x[0] = int32(v)
	return nil
}

// Sizes are the numbers of a system that data and sampling must follow. They are read
// off the shapes of the compiled programs.
type Sizes struct {
	Side         int // of pictures in pixels
	GridW, GridH int // tokens a row, rows
	Codes        int // image vocabulary
	TextLen      int // of the prior
	TextVocab    int
	Parameters   map[string]int // learned numbers, by model
}

// Image is the number of tokens of a picture.
func (s Sizes) Image() int { return s.GridW * s.GridH }

// ReadSizes finds the sizes of a system; it takes the memory of each model for a
// moment.
func ReadSizes(sys System) (Sizes, error) {
	s := Sizes{Parameters: map[string]int{}}
	for _, name := range sys.Models() {
		m, err := sys.Model(name)
		if err != nil {
			return s, err
		}
		s.Parameters[name] = m.Params()
		switch name {
		case "dvae":
			err = s.readDVAE(m)
		case "prior":
			err = s.readPrior(m)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", m.Name(), err)
		}
		if err := m.Close(); err != nil {
			return s, err
		}
	}
	if s.Side == 0 || s.TextLen == 0 {
		return s, fmt.Errorf("%s: it has the models %v, the trainer needs dvae and prior", sys.Name(), sys.Models())
	}
	return s, nil
}

func (s *Sizes) readDVAE(m Model) error {
	p, err := m.Program("encode")
	if err != nil {
		return err
	}
	in, err := p.Input("images")
	if err != nil {
		return err
	}
	out, err := p.Output("tokens")
	if err != nil {
		return err
	}
	image, err := shapeOf(in, 4)
	if err != nil {
		return err
	}
	grid, err := shapeOf(out, 3)
	if err != nil {
		return err
	}
	s.Side, s.GridH, s.GridW = image[1], grid[1], grid[2]
	return nil
}

func (s *Sizes) readPrior(m Model) error {
	p, err := m.Program("prefill")
	if err != nil {
		return err
	}
	in, err := p.Input("text")
	if err != nil {
		return err
	}
	out, err := p.Output("logits")
	if err != nil {
		return err
	}
	text, err := shapeOf(in, 2)
	if err != nil {
		return err
	}
	logits, err := shapeOf(out, 2)
	if err != nil {
		return err
	}
	s.TextLen, s.Codes = text[1], logits[1]
	for _, g := range m.Select(func(g *exec.Global) bool { return g.Name == "embed.token" && len(g.Shape) == 2 }) {
		// Rows: text tokens, one pad for each text position, the start token, image tokens.
		s.TextVocab = g.Shape[0] - s.TextLen - 1 - s.Codes
	}
	if s.TextVocab < 256 {
		return fmt.Errorf("the text vocabulary, read off embed.token, is %d: it needs at least 256, one for every byte", s.TextVocab)
	}
	return nil
}
