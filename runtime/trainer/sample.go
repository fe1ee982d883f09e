package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // image prompts
	_ "image/png"
	"os"
	"path/filepath"
	"strings"

	"github.com/gouache-ml/gouache/runtime/disk"
	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/sample"
	"github.com/gouache-ml/gouache/runtime/train"
)

type sampleCommand struct {
	common
	settings
	Caption     []string `sep:"none" placeholder:"TEXT" help:"What to draw; may be given several times."`
	HeldOut     int      `placeholder:"N" help:"Draw N captions that training never showed."`
	Candidates  *string  `short:"n" placeholder:"N" help:"Pictures drawn for each caption; by default sample.candidates."`
	Top         int      `default:"4" help:"Pictures kept of each, the best ranked (${default})."`
	Temperature *string  `placeholder:"X" help:"Below 1 likelier pictures, above 1 more variety; by default sample.temperature."`
	TopK        *string  `placeholder:"K" help:"Draw from the K likeliest tokens, 0 is all; by default sample.top_k."`
	TopP        *string  `placeholder:"P" help:"Draw from the likeliest tokens that together reach P; by default sample.top_p."`
	Likelihood  *string  `placeholder:"X" help:"What a nat of the tokens' log-likelihood adds to a picture's cosine when they are ranked; by default sample.likelihood, where 0 is the contrastive model alone."`
	Seed        *uint64  `placeholder:"N" help:"Another seed gives other pictures; by default the run's."`
	NoRank      bool     `help:"Keep the order of drawing; needs no contrastive model."`
	Prompt      string   `placeholder:"FILE" help:"Picture (PNG or JPEG) whose top rows are given; the rest is drawn."`
	PromptRows  int      `placeholder:"ROWS" help:"Rows of tokens given; by default half."`
	To          string   `placeholder:"DIR" help:"Where pictures go; by default samples in the run's folder."`
}

// overrides are the settings, and the flags that stand for one.
func (c *sampleCommand) overrides() ([]string, error) {
	all, err := c.settings.overrides()
	for _, f := range []struct {
		key  string
		flag *string
	}{{"candidates", c.Candidates}, {"temperature", c.Temperature}, {"top_k", c.TopK}, {"top_p", c.TopP}, {"likelihood", c.Likelihood}} {
		if f.flag != nil {
			all = append(all, "sample."+f.key+"="+*f.flag)
		}
	}
	return all, err
}

func (c *sampleCommand) run(ctx context.Context, a *app) error {
	captions := c.Caption
	if c.HeldOut > 0 {
		held, err := a.heldOut(c.HeldOut)
		if err != nil {
			return err
		}
		captions = append(captions, held...)
	}
	switch {
	case len(captions) == 0:
		return errors.New(`nothing to draw: give -caption "a small red circle", or -held-out N`)
	case c.Top < 1:
		return fmt.Errorf("-top is %d; want at least 1", c.Top)
	case c.PromptRows != 0 && c.Prompt == "":
		return errors.New("-prompt-rows needs -prompt")
	}
	for _, caption := range captions {
		if strings.TrimSpace(caption) == "" {
			return errors.New("-caption is empty; say what to draw")
		}
	}
	o := a.sampleOptions()
	if c.Seed != nil {
		o.Seed = *c.Seed
	}
	if err := o.Check(); err != nil {
		return err
	}
	var given []int32
	if c.Prompt != "" {
		var err error
		if given, err = a.prompt(c.Prompt, c.PromptRows); err != nil {
			return err
		}
	}
	dir := c.To
	if dir == "" {
		dir = filepath.Join(a.cfg.Out, "samples")
	} else if err := os.MkdirAll(dir, 0o777); err != nil { // before the work, which would be lost
		return fmt.Errorf("%w; check -to", err)
	}
	results, err := a.draw(ctx, captions, a.cfg.Sample.Candidates, !c.NoRank, given, o)
	if err != nil {
		return err
	}
	return a.saveSamples(dir, results, c.Top, o)
}

// draw loads the models and draws, with progress.
func (a *app) draw(ctx context.Context, captions []string, n int, rank bool, given []int32, o sample.Options) ([]sample.Result, error) {
	p, done, err := a.pipeline(rank)
	if err != nil {
		return nil, err
	}
	progress := metrics.NewProgress(a.log, "sample", "images", 0, int64(len(captions)*n))
	last := 0
	results, err := p.Draw(ctx, captions, n, given, o, func(now int) {
		progress.Update(int64(now), float64(now-last))
		last = now
	})
	progress.Done()
	if closed := done(); err == nil {
		err = closed
	}
	if errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("sample: %w; nothing is kept of it", train.ErrInterrupted)
	}
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Truncated {
			fmt.Fprintf(a.log, "caption %q is cut: it has more than %d tokens\n", r.Caption, a.sizes.TextLen)
		}
	}
	return results, nil
}

// heldOut lists captions that training never showed.
func (a *app) heldOut(n int) ([]string, error) {
	if a.cfg.Data.Source == "shapes" {
		captions := shapes.HeldOutCaptions(n, a.cfg.Seed)
		if len(captions) < n {
			return nil, fmt.Errorf("there are %d held-out captions, fewer than %d", len(captions), n)
		}
		return captions, nil
	}
	d, err := a.data()
	if err != nil {
		return nil, err
	}
	var captions []string
	for i := uint64(0); len(captions) < n && i < d.Validation.Len(); i++ {
		caption, err := d.Validation.Caption(i)
		var skip *feed.SkipError
		if errors.As(err, &skip) {
			continue
		}
		if err != nil {
			return nil, err
		}
		captions = append(captions, caption)
	}
	if len(captions) < n {
		return nil, fmt.Errorf("%s: %d validation captions, fewer than %d", a.cfg.Data.Source, len(captions), n)
	}
	return captions, nil
}

// prompt encodes a picture and returns the tokens of its top rows.
func (a *app) prompt(path string, rows int) ([]int32, error) {
	if rows == 0 {
		rows = (a.sizes.GridH + 1) / 2
	}
	if rows < 1 || rows > a.sizes.GridH {
		return nil, fmt.Errorf("-prompt-rows is %d; a picture has %d rows of tokens", rows, a.sizes.GridH)
	}
	p, err := readPicture(path, a.sizes.Side)
	if err != nil {
		return nil, err
	}
	var tokens [][]int32
	err = a.with("dvae", func(m train.Model) error {
		if _, err := train.Load(a.cfg.Out, "dvae", m); err != nil {
			return err
		}
		e, err := train.NewEncoder(m)
		if err != nil {
			return err
		}
		tokens, err = e.Encode([]picture.Picture{p})
		return err
	})
	if err != nil {
		return nil, err
	}
	return tokens[0][:rows*a.sizes.GridW], nil
}

// readPicture reads the middle square of a picture, resized to side.
func readPicture(path string, side int) (picture.Picture, error) {
	f, err := os.Open(path)
	if err != nil {
		return picture.Picture{}, disk.Explain(path, err)
	}
	defer f.Close()
	m, _, err := image.Decode(f)
	if err != nil {
		return picture.Picture{}, fmt.Errorf("%s: %w; want PNG or JPEG", path, err)
	}
	b := m.Bounds()
	s := min(b.Dx(), b.Dy())
	if s < 1 {
		return picture.Picture{}, fmt.Errorf("%s: is empty", path)
	}
	left, top := b.Min.X+(b.Dx()-s)/2, b.Min.Y+(b.Dy()-s)/2
	square := picture.Square(make([]uint8, s*s*3), s)
	for y := range s {
		for x := range s {
			r, g, bl, alpha := m.At(left+x, top+y).RGBA()
			for k, v := range []uint32{r, g, bl} {
				square.Pixels[(y*s+x)*3+k] = uint8((v + 0xffff - alpha) >> 8) // over white
			}
		}
	}
	if s == side {
		return square, nil
	}
	return feed.Resize(square, side, side), nil
}

// savedSample is an entry of samples.json.
type savedSample struct {
	Caption       string  `json:"caption"`
	File          string  `json:"file"`
	Rank          int     `json:"rank"`
	Number        int     `json:"candidate"`
	Score         float64 `json:"score"`
	LogLikelihood float64 `json:"log_likelihood"`
	Tokens        []int32 `json:"tokens"`
}

// saveSamples writes the best pictures of each caption, a grid of them all, and
// samples.json.
func (a *app) saveSamples(dir string, results []sample.Result, top int, o sample.Options) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return disk.Explain(dir, err)
	}
	var all []savedSample
	var pictures []picture.Picture
	var captions []string
	for i, r := range results {
		for k, c := range r.Candidates[:min(top, len(r.Candidates))] {
			file := fmt.Sprintf("%03d-%s-%d.png", i+1, slug(r.Caption), k+1)
			if err := c.Picture.Save(filepath.Join(dir, file)); err != nil {
				return err
			}
			all = append(all, savedSample{r.Caption, file, k + 1, c.Number, c.Score, c.LogLikelihood, c.Tokens})
			pictures, captions = append(pictures, c.Picture), append(captions, r.Caption)
		}
	}
	columns := 0
	if kept := min(top, len(results[0].Candidates)); kept > 1 {
		columns = kept
	}
	grid, err := picture.Grid(pictures, captions, picture.GridOptions{Columns: columns})
	if err != nil {
		return err
	}
	if err := grid.Save(filepath.Join(dir, "samples.png")); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(dir, "samples.json"), map[string]any{"options": o, "samples": all}); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d pictures for %d captions in %s\n", len(all), len(results), dir)
	return nil
}

// slug makes a caption fit a file name.
func slug(caption string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(caption))
	return strings.Trim(s[:min(len(s), 48)], "-")
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return disk.Replace(path, append(text, '\n'))
}
