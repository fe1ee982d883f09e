package ptxas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Env names the environment variable with the path of ptxas.
const Env = "GOUACHE_PTXAS"

// Tool is an installed ptxas.
type Tool struct{ Path string }

// Find looks for ptxas in $GOUACHE_PTXAS, if set, or else among the commands.
func Find() (*Tool, error) {
	name := os.Getenv(Env)
	if name == "" {
		name = "ptxas"
	}
	return At(name)
}

// At is the tool at a path, or among the commands.
func At(name string) (*Tool, error) {
	p, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s: not found; .ci/ptxas.sh fetches it, then set %s to its path", name, Env)
	}
	if p, err = filepath.Abs(p); err != nil {
		return nil, err
	}
	return &Tool{Path: p}, nil
}

// Report is what ptxas says about a kernel.
type Report struct {
	Entry                   string
	Registers               int
	Stack                   int      // bytes of local memory
	SpillStores, SpillLoads int      // bytes
	Shared                  int      // bytes of shared memory, without the dynamic
	Serialized              []string // warnings that wgmma runs one by one
}

var (
	compiling  = regexp.MustCompile(`Compiling entry function '([^']+)'`)
	properties = regexp.MustCompile(`Function properties for '?([\w$]+)`)
	frame      = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	registers  = regexp.MustCompile(`Used (\d+) registers`)
	smem       = regexp.MustCompile(`(\d+)(?:\+\d+)? bytes smem`)
	function   = regexp.MustCompile(`function '([^']+)'`)
)

// Assemble runs ptxas for arch, such as sm_90a, and gives its reports by
// kernel. The error is ptxas's own message.
func (t *Tool) Assemble(text, arch string) (map[string]*Report, error) {
	_, out, err := t.run(context.Background(), text, arch)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// Binary is the cubin that ptxas makes of text for arch. The error is ptxas's own message.
func (t *Tool) Binary(ctx context.Context, text, arch string) ([]byte, error) {
	cubin, _, err := t.run(ctx, text, arch)
	return cubin, err
}

// run gives the cubin and what ptxas prints. It gets relative names, so that neither tells of the
// folder.
func (t *Tool) run(ctx context.Context, text, arch string) (cubin []byte, report string, err error) {
	dir, err := os.MkdirTemp("", "gouache-ptxas-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "k.ptx"), []byte(text), 0o666); err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, t.Path, "-v", "-arch="+arch, "-o", "k.cubin", "k.ptx")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	if said := strings.TrimSpace(string(out)); err != nil && said != "" {
		err = errors.New(said)
	}
	if err != nil {
		return nil, "", fmt.Errorf("ptxas for %s: %w", arch, err)
	}
	cubin, err = os.ReadFile(filepath.Join(dir, "k.cubin"))
	return cubin, string(out), err
}

// parse reads the output of ptxas -v.
func parse(out string) (map[string]*Report, error) {
	reports := map[string]*Report{}
	of := func(entry string) *Report {
		if reports[entry] == nil {
			reports[entry] = &Report{Entry: entry, Registers: -1, Stack: -1}
		}
		return reports[entry]
	}
	var cur *Report
	for _, line := range strings.Split(out, "\n") {
		if m := compiling.FindStringSubmatch(line); m != nil {
			cur = of(m[1])
		}
		if m := properties.FindStringSubmatch(line); m != nil {
			cur = of(m[1])
		}
		if strings.Contains(line, "serialized") {
			m := function.FindStringSubmatch(line)
			if m == nil {
				return nil, fmt.Errorf("ptxas: which function is %q about?", line)
			}
			of(m[1]).Serialized = append(of(m[1]).Serialized, strings.TrimSpace(line))
		}
		if cur == nil {
			continue
		}
		if m := frame.FindStringSubmatch(line); m != nil {
			cur.Stack, cur.SpillStores, cur.SpillLoads = number(m[1]), number(m[2]), number(m[3])
		}
		if m := registers.FindStringSubmatch(line); m != nil {
			cur.Registers = number(m[1])
		}
		if m := smem.FindStringSubmatch(line); m != nil {
			cur.Shared = number(m[1])
		}
	}
	if len(reports) == 0 {
		return nil, errors.New("ptxas reports no kernel")
	}
	for _, r := range reports {
		if r.Registers < 0 || r.Stack < 0 {
			return nil, fmt.Errorf("ptxas reports no registers or stack of %s", r.Entry)
		}
	}
	return reports, nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// Check finds what makes a kernel slow in ways that no author wants: registers
// in local memory, and products that wait for each other.
func (r *Report) Check() error {
	switch {
	case r.SpillStores+r.SpillLoads > 0:
		return fmt.Errorf("%s: spills %d bytes and reads %d of them back", r.Entry, r.SpillStores, r.SpillLoads)
	case r.Stack > 0:
		return fmt.Errorf("%s: has a stack frame of %d bytes", r.Entry, r.Stack)
	case len(r.Serialized) > 0:
		return fmt.Errorf("%s: %s", r.Entry, r.Serialized[0])
	}
	return nil
}
