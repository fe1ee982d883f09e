//go:build linux

package memory

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/driver"
	_ "github.com/gouache-ml/gouache/models/systems"
	"github.com/gouache-ml/gouache/runtime/bench"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

const mod = "github.com/gouache-ml/gouache"

// within is how far the measured peak may be from the expected one, which contains
// a constant for the program (exec.ProgramBytes).
const within = 0.03

// Every model of demo trains for some steps in a process of its own, compiled
// with and without a budget. The largest resident set that the system reports
// (VmHWM) is compared with what was said before the first step. The parent can't ask
// for it: its rusage of a child contains its own.
func TestProcessesTakeWhatWasExpected(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gomod := fmt.Sprintf("module example.com/mine\n\ngo 1.26.0\n\nrequire %s v0.0.0\n\nreplace %s => %s\n", mod, mod, root)
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"go.mod": []byte(gomod), "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, flags := range map[string][]string{"whole": nil, "budget": {"-budget", "64MiB"}} {
		args := append([]string{"-system", "demo", "-target", device.Targets()[0], "-o", filepath.Join(dir, name), "-q"}, flags...)
		if err := driver.Run(context.Background(), args, io.Discard); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, "bin", name)
		build := exec.Command("go", "build", "-o", program, "./"+name+"/trainer")
		build.Dir = dir
		build.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, c := range []struct{ model, in string }{
			{"dvae", "seed=1 step=3 update=10"},
			{"prior", "text=500 image=250 update=10"},
			{"clip", "text=500 end=16 update=10"},
		} {
			args := []string{"bench", "-program", c.model + ".train", "-steps", "3", "-threads", "2"}
			for _, in := range strings.Fields(c.in) {
				args = append(args, "-in", in)
			}
			child := exec.Command(program, args...)
			var out, errs bytes.Buffer
			child.Stdout, child.Stderr = &out, &errs
			if err := child.Run(); err != nil {
				t.Fatalf("%s %s: %v: %s", name, c.model, err, errs.String())
			}
			var said bench.Result
			if err := json.Unmarshal(out.Bytes(), &said); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			t.Logf("%s %s.train: expected %.1f MB, the process took %.1f", name, c.model, said.ExpectedMB, said.PeakMB)
			if off := said.PeakMB/said.ExpectedMB - 1; off > within || off < -within {
				t.Errorf("%s %s.train: expected %.1f MB, the process took %.1f, %+.1f%%", name, c.model, said.ExpectedMB, said.PeakMB, 100*off)
			}
		}
	}
}
