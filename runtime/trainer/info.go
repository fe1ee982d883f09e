package trainer

import (
	"context"
	"errors"
	"fmt"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/train"
)

type infoCommand struct {
	common
	settings
}

func (c *infoCommand) run(_ context.Context, a *app) error {
	s := a.sizes
	fmt.Fprintf(a.out, "system   %s, kernels for %s, %d threads\n", a.sys.Name(), a.target(), a.sys.Threads())
	fmt.Fprintf(a.out, "machine  %s\n", metrics.ReadHardware())
	fmt.Fprintf(a.out, "sizes    pictures %dx%d, %dx%d tokens of %d codes, %d text tokens of %d\n", s.Side, s.Side, s.GridW, s.GridH, s.Codes, s.TextLen, s.TextVocab)
	for _, name := range a.sys.Models() {
		err := a.with(name, func(m train.Model) error {
			state, work := m.Bytes()
			fmt.Fprintf(a.out, "\n%s: %d parameters, %s stored, %s work memory\n", name, m.Params(), metrics.FormatBytes(state), metrics.FormatBytes(work))
			if n := arenas(m); n > 0 {
				fmt.Fprintf(a.out, "  resident in training: %s of that in whole pages, %s for the program, and its data\n", metrics.FormatBytes(n), metrics.FormatBytes(exec.ProgramBytes))
			}
			for _, program := range m.Programs() {
				p, err := m.Program(program)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "  %s\n", program)
				in, out := p.Inputs(), p.Outputs()
				for i := range in {
					fmt.Fprintf(a.out, "    takes  %s\n", &in[i])
				}
				for i := range out {
					fmt.Fprintf(a.out, "    gives  %s\n", &out[i])
				}
			}
			t, err := train.Inspect(a.cfg.Out, name)
			switch {
			case errors.Is(err, train.ErrUntrained):
				fmt.Fprintf(a.out, "  not trained in %s\n", a.cfg.Out)
			case err != nil:
				return err
			default:
				fmt.Fprintf(a.out, "  trained for %d steps in %s, weights %.12s\n", t.Step, train.StageDir(a.cfg.Out, name), t.Weights)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(a.out, "\n# settings\n%s", a.text)
	return nil
}
