package simt_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

// kernel wraps a body that finds the thread's number in %r1, the addresses of the
// buffers in %rd1 and %rd2, and those of the thread's own word in %rd3 and %rd4.
func kernel(body string) string {
	return `.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 128 .b8 smem[];
.visible .entry k(.param .b64 in, .param .b64 out)
.maxntid 1024, 1, 1
{
	.reg .pred %p<16>;
	.reg .b16 %h<32>;
	.reg .b32 %r<64>;
	.reg .f32 %f<64>;
	.reg .b64 %rd<64>;
	.reg .f64 %fd<16>;
	ld.param.b64 %rd1, [in];
	ld.param.b64 %rd2, [out];
	mov.u32 %r1, %tid.x;
	mad.wide.u32 %rd3, %r1, 4, %rd1;
	mad.wide.u32 %rd4, %r1, 4, %rd2;
` + body + `
	ret;
}
`
}

func parse(t *testing.T, ptx string) *simt.Module {
	t.Helper()
	m, err := simt.Parse(ptx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// words puts numbers into memory.
func words(b *simt.Buffer, v []uint32) {
	for i, x := range v {
		binary.LittleEndian.PutUint32(b.Bytes()[4*i:], x)
	}
	b.Init()
}

func word(b *simt.Buffer, i int) uint32 { return binary.LittleEndian.Uint32(b.Bytes()[4*i:]) }

// launch runs a body on blocks of threads over an input of words and returns the
// output of as many.
func launch(t *testing.T, seed int64, body string, blocks, threads int, in []uint32) ([]uint32, error) {
	t.Helper()
	m := parse(t, kernel(body))
	mach := simt.NewMachine(simt.Options{Seed: seed, Check: true, Count: true, Steps: 1 << 22})
	a, b := mach.Alloc("in", 4*max(len(in), 1)), mach.Alloc("out", 4*blocks*threads)
	words(a, in)
	err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}, Shared: 16384, Params: []any{a.Addr(), b.Addr()}})
	out := make([]uint32, blocks*threads)
	for i := range out {
		out[i] = word(b, i)
	}
	return out, err
}

// launchRoom runs a body on one warp with room for n words of output.
func launchRoom(t *testing.T, body string, in []uint32, n int) ([]uint32, error) {
	t.Helper()
	m := parse(t, kernel(body))
	mach := simt.NewMachine(simt.Options{Check: true})
	a, b := mach.Alloc("in", 4*len(in)), mach.Alloc("out", 4*n)
	words(a, in)
	err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{1, 1, 1}, Block: [3]int{32, 1, 1}, Shared: 16384, Params: []any{a.Addr(), b.Addr()}})
	out := make([]uint32, n)
	for i := range out {
		out[i] = word(b, i)
	}
	return out, err
}

// fault runs a body that must fail, and checks what the report says.
func fault(t *testing.T, kind simt.Kind, says, body string, blocks, threads int) *simt.Fault {
	t.Helper()
	var last *simt.Fault
	for seed := range int64(4) {
		_, err := launch(t, seed, body, blocks, threads, make([]uint32, 256))
		var f *simt.Fault
		if !errors.As(err, &f) {
			t.Fatalf("seed %d: want %s, got %v", seed, kind, err)
		}
		if kind != "" && f.Kind != kind || !strings.Contains(f.Error(), says) {
			t.Fatalf("seed %d: want %s with %q, got %v", seed, kind, says, f)
		}
		if strings.ContainsRune(f.Error(), '\n') {
			t.Fatalf("more than one line: %v", f)
		}
		last = f
	}
	return last
}

// clean runs a body that must not fail.
func clean(t *testing.T, body string, blocks, threads int) {
	t.Helper()
	for seed := range int64(8) {
		if _, err := launch(t, seed, body, blocks, threads, make([]uint32, 256)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}
