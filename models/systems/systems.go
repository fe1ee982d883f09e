package systems

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/system"
)

func init() {
	for _, s := range []system.System{
		sized("demo", "32x32 images of 8x8 tokens; trains on two CPU cores", Demo),
		sized("deep", "demo's pictures under 48 narrow layers in 16 bits; see tests/precision", Deep),
		sized("emoji", "64x64 images of 16x16 tokens; for one GPU", Emoji),
		sized("paper", "256x256 images of 32x32 tokens; the paper's sizes", Paper),
		{Name: "peers", Doc: "models timed beside other programs; see tests/peers", Build: buildPeers, Runner: "github.com/gouache-ml/gouache/runtime/bench"},
		{Name: "gpupeers", Doc: "kernels and models timed beside PyTorch on a GPU; see tests/gpu", Build: buildGPUPeers, Runner: "github.com/gouache-ml/gouache/runtime/bench"},
	} {
		if s.Runner == "" {
			s.Runner = "github.com/gouache-ml/gouache/runtime/trainer"
		}
		if err := system.Register(s); err != nil {
			panic(err) // two entries of this table share a name
		}
	}
}

func sized(name, doc string, sizes Sizes) system.System {
	return system.Sized(system.System{Name: name, Doc: doc}, sizes, Sizes.Build)
}

// Lookup finds a registered system, including those of other packages; the
// error lists the names there are.
func Lookup(name string) (system.System, error) { return system.Lookup(name) }

// Names lists the registered systems, sorted.
func Names() []string { return system.Names() }

// Build makes the modules dvae, prior and, if there is one, clip, after checking that the sizes
// fit together.
func (s Sizes) Build() ([]*ir.Module, error) {
	d, p, c := s.DVAE, s.Prior, s.CLIP
	switch {
	case d.Grid() != p.GridW || d.Grid() != p.GridH:
		return nil, fmt.Errorf("the dvae makes %[1]dx%[1]d tokens, the prior takes %dx%d", d.Grid(), p.GridW, p.GridH)
	case d.Codebook != p.ImageVocab:
		return nil, fmt.Errorf("the dvae has %d codes, the prior's image vocabulary is %d", d.Codebook, p.ImageVocab)
	case c == (clip.Config{}):
	case d.ImageSize != c.ImageSize:
		return nil, fmt.Errorf("the dvae's images are %d wide, the contrastive model's %d", d.ImageSize, c.ImageSize)
	case p.TextVocab != c.TextVocab:
		return nil, fmt.Errorf("the prior's text vocabulary is %d, the contrastive model's %d; both read one tokenizer", p.TextVocab, c.TextVocab)
	}
	dm, err := dvae.Build(d)
	if err != nil {
		return nil, err
	}
	pm, err := dalle.Build(p)
	if err != nil {
		return nil, err
	}
	if err := system.SetPrecision([]*ir.Module{pm}, s.Precision); err != nil {
		return nil, err
	}
	if c == (clip.Config{}) {
		return []*ir.Module{dm, pm}, nil
	}
	cm, err := clip.Build(c)
	if err != nil {
		return nil, err
	}
	return []*ir.Module{dm, pm, cm}, nil
}

// Params counts the parameters of m whose names begin with prefix.
func Params(m *ir.Module, prefix string) int {
	n := 0
	for _, g := range m.Globals {
		if g.Role == ir.Param && strings.HasPrefix(g.Name, prefix) {
			n += g.Type.Len()
		}
	}
	return n
}
