package build

import (
	"fmt"
	"slices"
	"strings"
)

// Target describes one kind of processor that kernels are compiled for.
type Target struct {
	Name     string // as in gouachec -target and runtime/device/cpu
	Triple   string // LLVM's
	CPU      string // llc -mcpu
	Features string // llc -mattr
	Lanes    int    // float32 lanes of a vector register
	MR, NV   int    // register tile of matrix multiplication: MR rows by NV vectors
	KC, MC   int    // its cache block: MC rows of KC elements, which half of the L2 cache holds
	// F16 says that there are multiply-adds of vectors of f16, 2*Lanes at a time, and BF16 that there are dot
	// products of pairs of bf16, summed in f32, which are faster than f32's multiply-adds.
	F16, BF16 bool
	// Special says that it is compiled for where it is named, not by default.
	Special bool
}

// NR is the width in columns of the register tile.
func (t *Target) NR() int { return t.NV * t.Lanes }

// The register tiles leave no accumulator to spill: v4 has 32 registers (28 + 2 + 1), v3 16
// (12 + 2 + 1), arm64 32 (24 + 3 + 1 and room for the next loads). KC and MC were found by
// measurement for v4 (L2 of 1 to 2 MiB), KC scaled to 512 KiB for the others. MC is at least as many
// rows as chunks have, or their right operands would be packed twice.
//
// On arm64 x28 holds Go's g, which signal handlers read in the middle of a kernel.
//
// Those with arithmetic in 16 bits come first, since BestTarget of runtime/device/cpu prefers them. AVX-512 FP16 is
// Intel's since Sapphire Rapids, whose dot products of bf16 take twice the time of f32's multiply-adds; AVX-512 BF16 is AMD's
// since Zen 4. Every Armv8.6 has the dot products, and those made for servers f16 as well.
var targets = []*Target{
	{Name: "x86-64-v4-fp16", Triple: "x86_64-unknown-linux-gnu", CPU: "x86-64-v4", Features: "+avx512fp16", Lanes: 16, MR: 14, NV: 2, KC: 1024, MC: 112, F16: true, Special: true},
	{Name: "x86-64-v4-bf16", Triple: "x86_64-unknown-linux-gnu", CPU: "x86-64-v4", Features: "+avx512bf16", Lanes: 16, MR: 14, NV: 2, KC: 1024, MC: 112, BF16: true, Special: true},
	{Name: "x86-64-v4", Triple: "x86_64-unknown-linux-gnu", CPU: "x86-64-v4", Lanes: 16, MR: 14, NV: 2, KC: 1024, MC: 112},
	{Name: "x86-64-v3", Triple: "x86_64-unknown-linux-gnu", CPU: "x86-64-v3", Lanes: 8, MR: 6, NV: 2, KC: 512, MC: 112},
	{Name: "arm64-v8.6", Triple: "aarch64-unknown-linux-gnu", CPU: "generic", Features: "+reserve-x28,+fullfp16,+bf16", Lanes: 4, MR: 8, NV: 3, KC: 512, MC: 112, F16: true, BF16: true, Special: true},
	{Name: "arm64", Triple: "aarch64-unknown-linux-gnu", CPU: "generic", Features: "+reserve-x28", Lanes: 4, MR: 8, NV: 3, KC: 512, MC: 112},
}

// Defaults returns the targets that are compiled for where none is named.
func Defaults() []*Target {
	return slices.DeleteFunc(Targets(), func(t *Target) bool { return t.Special })
}

// Targets returns the known targets, the most capable first.
func Targets() []*Target { return append([]*Target(nil), targets...) }

// TargetByName finds a target, or says which there are.
func TargetByName(name string) (*Target, error) {
	var names []string
	for _, t := range targets {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("unknown CPU target %q; known are %s", name, strings.Join(names, ", "))
}
