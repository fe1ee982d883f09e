package cpu

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	xcpu "golang.org/x/sys/cpu"
)

// Targets lists the kernel variants this processor can run, the fastest first. Their names are
// those of codegen/cpu: "x86-64-v4" (AVX-512 F, BW, CD, DQ, VL), "x86-64-v3" (AVX2, FMA, BMI),
// "arm64" (NEON, which every arm64 has), and those with arithmetic in 16 bits: "x86-64-v4-fp16" (AVX-512 FP16 too),
// "x86-64-v4-bf16" (AVX-512 BF16, where there is no FP16) and "arm64-v8.6" (f16 vectors and dot products of bf16).
func Targets() []string {
	switch runtime.GOARCH {
	case "amd64":
		x := &xcpu.X86
		v3 := x.HasAVX && x.HasAVX2 && x.HasFMA && x.HasBMI1 && x.HasBMI2 && x.HasPOPCNT && x.HasOSXSAVE
		v4 := v3 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL
		switch {
		case v4 && cpuinfoHas("avx512_fp16"):
			return []string{"x86-64-v4-fp16", "x86-64-v4", "x86-64-v3"}
		case v4 && x.HasAVX512BF16:
			return []string{"x86-64-v4-bf16", "x86-64-v4", "x86-64-v3"}
		case v4:
			return []string{"x86-64-v4", "x86-64-v3"}
		case v3:
			return []string{"x86-64-v3"}
		}
	case "arm64":
		if xcpu.ARM64.HasASIMDHP && hasBF16() {
			return []string{"arm64-v8.6", "arm64"}
		}
		return []string{"arm64"}
	}
	return nil
}

// cpuinfoHas reports whether Linux lists a flag of the first processor. It asks the processor itself no more than
// golang.org/x/sys/cpu does, which doesn't know all.
func cpuinfoHas(flag string) bool {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" {
			return slices.Contains(strings.Fields(value), flag)
		}
	}
	return false
}

// hasBF16 reports whether an arm64 has the dot products of bf16: bit 14 of what Linux calls HWCAP2 (26) among the
// values it hands to a process.
func hasBF16() bool {
	vec, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return false
	}
	for ; len(vec) >= 16; vec = vec[16:] {
		if binary.NativeEndian.Uint64(vec) == 26 {
			return binary.NativeEndian.Uint64(vec[8:])&(1<<14) != 0
		}
	}
	return false
}

// BestTarget picks the fastest variant among those compiled into a program.
func BestTarget(available []string) (string, error) {
	able := Targets()
	for _, t := range able {
		if slices.Contains(available, t) {
			return t, nil
		}
	}
	if len(able) == 0 {
		return "", fmt.Errorf("cpu: this %s processor runs no kernel variant; x86-64-v3 (AVX2, FMA) or arm64 is needed", runtime.GOARCH)
	}
	return "", fmt.Errorf("cpu: kernels are compiled for %s but this processor runs %s; regenerate with -target %s",
		orNone(available), strings.Join(able, ", "), able[0])
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "no target"
	}
	return strings.Join(names, ", ")
}

// Caches returns the sizes in bytes of one core's L1 data cache and L2 cache and of the L3 cache it shares, or 32 KiB,
// 1 MiB and 0 where the system does not tell.
func Caches() (l1, l2, l3 int) {
	l1, l2 = 32<<10, 1<<20
	for i := 0; i < 8; i++ {
		dir := "/sys/devices/system/cpu/cpu0/cache/index" + strconv.Itoa(i) + "/"
		level, kind, size := readWord(dir+"level"), readWord(dir+"type"), readWord(dir+"size")
		n, err := strconv.Atoi(strings.TrimSuffix(size, "K"))
		if err != nil || kind == "Instruction" {
			continue
		}
		switch level {
		case "1":
			l1 = n << 10
		case "2":
			l2 = n << 10
		case "3":
			l3 = n << 10
		}
	}
	return l1, l2, l3
}

func readWord(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
