package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// minVersion is the oldest LLVM that compiles our IR as measured; newer ones are accepted.
const minVersion = 19

// Env names the environment variable with the folder to take llc and ld.lld from.
const Env = "GOUACHE_LLVM"

// Tools is an installation of LLVM.
type Tools struct {
	LLC, LLD string // paths of the programs
	Version  string // such as "19.1.7"
	CacheDir string // of compiled modules; empty for none
}

// Find looks for llc and ld.lld in $GOUACHE_LLVM, if set, or else among the commands and in
// Debian's folders, with and without a version in their names. It enables the cache in the
// user's cache directory.
func Find() (*Tools, error) {
	dir := os.Getenv(Env)
	t := &Tools{}
	var err error
	if t.LLC, t.Version, err = find(dir, "llc"); err != nil {
		return nil, err
	}
	if t.LLD, _, err = find(dir, "ld.lld"); err != nil {
		return nil, err
	}
	if c, err := os.UserCacheDir(); err == nil {
		t.CacheDir = filepath.Join(c, "gouache", "objects")
	}
	return t, nil
}

// find returns the first program of that name which is new enough.
func find(dir, name string) (path, version string, err error) {
	var candidates []string
	for v := minVersion; v < minVersion+6; v++ {
		candidates = append(candidates, fmt.Sprintf("%s-%d", name, v))
	}
	candidates = append(candidates, name)
	if dir == "" {
		for v := minVersion; v < minVersion+6; v++ {
			candidates = append(candidates, fmt.Sprintf("/usr/lib/llvm-%d/bin/%s", v, name))
		}
	}
	old := ""
	for _, c := range candidates {
		if dir != "" {
			c = filepath.Join(dir, c)
		}
		p, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		v, err := versionOf(p)
		if err != nil {
			return "", "", err
		}
		if major, _ := strconv.Atoi(strings.SplitN(v, ".", 2)[0]); major >= minVersion {
			return p, v, nil
		}
		if old == "" {
			old = fmt.Sprintf("%s: %s is LLVM %s, %d or later is needed", name, p, v, minVersion)
		}
	}
	what := name + ": not found"
	if dir != "" {
		what += " in " + Env + "=" + dir
	}
	if old != "" {
		what = old
	}
	return "", "", fmt.Errorf("%s; install LLVM %d (apt-get install llvm-%d lld-%d) or set %s to its bin folder", what, minVersion, minVersion, minVersion, Env)
}

var versionRE = regexp.MustCompile(`(?:LLVM version|LLD) (\d+[0-9.]*)`)

func versionOf(path string) (string, error) {
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: does not run: %v; set %s to the bin folder of LLVM %d", path, err, Env, minVersion)
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s: prints no LLVM version; set %s to the bin folder of LLVM %d", path, Env, minVersion)
	}
	return string(m[1]), nil
}

// Module is one unit of compilation.
type Module struct {
	Name string // for messages
	Text string // LLVM assembly
}

// Compile compiles modules for target and links them, in the order given, into one shared
// object. Functions with hidden visibility are resolved between the modules.
func (t *Tools) Compile(ctx context.Context, target *build.Target, modules []Module) ([]byte, error) {
	if len(modules) == 0 {
		return nil, errors.New("no modules to compile")
	}
	dir, err := os.MkdirTemp("", "gouache-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(modules))
	objects := make([]string, len(modules))
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	for i, m := range modules {
		objects[i] = fmt.Sprintf("%d.o", i)
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			obj, err := t.object(ctx, target, m)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, objects[i]), obj, 0o666)
			}
			if err != nil {
				errs[i] = err
				cancel()
			}
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	args := append([]string{"-shared", "--strip-all", "--build-id=none", "--hash-style=gnu", "--no-undefined", "-Bsymbolic",
		"-z", "noexecstack", "-z", "defs", "-o", "k.so"}, objects...)
	cmd := exec.CommandContext(ctx, t.LLD, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("internal: linking kernels for %s: %s", target.Name, message(out, err))
	}
	return os.ReadFile(filepath.Join(dir, "k.so"))
}

// Assembly compiles one module to assembly text, for people to read.
func (t *Tools) Assembly(ctx context.Context, target *build.Target, m Module) (string, error) {
	b, err := t.llc(ctx, target, m, "asm")
	return string(b), err
}

// object returns the module's relocatable object, from the cache if it can.
func (t *Tools) object(ctx context.Context, target *build.Target, m Module) ([]byte, error) {
	if t.CacheDir == "" {
		return t.llc(ctx, target, m, "obj")
	}
	h := sha256.New()
	for _, s := range append(flags(target, "obj"), t.Version, m.Text) {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	key := hex.EncodeToString(h.Sum(nil))
	path := filepath.Join(t.CacheDir, key[:2], key+".o")
	if b, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(b), "\x7fELF") {
		return b, nil
	}
	b, err := t.llc(ctx, target, m, "obj")
	if err != nil {
		return nil, err
	}
	// A cache that cannot be written only costs time.
	_ = writeFile(path, b)
	return b, nil
}

// writeFile replaces path in one step, so that other processes never read half of it.
func writeFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func flags(target *build.Target, filetype string) []string {
	// Loop strength reduction takes a third of llc's time and gives loops with many streams
	// worse addresses than they come with (docs/decisions.md).
	a := []string{"-O3", "-disable-lsr", "-mtriple=" + target.Triple, "-mcpu=" + target.CPU, "-relocation-model=pic", "-filetype=" + filetype}
	if target.Features != "" {
		a = append(a, "-mattr="+target.Features)
	}
	return a
}

// llc compiles from standard input to standard output, so that no path gets into the object.
func (t *Tools) llc(ctx context.Context, target *build.Target, m Module, filetype string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, t.LLC, append(flags(target, filetype), "-o", "-", "-")...)
	cmd.Stdin = strings.NewReader(m.Text)
	var out, diag strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("internal: %s: llc for %s: %s", m.Name, target.Name, message([]byte(diag.String()), err))
	}
	return []byte(out.String()), nil
}

// message is the first line a tool printed, or else how it ended.
func message(out []byte, err error) string {
	for _, line := range strings.Split(string(out), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return err.Error()
}
