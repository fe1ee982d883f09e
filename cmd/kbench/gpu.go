package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	device "github.com/gouache-ml/gouache/runtime/device/cuda"
	"github.com/gouache-ml/gouache/runtime/exec"
)

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
	target, err := cuda.TargetByName(name)
	if err != nil {
		return err
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
		return s.emulate(ctx, target)
	}
	return s.onGPU(ctx, target)
}

// emulate counts what each kernel does.
func (s *session) emulate(ctx context.Context, target *cuda.Target) error {
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
		k, err := emu.Compile(x.Kernel, target)
		if err != nil {
			return err
		}
		start := time.Now()
		st, err := k.RunBytes(simt.Options{Seed: 1, Count: true}, c.data)
		if err != nil {
			return err
		}
		r := counted{Kernel: x.Name, Target: target.Name, Stats: st, Seconds: time.Since(start).Seconds()}
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

// onGPU times each kernel.
func (s *session) onGPU(ctx context.Context, target *cuda.Target) error {
	d, err := device.Open()
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Best([]string{target.Name}); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if !s.json {
		fmt.Fprintf(s.out, "%s, %s\n", d.Name(), target.Name)
		fmt.Fprintln(tw, "us\tTFLOP/s\tGB/s\t  kernel\t")
	}
	for _, x := range s.subjects {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := timeOne(d, target, x, s.budget)
		if err != nil {
			return err
		}
		if s.json {
			b, err := json.Marshal(r)
			if err != nil {
				return err
			}
			fmt.Fprintf(s.out, "%s\n", b)
			continue
		}
		fmt.Fprintf(tw, "%.2f\t%.2f\t%.0f\t  %s\t\n", r.Median, r.TFLOPS, r.GBPS, r.Kernel)
	}
	return tw.Flush()
}

// timeOne times runs of a kernel one after the other, over and over on the same
// buffers, for about the budget.
func timeOne(d *device.Device, target *cuda.Target, x *subject, budget time.Duration) (*timed, error) {
	c, err := fill(x)
	if err != nil {
		return nil, err
	}
	text, entries, err := cuda.Text(x.Kernel, target, false)
	if err != nil {
		return nil, err
	}
	code, err := d.Load([]string{text})
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", x.Name, err)
	}
	defer code.Close()
	var buffers []uint64
	for i := range x.Bufs {
		addr, err := d.Alloc(int64(len(c.data[i])), false)
		if err != nil {
			return nil, err
		}
		defer d.Free(addr)
		if err := d.Upload(addr, c.data[i]); err != nil {
			return nil, err
		}
		buffers = append(buffers, addr)
	}
	if err := d.Wait(); err != nil {
		return nil, err
	}
	var calls []exec.Call
	for _, e := range entries {
		xe := exec.Entry{Name: e.Name, Grid: e.Grid, Block: e.Block, Shared: e.Shared, Cluster: e.Cluster, Args: e.Args}
		for _, m := range e.Maps {
			xe.Maps = append(xe.Maps, exec.TensorMap{Arg: m.Arg, Offset: m.Offset, DType: exec.DType(m.DType.String()), Dims: m.Dims, Strides: m.Strides, Box: m.Box, Swizzle: m.Swizzle})
		}
		call, err := code.Prepare(&xe, buffers)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
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
	return &timed{Kernel: x.Name, Target: target.Name, Device: d.Name(), Median: 1e6 * t, TFLOPS: float64(x.FLOPs) / t / 1e12, GBPS: float64(x.bytes) / t / 1e9}, nil
}
