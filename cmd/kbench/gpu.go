package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/codegen/load"
	device "github.com/gouache-ml/gouache/runtime/device/cuda"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// variant is a target under the name it was asked for.
type variant struct {
	name string
	*cuda.Target
}

// counted is a kernel on the emulator: what a change of it changes, without a
// GPU.
type counted struct {
	Kernel string `json:"kernel"`
	Target string `json:"target"`
	Blocks int    `json:"blocks"`
	simt.Stats
	Seconds float64 `json:"emulated_s"` // what the emulator took
}

// timed is a kernel on a GPU.
type timed struct {
	Kernel string  `json:"kernel"`
	Target string  `json:"target"`
	Device string  `json:"device"`
	Median float64 `json:"us"`
	TFLOPS float64 `json:"tflops"`
	GBPS   float64 `json:"gbps"` // if every buffer moved once
}

// gpu measures kernels that are compiled for GPUs.
func gpu(ctx context.Context, o options, out, diag io.Writer) error {
	name := o.target
	if name == "" {
		name = cuda.Targets()[0].Name
	}
	var targets []variant
	for n := range strings.SplitSeq(name, ";") {
		t, err := cuda.TargetByName(n)
		if err != nil {
			return err
		}
		targets = append(targets, variant{n, t})
	}
	s := &session{options: o, out: out, diag: diag, backend: cuda.Backend{}}
	if err := s.plans(); err != nil {
		return err
	}
	if o.list {
		return s.list()
	}
	if len(s.subjects) == 0 {
		return fmt.Errorf("system %s: no kernel matches -run %q; kbench -system %s -device %s -list shows their names", s.system, s.options.run, s.system, o.device)
	}
	if o.device == "emu" {
		for _, t := range targets {
			if err := s.emulate(ctx, t); err != nil {
				return err
			}
		}
		return nil
	}
	return s.onGPU(ctx, targets)
}

// emulate counts what each kernel does.
func (s *session) emulate(ctx context.Context, target variant) error {
	tw := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !s.json {
		fmt.Fprintln(tw, "warp instructions\talu\tspecial\tglobal\tshared\tsync\tmma\twgmma\tbank conflicts\tsectors\tideal\t blocks  kernel\t")
	}
	for _, x := range s.subjects {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := fill(x)
		if err != nil {
			fmt.Fprintf(s.diag, "kbench: left out: %v\n", err)
			continue
		}
		k, err := emu.Compile(x.Kernel, target.Target)
		if err != nil {
			return err
		}
		start := time.Now()
		st, err := k.RunBytes(simt.Options{Seed: 1, Count: true}, c.data)
		if err != nil {
			return err
		}
		r := counted{Kernel: x.Name, Target: target.name, Stats: st, Seconds: time.Since(start).Seconds()}
		for _, e := range k.Entries {
			r.Blocks += e.Grid[0] * e.Grid[1] * e.Grid[2]
		}
		if s.json {
			b, err := json.Marshal(r)
			if err != nil {
				return err
			}
			fmt.Fprintf(s.out, "%s\n", b)
			continue
		}
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t %d  %s\t\n", st.Instructions, st.ALU, st.Special, st.Global, st.Shared, st.Sync, st.MMA, st.WGMMA,
			st.Wavefronts-st.WavefrontsIdeal, st.Sectors, st.SectorsIdeal, r.Blocks, x.Name)
	}
	return tw.Flush()
}

// onGPU times each kernel for each target.
func (s *session) onGPU(ctx context.Context, targets []variant) error {
	d, err := device.Open()
	if err != nil {
		return err
	}
	defer d.Close()
	for _, t := range targets {
		if _, err := d.Best([]string{t.Name}); err != nil {
			return err
		}
	}
	tw := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !s.json {
		fmt.Fprintln(s.out, d.Name())
		fmt.Fprintln(tw, "us\tTFLOP/s\tGB/s\t  target\t  kernel\t")
	}
	for _, x := range s.subjects {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := timeAll(d, targets, x, s.budget, func(r *timed) error {
			if s.json {
				b, err := json.Marshal(r)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.out, "%s\n", b)
				return err
			}
			_, err := fmt.Fprintf(tw, "%.2f\t%.2f\t%.0f\t  %s\t  %s\t\n", r.Median, r.TFLOPS, r.GBPS, r.Target, r.Kernel)
			return err
		}); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// timeAll times a kernel as it is compiled for each target.
func timeAll(d *device.Device, targets []variant, x *subject, budget time.Duration, report func(*timed) error) error {
	c, err := fill(x)
	if err != nil {
		return err
	}
	var buffers []uint64
	for i := range x.Bufs {
		addr, err := d.Alloc(int64(len(c.data[i])), false)
		if err != nil {
			return err
		}
		defer d.Free(addr)
		if err := d.Upload(addr, c.data[i]); err != nil {
			return err
		}
		buffers = append(buffers, addr)
	}
	if err := d.Wait(); err != nil {
		return err
	}
	// Assembling takes longer than measuring: all at once.
	loaded := make([][]exec.Call, len(targets))
	codes := make([]exec.Code, len(targets))
	defer func() {
		for _, c := range codes {
			if c != nil {
				c.Close()
			}
		}
	}()
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		text, entries, err := cuda.Text(x.Kernel, t.Target, false)
		if err != nil {
			errs[i] = err
			break
		}
		wg.Go(func() {
			if codes[i], loaded[i], errs[i] = assemble(d, t.Name, text, entries, buffers); errs[i] != nil {
				errs[i] = fmt.Errorf("kernel %s for %s: %w", x.Name, t.name, errs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, t := range targets {
		r, err := timeOne(d, t, x, loaded[i], budget)
		if err != nil {
			return err
		}
		if err := report(r); err != nil {
			return err
		}
	}
	return nil
}

// assemble loads a kernel.
func assemble(d *device.Device, target, text string, entries []cuda.Entry, buffers []uint64) (exec.Code, []exec.Call, error) {
	code, err := d.Load(target, []exec.Part{{Text: text}})
	if err != nil {
		return nil, nil, err
	}
	var calls []exec.Call
	for _, e := range load.Entries(entries) {
		call, err := code.Prepare(&e, buffers)
		if err != nil {
			return code, nil, err
		}
		calls = append(calls, call)
	}
	return code, calls, nil
}

// timeOne times runs of a kernel one after the other, over and over on the same
// buffers, for about the budget.
func timeOne(d *device.Device, target variant, x *subject, calls []exec.Call, budget time.Duration) (*timed, error) {
	ends := make([]time.Duration, len(calls))
	var all []float64
	for start := time.Now(); len(all) < 5 || time.Since(start) < budget && len(all) < 1000; {
		if err := d.Time(calls, ends); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", x.Name, err)
		}
		all = append(all, ends[len(ends)-1].Seconds())
	}
	slices.Sort(all[2:]) // the first are warm-up
	t := all[2:][(len(all)-2)/2]
	return &timed{Kernel: x.Name, Target: target.name, Device: d.Name(), Median: 1e6 * t, TFLOPS: float64(x.FLOPs) / t / 1e12, GBPS: float64(x.bytes) / t / 1e9}, nil
}
