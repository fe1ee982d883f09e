package dump

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ir/text"
)

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// column is one stage of the page.
type column struct {
	stage, does string
	lines       []row
	instrs      int
	same        bool // the text is that of the stage before
}

type row struct {
	depth   int
	text    string
	pos     string
	defines []string
	block   bool
	kernel  string // of a launch
}

// html writes the page of one function: the first that matches, or the train
// function of the first model.
func (in *input) html(path string, w io.Writer) error {
	ms, err := in.build()
	if err != nil {
		return err
	}
	model, fn, err := in.choose(ms)
	if err != nil {
		return err
	}
	only := *in
	only.only = regexp.MustCompile("^" + regexp.QuoteMeta(model+"."+fn) + "$")
	// One model alone, so that a page of a large system takes no longer than
	// it must.
	build := in.build
	only.build = func() ([]*ir.Module, error) {
		ms, err := build()
		for _, m := range ms {
			if m.Name == model {
				return []*ir.Module{m}, err
			}
		}
		return ms, err
	}
	cols, err := only.columns(model, fn)
	if err != nil {
		return err
	}
	s, err := only.plan()
	if err != nil {
		return err
	}
	_, programs, err := only.programs(s)
	if err != nil {
		return err
	}
	cols = append(cols, launches(programs[0]))
	page, err := render(in.name+": "+model+"."+fn, cols, certify(fn, programs[0]))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(page), 0o666); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: %s.%s in %d stages, %s\n", path, model, fn, len(cols), size(len(page)))
	return err
}

func (in *input) choose(ms []*ir.Module) (model, fn string, err error) {
	var names []string
	for _, m := range ms {
		for _, f := range m.Funcs {
			n := m.Name + "." + f.Name
			names = append(names, n)
			if in.only == nil && f.Name == "train" || in.only != nil && in.only.MatchString(n) {
				return m.Name, f.Name, nil
			}
		}
	}
	if in.only != nil {
		return "", "", in.noFunc(names)
	}
	for _, m := range ms {
		for _, f := range m.Funcs {
			return m.Name, f.Name, nil
		}
	}
	return "", "", fmt.Errorf("%s has no functions", in.name)
}

func (in *input) columns(model, fn string) ([]column, error) {
	does := map[string]string{buildStage: "as the model builds it"}
	for _, p := range pipeline.Passes {
		does[p.Name] = p.Does
	}
	var cols []column
	before := ""
	err := in.graphs(pipeline.Passes, func(stage string, ms []*ir.Module) error {
		for _, m := range ms {
			f := m.Func(fn)
			if m.Name != model || f == nil {
				continue
			}
			c := column{stage: stage, does: does[stage], instrs: len(f.Body)}
			now := text.Func(f)
			c.same = now == before
			before = now
			for _, l := range text.Lines(f) {
				r := row{depth: l.Depth, text: l.Text, block: l.Block != nil}
				if l.Instr != nil {
					r.text, _, _ = cutLast(l.Text, " !")
					r.pos = l.Instr.Pos.String()
					for _, v := range l.Instr.Results {
						r.defines = append(r.defines, v.String())
					}
				}
				c.lines = append(c.lines, r)
			}
			cols = append(cols, c)
		}
		return nil
	})
	return cols, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// launches is the column of the program: one launch a line, which opens its
// kernel.
func launches(p *plan.Program) column {
	c := column{stage: "kernels", does: "launches in order; click one for its kernel", instrs: len(p.Launches)}
	open := ""
	for i, l := range p.Launches {
		b := l.Block
		if l.Backward {
			b += " backward"
		}
		if b != open {
			if open != "" {
				c.lines = append(c.lines, row{depth: 0, text: "}"})
			}
			if open = b; b != "" {
				c.lines = append(c.lines, row{depth: 0, text: "block @" + b + " {", block: true})
			}
		}
		depth := 0
		if b != "" {
			depth = 1
		}
		c.lines = append(c.lines, row{depth: depth, text: fmt.Sprintf("%d  %s  %s", i, l.Kernel.Name, l.Values), pos: l.Pos.String(), kernel: l.Kernel.Name, defines: strings.Fields(l.Values)})
	}
	if open != "" {
		c.lines = append(c.lines, row{text: "}"})
	}
	return c
}

var token = regexp.MustCompile(`[%@][A-Za-z0-9_.]+`)

// mark escapes a line and tags the values in it.
func mark(s string) string {
	return token.ReplaceAllStringFunc(html.EscapeString(s), func(v string) string { return "<i>" + v + "</i>" })
}

func render(title string, cols []column, c *certificate) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>%s</title>\n<style>\n%s</style>\n", html.EscapeString(title), pageCSS)
	fmt.Fprintf(&b, "<header><h1>%s</h1><p>click a value or a block to follow it through the stages, click a stage's name to fold it</p>"+
		"<span id=picked></span><span class=key><b class=new>made by this pass</b> <b class=gone>gone after the next</b></span></header>\n<main>\n", html.EscapeString(title))
	kernels := map[string]string{}
	for _, l := range c.program.Launches {
		kernels[l.Kernel.Name] = l.Kernel.String()
	}
	for i, c := range cols {
		class, note := "", fmt.Sprintf("%d instructions", c.instrs)
		var before, after map[string]bool
		switch {
		case i == len(cols)-1:
			note = fmt.Sprintf("%d launches", c.instrs)
		default:
			if i > 0 {
				before = defined(cols[i-1])
			}
			if i+1 < len(cols)-1 {
				after = defined(cols[i+1])
			}
		}
		if c.same {
			class, note = " class=folded", "unchanged"
		}
		fmt.Fprintf(&b, "<section%s><h2><b>%s</b><small>%s</small><em>%s</em></h2><ol>\n", class, c.stage, html.EscapeString(c.does), note)
		if !c.same {
			for _, r := range c.lines {
				line(&b, r, before, after)
			}
		}
		b.WriteString("</ol></section>\n")
	}
	b.WriteString("</main>\n<details><summary>memory</summary>")
	b.WriteString(memorySVG(c))
	b.WriteString("</details>\n")
	js, err := json.Marshal(kernels) // escapes < and >
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "<script>const kernels=%s\n%s</script>\n", js, pageJS)
	return b.String(), nil
}

func defined(c column) map[string]bool {
	d := map[string]bool{}
	for _, r := range c.lines {
		for _, v := range r.defines {
			d[v] = true
		}
	}
	return d
}

// line writes one row; nil maps mark nothing.
func line(b *strings.Builder, r row, before, after map[string]bool) {
	var class []string
	if r.block {
		class = append(class, "block")
	}
	if len(r.defines) > 0 {
		if before != nil && !before[r.defines[0]] {
			class = append(class, "new")
		}
		if after != nil && !after[r.defines[0]] {
			class = append(class, "gone")
		}
	}
	b.WriteString("<li")
	if len(class) > 0 {
		fmt.Fprintf(b, " class=%q", strings.Join(class, " "))
	}
	if r.depth > 0 {
		fmt.Fprintf(b, " style=--d:%d", r.depth)
	}
	if r.kernel != "" {
		fmt.Fprintf(b, " data-k=%q", html.EscapeString(r.kernel))
	}
	b.WriteString(">" + mark(r.text))
	if r.pos != "" && r.pos != "-" {
		b.WriteString("<u>" + html.EscapeString(r.pos) + "</u>")
	}
	b.WriteString("\n")
}
