package metrics

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"io"
	"strings"
	"unicode"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// Report is a page of sections, written as one HTML file that loads nothing else.
type Report struct {
	Title    string
	Subtitle string
	Sections []Section
}

// Section is a heading with blocks under it.
type Section struct {
	Title  string
	Blocks []Block
}

// Block is one of [Text], [Figures], [Chart], [HeatMap], [Images] and [Table].
type Block interface{ kind() string }

// Text is prose, paragraphs separated by empty lines; Mono keeps it as it is, for
// configurations and logs.
type Text struct {
	Body string
	Mono bool
}

// Figures are a few large numbers in a row.
type Figures []Figure

// Figure is one of them: "validation loss", "3.412", "nats per token".
type Figure struct {
	Label, Value, Note string
}

// Images is a grid of PNG images.
type Images struct {
	Title   string
	Items   []Image
	Width   int  // of each on the page in pixels; 0 for 160
	Smooth  bool // interpolate when enlarging; pixels stay square by default
	Caption string
}

// Image is one picture with its caption and badges.
type Image struct {
	PNG     []byte
	Caption string
	Badges  []Badge
}

// Badge is a short verdict on an image: {"rank 1", Good}.
type Badge struct {
	Text    string
	Verdict Verdict
}

// Verdict colours a badge.
type Verdict int

const (
	Plain Verdict = iota
	Good
	Warn
	Bad
)

// String is the verdict's class in the style sheet.
func (v Verdict) String() string {
	switch v {
	case Good:
		return "good"
	case Warn:
		return "warn"
	case Bad:
		return "bad"
	}
	return "plain"
}

// Table is rows of text under column heads; columns of numbers align right.
type Table struct {
	Title   string
	Columns []string
	Rows    [][]string
	Caption string
}

func (Text) kind() string    { return "text" }
func (Figures) kind() string { return "figures" }
func (Chart) kind() string   { return "chart" }
func (HeatMap) kind() string { return "heat" }
func (Images) kind() string  { return "images" }
func (Table) kind() string   { return "table" }

// EncodePNG is the PNG of an image, for Image.PNG.
func EncodePNG(img image.Image) ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

//go:embed report.html
var reportPage string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"kind":       func(b Block) string { return b.kind() },
	"paragraphs": paragraphs,
	"anchor":     anchor,
	"numeric":    numeric,
	"data": func(p []byte) template.URL {
		return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(p))
	},
	"cell": func(t Table, row []string, i int) string {
		if i < len(row) {
			return row[i]
		}
		return ""
	},
}).Parse(reportPage))

// Write writes the page. Nothing in it depends on the time: the same report gives
// the same bytes.
func (r Report) Write(w io.Writer) error { return reportTemplate.Execute(w, r) }

// Save writes the page to a file, replacing an older one in one step.
func (r Report) Save(path string) error {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return disk.Replace(path, b.Bytes())
}

func paragraphs(body string) []string {
	var out []string
	for _, p := range strings.Split(body, "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return '-'
	}, title)
}

// numeric says for each column whether all its cells begin like numbers.
func numeric(t Table) []bool {
	out := make([]bool, len(t.Columns))
	for i := range out {
		seen := false
		out[i] = true
		for _, row := range t.Rows {
			if i >= len(row) || row[i] == "" || row[i] == "-" {
				continue
			}
			seen = true
			c := strings.TrimLeft(row[i], "+-−.<~ ")
			if c == "" || c[0] < '0' || c[0] > '9' {
				out[i] = false
			}
		}
		out[i] = out[i] && seen
	}
	return out
}
