package main

import (
	"bytes"
	"cmp"
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

	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/runtime/flags"
)

type options struct {
	bin, out, python string
	torch            string
	budget           time.Duration
	skip             string
	steps            int
	stdout, diag     io.Writer
}

func main() {
	driver.Command("gpu-check", func(ctx context.Context, args []string, out io.Writer) error { return run(ctx, args, out, os.Stderr) })
}

func run(ctx context.Context, args []string, out, diag io.Writer) error {
	o := options{stdout: out, diag: diag}
	f := flags.Set("gpu-check")
	f.StringVar(&o.bin, "bin", "bin", "`DIR` with compiled.test, parity.test and gpupeers")
	f.StringVar(&o.out, "o", "out/gpu", "`DIR` to write gpu.json, gpu.md and logs to")
	f.StringVar(&o.python, "python", "python3", "`command` that has PyTorch")
	f.StringVar(&o.torch, "torch", "tests/gpu/torch_peers.py", "`script` that times PyTorch; \"\" for none")
	f.DurationVar(&o.budget, "budget", 130*time.Second, "time for PyTorch")
	f.StringVar(&o.skip, "skip", "", "`regexp` of stages to leave out: compiled, parity, gemm, attention, rows, block, step, torch")
	f.IntVar(&o.steps, "steps", 10, "runs of each program that are timed")
	switch err := flags.Parse(f, args, 0, diag); {
	case err == flag.ErrHelp:
		return nil
	case err != nil:
		return err
	case o.steps < 1:
		return fmt.Errorf("-steps must be at least 1")
	}
	return o.run(ctx)
}

// row is a line of the table: milliseconds.
type row struct {
	Name   string  `json:"name"`
	Ours   float64 `json:"ours_ms"`
	Peer   float64 `json:"peer_ms,omitempty"`
	Which  string  `json:"peer,omitempty"`
	Ratio  float64 `json:"speedup,omitempty"` // peer's time by ours
	TFLOPS float64 `json:"tflops,omitempty"`
	Share  float64 `json:"of_roof,omitempty"` // the least time that the measured peaks allow its kernels, by theirs
}

// measured is what is known of a program of ours.
type measured struct {
	name    string
	ms      float64 // the whole run for the step, else the sum of the kernels
	gflop   float64
	kernels []kernel // by launch
}

type kernel struct {
	Name   string
	Median float64 // seconds
	GFLOP  float64
	MB     float64 // that it must move
}

// peaks are measured rates.
type peaks struct {
	TFLOPS float64 `json:"tflops"` // products of bf16 or f16
	GBPS   float64 `json:"gbps"`   // copies, read and written bytes
	By     string  `json:"by"`
}

// floor is the least time for a kernel, in milliseconds.
func (p peaks) floor(k kernel) float64 { return max(k.GFLOP/p.TFLOPS, k.MB/p.GBPS) }

// roof is that of all kernels by what they took.
func (p peaks) roof(ks []kernel) float64 {
	least, took := 0.0, 0.0
	for _, k := range ks {
		least += p.floor(k)
		took += 1e3 * k.Median
	}
	return least / took
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
	var ours []*measured
	for _, m := range []string{"gemm", "attention", "rows", "block", "step"} {
		if !wanted(m) {
			continue
		}
		ms, err := o.bench(ctx, m)
		if err != nil {
			fmt.Fprintf(o.diag, "gpu-check: %s: %v\n", m, err)
			failed++
		}
		ours = append(ours, ms...)
	}
	peers := map[string]peer{}
	if o.torch != "" && wanted("torch") {
		if peers, err = o.pytorch(ctx); err != nil {
			fmt.Fprintf(o.diag, "gpu-check: PyTorch: %v\n", err)
			failed++
		}
	}
	if err := o.table(ours, peers); err != nil {
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
	c := exec.CommandContext(ctx, bin, "-test.v", "-test.timeout=200s", "-test.skip=OnAnEmulatedGPU") // which needs LLVM, and no GPU
	c.Dir = filepath.Join("tests", name)
	c.Env = append(os.Environ(), "GOUACHE_TEST_DEVICE=cuda")
	out, err := c.CombinedOutput()
	os.WriteFile(filepath.Join(o.out, name+".log"), out, 0o644)
	passed, bad := bytes.Count(out, []byte("--- PASS")), bytes.Count(out, []byte("--- FAIL"))
	fmt.Fprintf(o.stdout, "%s: %d tests passed, %d failed, %.0f s\n", name, passed, bad, time.Since(start).Seconds())
	if err != nil {
		lines := strings.Split(string(out), "\n")
		shown := 0
		for _, l := range lines {
			if shown < 40 && regexp.MustCompile(`error|FAIL|panic|fault|want|illegal`).MatchString(l) {
				fmt.Fprintln(o.stdout, "  "+l[:min(len(l), 220)])
				shown++
			}
		}
		fmt.Fprintf(o.stdout, "  %v\n", err)
	}
	return err == nil
}

// bench times all programs of a model of gpupeers; a program's time is the sum
// of its kernels' medians, for the step the whole run.
func (o *options) bench(ctx context.Context, model string) ([]*measured, error) {
	ms, err := o.gpupeers(ctx, model, "-kernels")
	if err != nil {
		return nil, err
	}
	if model == "step" {
		whole, err := o.gpupeers(ctx, model)
		if err != nil {
			return nil, err
		}
		for i, m := range ms {
			m.ms = whole[i].ms
		}
	}
	slices.SortFunc(ms, func(a, b *measured) int { return strings.Compare(a.name, b.name) })
	return ms, nil
}

func (o *options) gpupeers(ctx context.Context, model string, more ...string) ([]*measured, error) {
	args := append([]string{"bench", "-program", model + ".*", "-warmup", "2", "-steps", fmt.Sprint(o.steps)}, more...)
	inputs := map[string][]string{
		"rows": {"classes=8000"},
		"step": {"text=16000", "image=8000", "lr=1e-4", "clip=0", "update=1"},
	}
	for _, in := range inputs[model] {
		args = append(args, "-in", in)
	}
	c := exec.CommandContext(ctx, filepath.Join(o.bin, "gpupeers"), args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	if err := os.WriteFile(filepath.Join(o.out, model+strings.Join(more, "")+".jsonl"), out, 0o644); err != nil {
		return nil, err
	}
	var ms []*measured
	for line := range bytes.Lines(out) {
		var r struct {
			What    string
			Step    struct{ Median float64 } `json:"s_step"`
			GFLOP   float64
			Kernels []kernel
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("what gpupeers printed: %w", err)
		}
		m := &measured{name: r.What, ms: 1e3 * r.Step.Median, gflop: r.GFLOP, kernels: r.Kernels}
		if len(m.kernels) > 0 {
			m.ms = 0
			for _, k := range m.kernels {
				m.ms += 1e3 * k.Median
			}
		}
		ms = append(ms, m)
	}
	return ms, nil
}

type peer struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
	Rate float64 `json:"tflops"`
	GBPS float64 `json:"gbps"`
	Copy float64 `json:"copy_gbps"` // of the row "device"
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

// peaksOf are PyTorch's product and copy, or without it the fastest of our own
// products, and AdamW's bytes.
func peaksOf(ours []*measured, peers map[string]peer) peaks {
	if d := peers["device"]; d.Rate > 0 && d.Copy > 0 {
		return peaks{d.Rate, d.Copy, "PyTorch"}
	}
	p := peaks{1, 1, "Gouache"}
	for _, m := range ours {
		p.TFLOPS = max(p.TFLOPS, m.gflop/m.ms)
		if m.name == "rows.adamw" {
			p.GBPS = m.kernels[0].MB / 1e3 / m.kernels[0].Median
		}
	}
	return p
}

func (o *options) table(ours []*measured, peers map[string]peer) error {
	peak := peaksOf(ours, peers)
	var rows []row
	for _, m := range ours {
		r := row{Name: m.name, Ours: m.ms, TFLOPS: m.gflop / m.ms, Share: peak.roof(m.kernels)}
		for _, alt := range beside(m.name) {
			sum, ok := 0.0, true
			for part := range strings.SplitSeq(alt, " + ") {
				p, has := peers[part]
				sum, ok = sum+p.MS, ok && has
			}
			if ok && (r.Peer == 0 || sum < r.Peer) {
				r.Peer, r.Which = sum, alt
			}
		}
		if r.Peer > 0 {
			r.Ratio = r.Peer / r.Ours
		}
		rows = append(rows, r)
	}
	slow := slowest(ours, peak)
	data, err := json.MarshalIndent(map[string]any{"rows": rows, "peaks": peak, "below_roof": slow}, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "gpu.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	var md bytes.Buffer
	fmt.Fprint(&md, "| what | ours, ms | PyTorch, ms | speedup | TFLOP/s | of the roof | PyTorch's row |\n|---|---|---|---|---|---|---|\n")
	tw := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(o.stdout, "peaks by %s: %.0f TFLOP/s, %.0f GB/s\n", peak.By, peak.TFLOPS, peak.GBPS)
	fmt.Fprintf(tw, "what\tours ms\tPyTorch ms\tspeedup\tTFLOP/s\tof the roof\n")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%.4f\t%.4f\t%.2f\t%.1f\t%.0f%%\n", r.Name, r.Ours, r.Peer, r.Ratio, r.TFLOPS, 100*r.Share)
		fmt.Fprintf(&md, "| %s | %.4f | %.4f | %.2f | %.1f | %.0f%% | %s |\n", r.Name, r.Ours, r.Peer, r.Ratio, r.TFLOPS, 100*r.Share, r.Which)
	}
	fmt.Fprintf(tw, "\nkernels below 70%% of their roof, by what they lose\tlaunches\tms\tat the roof\n")
	fmt.Fprint(&md, "\n| kernel below 70% of its roof | launches | ms | at the roof |\n|---|---|---|---|\n")
	for _, k := range slow[:min(25, len(slow))] {
		fmt.Fprintf(tw, "%s %s\t%d\t%.3f\t%.3f\n", k.Program, k.Kernel, k.Launches, k.MS, k.Least)
		fmt.Fprintf(&md, "| %s %s | %d | %.3f | %.3f |\n", k.Program, k.Kernel, k.Launches, k.MS, k.Least)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "gpu.md"), md.Bytes(), 0o644)
}

// below is a kernel that takes longer than the roof, in milliseconds of a run of
// a program.
type below struct {
	Program  string  `json:"program"`
	Kernel   string  `json:"kernel"`
	Launches int     `json:"launches"`
	MS       float64 `json:"ms"`
	Least    float64 `json:"least_ms"`
}

// slowest are the kernels below 70% of their roof, those that lose most first.
func slowest(ours []*measured, peak peaks) []below {
	var out []below
	for _, m := range ours {
		at := map[string]int{}
		var all []below
		for _, k := range m.kernels {
			i, known := at[k.Name]
			if !known {
				i = len(all)
				at[k.Name] = i
				all = append(all, below{Program: m.name, Kernel: k.Name})
			}
			all[i].Launches++
			all[i].MS += 1e3 * k.Median
			all[i].Least += peak.floor(k)
		}
		for _, b := range all {
			if b.Least < 0.7*b.MS {
				out = append(out, b)
			}
		}
	}
	slices.SortFunc(out, func(a, b below) int { return cmp.Compare(b.MS-b.Least, a.MS-a.Least) })
	return out
}
