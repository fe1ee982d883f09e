package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/glue"
	"github.com/gouache-ml/gouache/codegen/pipeline"
)

// quote is a block of the page and the command before it, "" for generated Go.
type quote struct{ language, command, text string }

func quotes(t *testing.T) []quote {
	t.Helper()
	page, err := os.ReadFile("../architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, ok1 := strings.Cut(string(page), "## From a line of Go to machine code")
	tour, _, ok2 := strings.Cut(tour, "\n## ")
	if !ok1 || !ok2 {
		t.Fatal("the page has no tour")
	}
	var all []quote
	command := ""
	for tour != "" {
		line, rest, _ := strings.Cut(tour, "\n")
		tour = rest
		switch {
		case strings.HasPrefix(line, "    bin/tour "):
			command = strings.TrimSpace(line)
		case strings.HasPrefix(line, "```"):
			text, after, ok := strings.Cut(tour, "```\n")
			if !ok {
				t.Fatalf("a block is not closed: %s", line)
			}
			tour = after
			all = append(all, quote{line[3:], command, text})
			command = ""
		}
	}
	return all
}

// forms are what a change elsewhere may alter without making the page wrong: numbers
// of values, nodes, buffers and launches, hashes of kernels, and places in memory.
var forms = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(%|#)\d+`), "${1}N"},
	{regexp.MustCompile(`_[0-9a-f]{8}\b`), "_H"},
	{regexp.MustCompile(`(k[A-Z][A-Za-z]*?)[0-9A-F][0-9a-f]{7}\b`), "${1}H"},
	{regexp.MustCompile(`(offset|live)=[-0-9:]+`), "$1=N"},
	{regexp.MustCompile(`([ws])( \+ 0x[0-9a-f]+)?([,}])`), "${1}N$3"},
	{regexp.MustCompile(`(\(r, |, l\+?)\d+`), "${1}N"},
	{regexp.MustCompile(`tile\([0-9,]+\) chunks\(\d+\)`), "tile"},
	{regexp.MustCompile(`\.go:\d+`), ".go:N"},
	{regexp.MustCompile(`\s+`), " "},
}

func form(line string) string {
	for _, f := range forms {
		line = f.re.ReplaceAllString(line, f.to)
	}
	return strings.TrimSpace(line)
}

// match looks for a quote in what is printed, and tells the furthest line of it that
// isn't there. "..." stands for any lines, or for the rest of a line's brackets.
func match(text, printed string) string {
	var want, got []string
	for line := range strings.Lines(text) {
		want = append(want, form(line))
	}
	for line := range strings.Lines(printed) {
		got = append(got, form(line))
	}
	furthest := 0
	// here tells whether want[w:] begins at got[g], or, where lines may be skipped, later.
	var here func(w, g int, skip bool) bool
	here = func(w, g int, skip bool) bool {
		furthest = max(furthest, w)
		switch {
		case w == len(want):
			return true
		case want[w] == "...":
			return here(w+1, g, true)
		}
		for ; g < len(got); g++ {
			head, tail, cut := strings.Cut(want[w], "...")
			if (got[g] == want[w] || cut && strings.HasPrefix(got[g], head) && strings.HasSuffix(got[g], tail)) && here(w+1, g+1, false) {
				return true
			}
			if !skip {
				return false
			}
		}
		return false
	}
	if here(0, 0, true) {
		return ""
	}
	return strings.Split(text, "\n")[furthest]
}

func TestThePageQuotesWhatIsPrinted(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "tour")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := map[string]int{}
	for _, q := range quotes(t) {
		if q.command == "" {
			continue
		}
		n[q.language]++
		out, err := exec.Command("sh", "-c", strings.Replace(q.command, "bin/tour", bin, 1)).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", q.command, err, out)
			continue
		}
		switch q.language {
		case "":
			if line := match(q.text, string(out)); line != "" {
				t.Errorf("%s: the page has\n%s\nwhich is not what follows in\n%s", q.command, line, out)
			}
		case "llvm", "asm": // shortened and commented by hand: the instructions must occur
			for line := range strings.Lines(q.text) {
				for _, word := range regexp.MustCompile(`\b(f(add|mul|div|sub)|store|call|v[a-z]+p[sd])\b|@llvm\.\w+`).FindAllString(line, -1) {
					if !strings.Contains(string(out), word) {
						t.Errorf("%s: no %s", q.command, word)
					}
				}
			}
		}
	}
	if n[""] < 5 || n["llvm"] != 1 || n["asm"] != 1 {
		t.Errorf("blocks of commands: %v", n)
	}
}

func TestThePageQuotesTheGeneratedGo(t *testing.T) {
	ms, err := build()
	if err != nil {
		t.Fatal(err)
	}
	sys, err := pipeline.Compile("tour", ms, pipeline.Options{Backend: cpu.Backend{}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := glue.Generate(sys, glue.Options{ImportPath: "example.com/tour"})
	if err != nil {
		t.Fatal(err)
	}
	written := ""
	for _, f := range files {
		if f.Path == "z_prior.go" {
			written = string(f.Data)
		}
	}
	block, err := os.ReadFile("../../models/nn/block.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, q := range quotes(t) {
		if q.language != "go" {
			continue
		}
		n++
		source := written
		if strings.HasPrefix(q.text, "f.Region(") {
			source = string(block)
		}
		if line := match(q.text, source); line != "" {
			t.Errorf("the page has\n%s\nwhich is not what follows where it is from", line)
		}
	}
	if n != 3 {
		t.Errorf("%d blocks of Go, want the model's, the functions and the table", n)
	}
	if t.Failed() {
		i := strings.Index(written, "// priorTrainMlp")
		t.Logf("written is\n%s", written[max(i, 0):][:min(3000, len(written)-max(i, 0))])
	}
}
