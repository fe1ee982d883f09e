package ir

import (
	"fmt"
	"strings"
)

// Precision says in which types a module's values are stored; the precision
// pass carries it out. The zero value changes nothing. What a preset leaves
// out is f32: the identity path between resblocks, gains, biases, embeddings,
// unembeddings and logits (appendix D.2 of the paper).
type Precision struct {
	// Blocks is the type of the operands and results of matrix products,
	// convolutions and attention inside resblocks, and so of the activations
	// and gradients that are kept there. F32 or Invalid: as declared.
	Blocks DType
	// Outside is the same for products and attention outside resblocks, such as
	// unembeddings. Sums are f32, but logits are rounded to it once; BF16 needs no
	// scaling of gradients. F32 or Invalid, as in the paper: as declared.
	Outside DType
	// Multiply is the type in which those products multiply. F16, for Blocks of F16, also makes short sums in f16, on
	// processors that have instructions for it: faster, with a larger error. F32 or Invalid: as every product.
	Multiply DType
	// Weights is the type of the parameters that only those read. F32 keeps
	// them as declared: a master copy.
	Weights DType
	// Moment1 and Moment2 are those of the weights' moments where they have
	// many elements. F32 or Invalid: as declared.
	Moment1, Moment2 DType
	Scaling          Scaling
	// Exact applies scales as they are. Otherwise the nearest power of two is
	// applied, so that scaling and unscaling never round.
	Exact bool
}

// Scaling is how small gradients are kept from vanishing in 16 bits.
type Scaling string

// The ways: not at all, one scale for the loss, one for every resblock.
const (
	NoScaling       Scaling = ""
	LossScaling     Scaling = "loss"
	ResblockScaling Scaling = "resblock"
)

var presets = []struct {
	name string
	Precision
}{
	{"fp32", Precision{}},
	{"bf16", Precision{Blocks: BF16}},
	{"paper", Precision{Blocks: F16, Weights: F16, Moment1: E6M9, Moment2: UE6M10, Scaling: ResblockScaling}},
}

// ParsePrecision reads the name of a preset (fp32; bf16: operands in bfloat16,
// weights in f32; paper: appendix D) and changes to it, separated by commas:
// blocks=TYPE, outside=TYPE, multiply=f16|f32, weights=TYPE, moments=TYPE+TYPE, scaling=none|loss|resblock,
// scale=exact|power. An example is paper,weights=f32,scaling=loss.
func ParsePrecision(s string) (Precision, error) {
	name, rest, _ := strings.Cut(s, ",")
	var p Precision
	var names []string
	found := false
	for _, x := range presets {
		names = append(names, x.name)
		if x.name == name {
			p, found = x.Precision, true
		}
	}
	if !found {
		return p, fmt.Errorf("unknown precision %q; one of %s", name, strings.Join(names, ", "))
	}
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, ",")
		if err := p.change(part); err != nil {
			return p, fmt.Errorf("precision %s: %w", s, err)
		}
	}
	return p, p.check()
}

func (p *Precision) change(part string) error {
	key, value, _ := strings.Cut(part, "=")
	float := func(d *DType, text string) error {
		v, err := ParseDType(text)
		if err == nil && !v.IsFloat() {
			err = fmt.Errorf("%s is no floating-point type", v)
		}
		*d = v
		return err
	}
	switch key {
	case "blocks":
		return float(&p.Blocks, value)
	case "outside":
		return float(&p.Outside, value)
	case "multiply":
		return float(&p.Multiply, value)
	case "weights":
		return float(&p.Weights, value)
	case "moments":
		a, b, ok := strings.Cut(value, "+")
		if !ok {
			return fmt.Errorf("moments=%s: want two types, such as e6m9+ue6m10", value)
		}
		if err := float(&p.Moment1, a); err != nil {
			return err
		}
		return float(&p.Moment2, b)
	case "scaling":
		switch Scaling(value) {
		case "none":
			p.Scaling = NoScaling
		case LossScaling, ResblockScaling:
			p.Scaling = Scaling(value)
		default:
			return fmt.Errorf("scaling=%s: one of none, loss, resblock", value)
		}
		return nil
	case "scale":
		if value != "exact" && value != "power" {
			return fmt.Errorf("scale=%s: one of exact, power", value)
		}
		p.Exact = value == "exact"
		return nil
	}
	return fmt.Errorf("unknown setting %q; one of blocks, outside, multiply, weights, moments, scaling, scale", key)
}

func (p Precision) check() error {
	if p.Multiply == F16 && p.Blocks != F16 {
		return fmt.Errorf("precision: multiply=f16 wants operands in f16: blocks=f16, or the preset paper")
	}
	for _, x := range []struct {
		what string
		d    DType
		ok   []DType
	}{
		{"blocks", p.Blocks, []DType{Invalid, F32, F16, BF16}},
		{"products outside resblocks", p.Outside, []DType{Invalid, F32, F16, BF16}},
		{"multiplication", p.Multiply, []DType{Invalid, F32, F16}},
		{"weights", p.Weights, []DType{Invalid, F32, F16, BF16}},
		{"first moments", p.Moment1, []DType{Invalid, F32, F16, BF16, E6M9}},
		{"second moments", p.Moment2, []DType{Invalid, F32, F16, BF16, UE6M10}},
	} {
		fits := false
		for _, d := range x.ok {
			fits = fits || d == x.d
		}
		if !fits {
			return fmt.Errorf("precision: %s can't be %s", x.what, x.d)
		}
	}
	return nil
}
