package system

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
)

// Choices are what can be chosen when a system is compiled, as a command's flags.
type Choices struct {
	Set       []string `help:"Sizes in place of the system's own, such as prior.batch=4,prior.layers=2." placeholder:"KEY=VALUE"`
	Precision string   `help:"Storage types: fp32, bf16 or paper, with changes such as paper,weights=f32 (default: the system's own)." placeholder:"PRESET"`
	Remat     string   `help:"What gradients compute again instead of keeping it: auto, what is cheap where that saves much memory; cheap, whatever it saves; off, nothing; blocks, all inside resblocks (default: the system's own)." placeholder:"WHAT"`
	Budget    string   `help:"Memory for stored tensors and work of each model, or MODEL=6GiB,... of some: gradients compute again what doesn't fit, at the least cost in time (default: all there is)." placeholder:"6GiB"`
}

// Build makes a system's modules as chosen.
func (c Choices) Build(s System) ([]*ir.Module, error) {
	build := s.Build
	if len(c.Set) > 0 {
		if s.resized == nil {
			return nil, fmt.Errorf("-set %s: the sizes of system %q are in its source alone", c.Set[0], s.Name)
		}
		build = func() ([]*ir.Module, error) { return s.resized(c.Set) }
	}
	ms, err := build()
	if err != nil {
		return nil, err
	}
	return ms, c.Apply(ms)
}

// Apply makes modules be compiled as chosen; their sizes stay what they are.
func (c Choices) Apply(ms []*ir.Module) error {
	if err := SetPrecision(ms, c.Precision); err != nil {
		return err
	}
	if err := SetRemat(ms, c.Remat); err != nil {
		return err
	}
	return SetBudget(ms, c.Budget)
}
