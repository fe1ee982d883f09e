//go:build linux && (amd64 || arm64)

package cpu

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

func newArena(t testing.TB, size int64) *Arena {
	t.Helper()
	a, err := NewArena(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestRunGivesTheSameWithAnyNumberOfWorkers(t *testing.T) {
	l := loadKernels(t)
	k := symbol(t, l, "chunks")
	a := newArena(t, 1<<16)
	a.I64(0, 1)[0] = int64(a.Addr(4096))
	table := []int64{3, 5, 7, 11}
	for _, workers := range []int{1, 2, 3} {
		p := newPool(t, PoolOptions{Workers: workers, Scratch: 100})
		for n := 0; n < 1000; n += 37 {
			out := a.I64(4096, 1000)
			clear(out)
			p.RunDealt(k, a.Addr(0), n, Deal(n%3))
			for c, x := range out {
				want := table[c%4] * int64(c)
				if c >= n {
					want = 0
				}
				if x != want {
					t.Fatalf("%d workers, %d chunks: out[%d] is %d, want %d", workers, n, c, x, want)
				}
			}
		}
	}
}

func TestWorkersHaveTheirOwnScratchAndStack(t *testing.T) {
	l := loadKernels(t)
	a := newArena(t, 4096)
	p := newPool(t, PoolOptions{Workers: 3, Scratch: 8})
	p.Run(symbol(t, l, "stack"), a.Addr(0), 100)
	// The kernel writes for the first chunk of each call. The last calls are for one chunk.
	calls, sums := 0, a.I64(8, 100)
	for c, x := range sums {
		if x != 16383*16384/2 && x != 0 {
			t.Fatalf("chunk %d saw a stack sum of %d", c, x)
		}
		if x != 0 {
			calls++
		}
	}
	if sums[0] == 0 || sums[99] == 0 || calls < 12 || calls > 50 {
		t.Errorf("%d calls for 100 chunks: %v", calls, sums)
	}
	a.I64(0, 1)[0] = int64(a.Addr(8))
	p.Run(symbol(t, l, "chunks"), a.Addr(0), 300)
	total := int64(0)
	for _, s := range p.space {
		total += View[int64](p.scratch, int64(s.scratch-p.scratch.Addr(0)), 1)[0]
	}
	if total != 300 {
		t.Errorf("workers counted %d of 300 chunks", total)
	}
}

func TestDeals(t *testing.T) {
	k := symbol(t, loadKernels(t), "stack")
	a := newArena(t, 4096)
	p := newPool(t, PoolOptions{Workers: 3, Scratch: 8})
	// The kernel writes for the first chunk of each call: where workers' claims begin.
	begin := func(chunks int, deal Deal) (at []int) {
		clear(a.I64(8, 100))
		p.RunDealt(k, a.Addr(0), chunks, deal)
		for c, x := range a.I64(8, 100) {
			if x != 0 {
				at = append(at, c)
			}
		}
		return at
	}
	for _, c := range []struct {
		chunks int
		deal   Deal
		want   []int
	}{
		{100, Equal, []int{0, 34, 68}},
		{12, Equal, []int{0, 4, 8}},
		{2, Equal, []int{0, 1}},
		{12, Long, []int{0, 4, 6, 8, 9, 10, 11}},
		{30, Balanced, []int{0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}},
	} {
		if got := begin(c.chunks, c.deal); !slices.Equal(got, c.want) {
			t.Errorf("%d chunks, deal %d: claims begin at %v, want %v", c.chunks, c.deal, got, c.want)
		}
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	l := loadKernels(t)
	k := symbol(t, l, "chunks")
	a := newArena(t, 4096)
	a.I64(0, 1)[0] = int64(a.Addr(64))
	p := newPool(t, PoolOptions{Workers: 2, Scratch: 8})
	if n := testing.AllocsPerRun(200, func() { p.Run(k, a.Addr(0), 8) }); n != 0 {
		t.Errorf("%v allocations a launch", n)
	}
}

// Kernels hold up a collection but must neither block it for good nor be hurt by its signals.
func TestRunGoesOnDuringCollections(t *testing.T) {
	l := loadKernels(t)
	k := symbol(t, l, "spin")
	a := newArena(t, 4096)
	a.I64(0, 2)[1] = 200_000 // about 0.2 to 1 ms
	p := newPool(t, PoolOptions{Workers: 2, Scratch: 8})
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				stopped <- n
				return
			default:
				runtime.GC()
				n++
			}
		}
	}()
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
		p.Run(k, a.Addr(0), 4)
	}
	close(stop)
	if n := <-stopped; n == 0 {
		t.Error("no collection finished")
	}
}

func BenchmarkCall(b *testing.B) {
	l := loadKernels(b)
	k := symbol(b, l, "chunks")
	a := newArena(b, 4096)
	a.I64(0, 1)[0] = int64(a.Addr(64))
	p := newPool(b, PoolOptions{Workers: 1, Scratch: 8})
	s := p.space[0]
	for b.Loop() {
		call(k, s.stackTop, a.Addr(0), 0, 1, s.scratch)
	}
}

func BenchmarkLaunch(b *testing.B) {
	l := loadKernels(b)
	k := symbol(b, l, "spin")
	a := newArena(b, 4096)
	a.I64(0, 2)[1] = 1000
	p := newPool(b, PoolOptions{Workers: 2, Scratch: 8, Pin: true})
	for b.Loop() {
		p.Run(k, a.Addr(0), 2)
	}
}
