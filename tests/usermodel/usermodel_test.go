package usermodel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

const mod = "github.com/gouache-ml/gouache"

// project copies testdata into a module outside the repository that gets
// Gouache from this working tree and everything else as any module does.
func project(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	gomod := fmt.Sprintf("module example.com/mine\n\ngo 1.26.0\n\nrequire %s v0.0.0\n\nreplace %s => %s\n", mod, mod, root)
	for name, data := range map[string][]byte{"go.mod": []byte(gomod), "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run executes a command in dir without cgo.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "CGO_ENABLED=0", "GOUACHE_TARGET=", "GOUACHE_THREADS=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func TestModelsOutsideTheRepositoryCompileAndLearn(t *testing.T) {
	dir := project(t)
	run(t, dir, "go", "build", "-o", "bin/gouachec", "./gouachec")
	for _, m := range []struct {
		name string
		loss float64 // reached after a few hundred steps
		says string  // in the last line
	}{
		// A model that sees one character only cannot get below 1: in the verse,
		// what follows "fl" or a space has many answers.
		{"language", 0.35, `recites: .*(so they flew through|let us fl|imprisoned so what)`},
		{"classifier", 0.1, `right: 3[012]\d of 320`},
	} {
		t.Run(m.name, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(dir, m.name, m.name+".go"))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(source, []byte("\n")); n >= 60 {
				t.Errorf("declaring the model takes %d lines", n)
			}
			said := run(t, dir, "bin/gouachec", "-system", m.name, "-o", "gen/"+m.name, "-target", cpu.Targets()[0])
			t.Log(strings.TrimSpace(said))
			run(t, dir, "go", "vet", "./"+m.name, "./gen/...", "./train/"+m.name)
			run(t, dir, "go", "build", "-o", "bin/"+m.name, "./train/"+m.name)

			said = run(t, dir, "bin/"+m.name)
			t.Log(said)
			losses := regexp.MustCompile(`step \d+ loss (\S+)`).FindAllStringSubmatch(said, -1)
			if len(losses) < 3 {
				t.Fatalf("no losses in\n%s", said)
			}
			last, err := strconv.ParseFloat(losses[len(losses)-1][1], 64)
			if err != nil || !(last < m.loss) {
				t.Errorf("final loss %v (%v), want below %v", last, err, m.loss)
			}
			if !regexp.MustCompile(m.says).MatchString(said) {
				t.Errorf("no %q in\n%s", m.says, said)
			}

			for _, p := range strings.Fields(run(t, dir, "go", "list", "-deps", "./train/"+m.name)) {
				for _, no := range []string{"codegen", "ir", "ops", "models"} {
					if strings.HasPrefix(p+"/", mod+"/"+no+"/") {
						t.Errorf("the trainer links %s", p)
					}
				}
			}
			static(t, filepath.Join(dir, "bin", m.name))
		})
	}
}

// static fails if a program needs shared libraries.
func static(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil || len(libs) > 0 {
		t.Errorf("%s needs %v (%v)", filepath.Base(path), libs, err)
	}
}

// The compiler's program of a project is five lines besides its imports' names.
func TestCompilerOfAProjectIsShort(t *testing.T) {
	source, err := os.ReadFile("testdata/gouachec/main.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(source)) {
		line = strings.TrimSpace(line)
		if line != "" && line != ")" && line != "import (" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	if n > 5 {
		t.Errorf("%d lines", n)
	}
}

// Each mistake in testdata/wrong is answered by one line: where, what, and the
// operands with their types. The expected text stands beside the mistake.
func TestMistakesAreExplainedAtTheirLine(t *testing.T) {
	source, err := os.ReadFile("testdata/wrong/wrong.go")
	if err != nil {
		t.Fatal(err)
	}
	wantRE := regexp.MustCompile(`// want (".*")`)
	var want []string
	for i, line := range strings.Split(string(source), "\n") {
		if m := wantRE.FindStringSubmatch(line); m != nil {
			text := strings.ReplaceAll(m[1][1:len(m[1])-1], `\"`, `"`)
			want = append(want, fmt.Sprintf(`^wrong\.go:%d: %s`, i+1, text))
		}
	}
	said := strings.Split(strings.TrimSpace(run(t, project(t), "go", "run", "./wrong")), "\n")
	if len(said) != len(want) {
		t.Fatalf("%d lines for %d mistakes:\n%s", len(said), len(want), strings.Join(said, "\n"))
	}
	for i, w := range want {
		if !regexp.MustCompile(w).MatchString(said[i]) {
			t.Errorf("mistake %d:\n got %s\nwant %s", i, said[i], w)
		}
	}
}
