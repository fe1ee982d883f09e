package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

type options struct {
	bin, out, python string
	torch            string
	budget           time.Duration
	skip             string
	steps            int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`DIR` with compiled.test, parity.test and gpupeers")
	flag.StringVar(&o.out, "o", "out/gpu", "`DIR` to write gpu.json, gpu.md and logs to")
	flag.StringVar(&o.python, "python", "python3", "Python with PyTorch")
	flag.StringVar(&o.torch, "torch", "tests/gpu/torch_peers.py", "script that times PyTorch; \"\" for none")
	flag.DurationVar(&o.budget, "budget", 130*time.Second, "time for PyTorch")
	flag.StringVar(&o.skip, "skip", "", "`RE` of stages to leave out: compiled, parity, gemm, attention, rows, block, step, torch")
	flag.IntVar(&o.steps, "steps", 10, "runs of each program that are timed")
	flag.Parse()
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "gpu-check: %v\n", err)
		os.Exit(1)
	}
}

// row is a line of the table: milliseconds.
type row struct {
	Name   string  `json:"name"`
	Ours   float64 `json:"ours_ms"`
	Peer   float64 `json:"peer_ms,omitempty"`
	Which  string  `json:"peer,omitempty"`
	Ratio  float64 `json:"speedup,omitempty"` // peer's time by ours
	TFLOPS float64 `json:"tflops,omitempty"`
	Share  float64 `json:"of_peak,omitempty"` // of the measured product rate or bandwidth
}

func (o *options) run(ctx context.Context) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	skip, err := regexp.Compile("^(" + o.skip + ")$")
	if err != nil {
		return fmt.Errorf("-skip: %w", err)
	}
	wanted := func(stage string) bool { return !skip.MatchString(stage) }
	failed := 0
	for _, t := range []string{"compiled", "parity"} {
		if wanted(t) && !o.test(ctx, t) {
			failed++
		}
	}
	ours := map[string]float64{}
	gflop := map[string]float64{}
	for _, m := range []string{"gemm", "attention", "rows", "block", "step"} {
		if !wanted(m) {
			continue
		}
		if err := o.bench(ctx, m, ours, gflop); err != nil {
			fmt.Fprintf(os.Stderr, "gpu-check: %s: %v\n", m, err)
			failed++
		}
	}
	peers := map[string]peer{}
	if o.torch != "" && wanted("torch") {
		if peers, err = o.pytorch(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "gpu-check: PyTorch: %v\n", err)
			failed++
		}
	}
	if err := o.table(ours, gflop, peers); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d stages failed", failed)
	}
	return nil
}

// test runs the tests of a package on the GPU, in the package's folder.
func (o *options) test(ctx context.Context, name string) bool {
	start := time.Now()
	bin, err := filepath.Abs(filepath.Join(o.bin, name+".test"))
	if err != nil {
		return false
	}
	c := exec.CommandContext(ctx, bin, "-test.v", "-test.timeout=200s")
	c.Dir = filepath.Join("tests", name)
	c.Env = append(os.Environ(), "GOUACHE_TEST_DEVICE=cuda")
	out, err := c.CombinedOutput()
	os.WriteFile(filepath.Join(o.out, name+".log"), out, 0o644)
	passed, bad := bytes.Count(out, []byte("--- PASS")), bytes.Count(out, []byte("--- FAIL"))
	fmt.Printf("%s: %d tests passed, %d failed, %.0f s\n", name, passed, bad, time.Since(start).Seconds())
	if err != nil {
		lines := strings.Split(string(out), "\n")
		shown := 0
		for _, l := range lines {
			if shown < 40 && regexp.MustCompile(`error|FAIL|panic|fault|want|illegal`).MatchString(l) {
				fmt.Println("  " + l[:min(len(l), 220)])
				shown++
			}
		}
		fmt.Printf("  %v\n", err)
	}
	return err == nil
}

// bench times all programs of a model of gpupeers; times are the sum of the
// medians of a program's kernels, in milliseconds, for the step the whole run.
func (o *options) bench(ctx context.Context, model string, ours, gflop map[string]float64) error {
	args := []string{"bench", "-program", model + ".*", "-warmup", "2", "-steps", fmt.Sprint(o.steps)}
	inputs := map[string][]string{
		"rows": {"classes=8000"},
		"step": {"text=16000", "image=8000", "lr=1e-4", "clip=0", "update=1"},
	}
	for _, in := range inputs[model] {
		args = append(args, "-in", in)
	}
	whole := model == "step"
	if !whole {
		args = append(args, "-kernels")
	}
	c := exec.CommandContext(ctx, filepath.Join(o.bin, "gpupeers"), args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	os.WriteFile(filepath.Join(o.out, model+".jsonl"), out, 0o644)
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		var r struct {
			What    string
			Step    struct{ Median float64 } `json:"s_step"`
			GFLOP   float64
			Kernels []struct {
				Name   string
				Median float64
			}
		}
		if json.Unmarshal(sc.Bytes(), &r) != nil {
			continue
		}
		ms := 1e3 * r.Step.Median
		if !whole {
			ms = 0
			for _, k := range r.Kernels {
				ms += 1e3 * k.Median
			}
		}
		ours[r.What], gflop[r.What] = ms, r.GFLOP
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return nil
}

type peer struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
	Rate float64 `json:"tflops"`
	GBPS float64 `json:"gbps"`
}

func (o *options) pytorch(ctx context.Context) (map[string]peer, error) {
	c := exec.CommandContext(ctx, o.python, o.torch, "--out", filepath.Join(o.out, "torch.jsonl"), "--budget", fmt.Sprint(int(o.budget.Seconds())), "--grace", "20")
	c.Env = append(os.Environ(), "PYTHONUNBUFFERED=1")
	log, err := os.Create(filepath.Join(o.out, "torch.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, io.Writer(log)
	runErr := c.Run()
	data, err := os.ReadFile(filepath.Join(o.out, "torch.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("%w (%v)", err, runErr)
	}
	peers := map[string]peer{}
	for line := range bytes.Lines(data) {
		var p peer
		if json.Unmarshal(line, &p) == nil && p.MS > 0 {
			peers[p.Name] = p
		}
	}
	return peers, nil
}

// beside names PyTorch's rows for a program of ours: the fastest of the
// alternatives counts, a + b is a sum.
func beside(name string) []string {
	model, program, _ := strings.Cut(name, ".")
	switch model {
	case "gemm":
		form, size, _ := strings.Cut(program, "_")
		return []string{"gemm_" + size + "_" + strings.ToUpper(form)}
	case "attention":
		mask, train := strings.CutSuffix(program, "_train")
		suffix := "_fwd"
		if train {
			suffix = "_fwdbwd"
		}
		kinds := []string{mask}
		if mask == "column" {
			kinds = []string{"colt", "colraster"}
		}
		var out []string
		for _, k := range kinds {
			out = append(out, "attn_flex_"+k+"_bs128"+suffix, "attn_flex_"+k+"_bs64"+suffix)
		}
		return out
	case "rows":
		switch {
		case strings.HasPrefix(program, "layer_norm_"):
			n := "ln_10240x" + strings.TrimPrefix(program, "layer_norm_")
			return []string{n + "_compile", n + "_eager"}
		case strings.HasPrefix(program, "cross_entropy_"):
			return []string{"ce_" + strings.TrimPrefix(program, "cross_entropy_") + "_fp16"}
		}
		return []string{"adamw_fused_500m"}
	case "block":
		return []string{"block_mlp_d1920_fwdbwd + block_attn_row_d1920_fwdbwd"}
	}
	return []string{"step_16L_d1920_b8", "step_16L_d1920_b8_wholeblock"}
}

func (o *options) table(ours, gflop map[string]float64, peers map[string]peer) error {
	peak := peers["device"].Rate
	var rows []row
	for _, name := range order(ours) {
		r := row{Name: name, Ours: ours[name]}
		if r.Ours > 0 {
			r.TFLOPS = gflop[name] / r.Ours
		}
		if peak > 0 {
			r.Share = r.TFLOPS / peak
		}
		for _, alt := range beside(name) {
			sum, ok := 0.0, true
			for part := range strings.SplitSeq(alt, " + ") {
				p, has := peers[part]
				sum, ok = sum+p.MS, ok && has
			}
			if ok && (r.Peer == 0 || sum < r.Peer) {
				r.Peer, r.Which = sum, alt
			}
		}
		if r.Peer > 0 && r.Ours > 0 {
			r.Ratio = r.Peer / r.Ours
		}
		rows = append(rows, r)
	}
	data, err := json.MarshalIndent(map[string]any{"rows": rows, "peak_tflops": peak}, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "gpu.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	var md bytes.Buffer
	fmt.Fprint(&md, "| what | ours, ms | PyTorch, ms | speedup | TFLOP/s | PyTorch's row |\n|---|---|---|---|---|---|\n")
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "what\tours ms\tPyTorch ms\tspeedup\tTFLOP/s\tof peak\n")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.4f\t%.4f\t%.2f\t%.1f\t%.0f%%\n", r.Name, r.Ours, r.Peer, r.Ratio, r.TFLOPS, 100*r.Share)
		fmt.Fprintf(&md, "| %s | %.4f | %.4f | %.2f | %.1f | %s |\n", r.Name, r.Ours, r.Peer, r.Ratio, r.TFLOPS, r.Which)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "gpu.md"), md.Bytes(), 0o644)
}

// order lists the programs, model by model.
func order(ours map[string]float64) []string {
	var out []string
	for _, m := range []string{"gemm", "attention", "rows", "block", "step"} {
		var names []string
		for n := range ours {
			if strings.HasPrefix(n, m+".") {
				names = append(names, n)
			}
		}
		out = append(out, sorted(names)...)
	}
	return out
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
