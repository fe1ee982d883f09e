package trainer

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

type trainCommand struct {
	common
	Resume  bool     `help:"Go on from the latest snapshots."`
	Profile bool     `help:"Measure every launch, and write profile.txt and trace.json (for ui.perfetto.dev) beside the snapshots."`
	Args    []string `arg:"" optional:"" name:"model|key=value" help:"dvae, prior, clip or all (the default), and settings."`
}

func (c *trainCommand) profiled() bool { return c.Profile }

// split separates the models from the settings.
func (c *trainCommand) split() (models, settings []string) {
	for _, arg := range c.Args {
		if strings.Contains(arg, "=") {
			settings = append(settings, arg)
		} else {
			models = append(models, arg)
		}
	}
	return models, settings
}

func (c *trainCommand) overrides() ([]string, error) {
	models, settings := c.split()
	for _, m := range models {
		if m != "all" && !slices.Contains(stages, m) {
			return nil, fmt.Errorf("argument %q: want %s or all, or key=value", m, strings.Join(stages, ", "))
		}
	}
	return settings, nil
}

func (c *trainCommand) run(ctx context.Context, a *app) error {
	a.resume = c.Resume
	models, _ := c.split()
	if len(models) == 0 || slices.Contains(models, "all") {
		models = stages
	}
	fmt.Fprintf(a.log, "# %s: %s, %d threads\n%s\n", a.sys.Name(), a.target(), a.sys.Threads(), a.text)
	for _, name := range stages { // in order, whatever the order asked for
		if !slices.Contains(models, name) || !a.has(name) {
			continue
		}
		if err := a.trainStage(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

type encodeCommand struct {
	common
	settings
}

func (c *encodeCommand) run(ctx context.Context, a *app) error {
	training, validation, dvae, err := a.encode(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "encoded %d pictures for training and %d for validation with dvae %.12s\n", training.Len(), validation.Len(), dvae)
	return nil
}
