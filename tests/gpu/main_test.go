package main

import (
	"context"
	"io"
	"math"
	"strings"
	"testing"
)

func TestRoofIsTheSlowerOfArithmeticAndMemory(t *testing.T) {
	p := peaks{TFLOPS: 500, GBPS: 4000}
	product := kernel{Name: "product", Median: 0.4e-3, GFLOP: 100, MB: 40} // 0.2 ms by arithmetic, 0.01 by memory
	sum := kernel{Name: "sum", Median: 0.2e-3, GFLOP: 1, MB: 400}          // 0.1 by memory
	good := kernel{Name: "good", Median: 0.1e-3, MB: 320}                  // 0.08
	if got := p.floor(product); math.Abs(got-0.2) > 1e-12 {
		t.Errorf("the product takes at least %g ms, want 0.2", got)
	}
	if got, want := p.roof([]kernel{product, sum, good}), 0.38/0.7; math.Abs(got-want) > 1e-12 {
		t.Errorf("all are at %g of the roof, want %g", got, want)
	}
	m := &measured{name: "m.p", kernels: []kernel{sum, product, good, sum}}
	var names []string
	for _, b := range slowest([]*measured{m}, p) {
		names = append(names, b.Kernel)
		if b.Kernel == "sum" && (b.Launches != 2 || math.Abs(b.MS-0.4) > 1e-12 || math.Abs(b.Least-0.2) > 1e-12) {
			t.Errorf("%+v, want two launches of 0.4 ms that could take 0.2", b)
		}
	}
	if got := strings.Join(names, " "); got != "sum product" && got != "product sum" {
		t.Errorf("below 70%% are %q, want sum and product", got)
	}
}

// Without PyTorch the peaks are our own.
func TestPeaksWithoutPyTorch(t *testing.T) {
	ours := []*measured{
		{name: "gemm.a", ms: 2, gflop: 1400, kernels: []kernel{{}}},
		{name: "rows.adamw", ms: 3, gflop: 1, kernels: []kernel{{Median: 3e-3, MB: 12_000}}},
	}
	if got, want := peaksOf(ours, nil), (peaks{700, 4000, "Gouache"}); math.Abs(got.TFLOPS-want.TFLOPS) > 1e-9 || math.Abs(got.GBPS-want.GBPS) > 1e-9 || got.By != want.By {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := peaksOf(ours, map[string]peer{"device": {Rate: 789, Copy: 4240}}), (peaks{789, 4240, "PyTorch"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWrongFlagsAreOneLine(t *testing.T) {
	for _, args := range [][]string{{"-nosuch"}, {"more"}, {"-steps", "0"}} {
		if err := run(context.Background(), args, io.Discard, io.Discard); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
