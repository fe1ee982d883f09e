package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/gouache-ml/gouache/"

// leaf is what everything may depend on: compiler and trainer must agree on it
// to the bit.
const leaf = "runtime/format16"

// rules say, for every package below a folder, which of our packages it may
// depend on, directly or not, besides those below the folder itself. The first
// rule whose folder matches counts. A trailing "." stands for one package
// without what is below it.
var rules = []struct {
	folder string
	may    string
	why    string
}{
	{leaf, "", "the formats are the bottom of everything"},
	{"ir.", "", "the graph IR is the bottom of the compiler"},
	{"ir/kern.", "ir.", "kernels need types alone"},
	{"ir/plan.", "ir. ir/kern.", "a plan launches kernels"},
	{"ir", "ir", "the IR knows no op, no pass and no model"},
	{"ops", "ir", "ops are what the IR and code generation have between them"},
	{"models", "ops ir runtime/config. runtime/disk.", "models are written in ops and don't know how they are compiled; sizes are set in the way settings are"},
	{"codegen/graph", "ops ir", "passes see ops by their families"},
	{"codegen/kernel", "ops ir", "lowering sees ops by their families"},
	{"codegen/sched", "ops ir", "placement works for any backend"},
	{"codegen/cpu/internal/jit", "codegen/cpu ir. ir/kern. ir/plan. runtime/device/cpu", "tests run compiled kernels with it"},
	{"codegen/cpu", "ir. ir/kern. ir/plan.", "code generators see kernels, never ops"},
	{"codegen/cuda", "ir. ir/kern. ir/plan. ops/mask.", "code generators see kernels, never ops; on a GPU attention has block tables of its own"},
	{"codegen/load", "codegen/cuda ir ops/mask. runtime", "tools and tests run what they have compiled with it"},
	{"codegen/glue", "ir. ir/kern. ir/plan.", "generated Go follows from the plan alone"},
	{"codegen/pipeline", "codegen/graph codegen/kernel codegen/sched ops ir", "the pass table works for any backend and any model"},
	{"codegen", "codegen ops ir models/system. runtime/device/cpu runtime/config. runtime/disk.", "a compiler of any registered system; of the runtime it knows which kernels this processor runs, and how settings are read"},
	{"runtime", "", "a trainer links no compiler"},
	{"gen", "runtime", "a trainer links no compiler"},
	{"cmd/gouache.", "runtime", "the data tool links no compiler"},
	{"cmd", "codegen runtime models ops ir gen", "commands put things together"},
	{"tests", "codegen runtime models ops ir gen", "tests see everything"},
	{"docs", "codegen runtime models ops ir gen", "examples see everything"},
}

func below(pkg, folder string) bool {
	if one, ok := strings.CutSuffix(folder, "."); ok {
		return pkg == one
	}
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	CgoFiles   []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Imports,Deps,CgoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]pkg{}
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if name, ours := strings.CutPrefix(p.ImportPath, module); ours {
			pkgs[name] = p
		}
	}
	if len(pkgs) < 20 {
		t.Fatalf("go list found %d packages of ours", len(pkgs))
	}
	return pkgs
}

// faults lists what p depends on against the rules.
func faults(name string, p pkg) []string {
	for _, r := range rules {
		if !below(name, r.folder) {
			continue
		}
		var out []string
		for _, dep := range p.Deps {
			d, ours := strings.CutPrefix(dep, module)
			if !ours || below(d, strings.TrimSuffix(r.folder, ".")) && !strings.HasSuffix(r.folder, ".") {
				continue
			}
			allowed := d == leaf
			for _, m := range strings.Fields(r.may) {
				allowed = allowed || below(d, m)
			}
			if !allowed {
				how := "indirectly"
				for _, i := range p.Imports {
					if i == dep {
						how = "directly"
					}
				}
				out = append(out, name+" depends "+how+" on "+d+", but "+r.why)
			}
		}
		return out
	}
	return []string{name + " falls under no rule; add its folder to the table"}
}

func TestImportsGoOneWay(t *testing.T) {
	for name, p := range list(t) {
		for _, f := range faults(name, p) {
			t.Error(f)
		}
	}
}

func TestNothingOfOursNeedsC(t *testing.T) {
	for name, p := range list(t) {
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo in %v; trainers are static binaries", name, p.CgoFiles)
		}
	}
}

func TestRulesFindForbiddenImports(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"ir/text", "ir/kern", ""},
		{"ir", "runtime/format16", ""},
		{"runtime/exec", "runtime/format16", ""},
		{"runtime/format16", "ir", "the bottom"},
		{"ir", "ir/kern", "the bottom"},
		{"ops", "codegen/graph", "ops are"},
		{"models/dvae", "codegen/cpu", "models are"},
		{"models/dvae", "models/nn", ""},
		{"codegen/cpu", "ops", "never ops"},
		{"codegen/cpu", "ir/text", "never ops"},
		{"codegen/cpu", "codegen/cpu/build", ""},
		{"codegen/kernel", "codegen/cpu", "lowering"},
		{"runtime/exec", "ir", "links no compiler"},
		{"gen/demo/trainer", "ir", "links no compiler"},
		{"gen/demo", "runtime/exec", ""},
		{"cmd/gouache", "ops", "links no compiler"},
		{"cmd/gouachec", "models/systems", ""},
		{"elsewhere", "ir", "no rule"},
	} {
		got := strings.Join(faults(c.from, pkg{Deps: []string{module + c.to}}), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s -> %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}
