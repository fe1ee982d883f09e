package cpu

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func newPool(t testing.TB, o PoolOptions) *Pool {
	t.Helper()
	p, err := NewPool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestRunFuncDoesEachChunkOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		p := newPool(t, PoolOptions{Workers: workers})
		for round := 0; round < 300; round++ {
			n := round % 40
			count := make([]int32, n)
			p.RunFunc(n, func(chunk, worker int) {
				if worker < 0 || worker >= workers {
					t.Errorf("worker %d of %d", worker, workers)
				}
				atomic.AddInt32(&count[chunk], 1)
			})
			for c, x := range count {
				if x != 1 {
					t.Fatalf("%d workers, round %d: chunk %d ran %d times", workers, round, c, x)
				}
			}
		}
	}
}

// What a chunk wrote must be visible after RunFunc without further synchronisation; the race
// detector checks that when it is on.
func TestRunFuncOrdersMemory(t *testing.T) {
	p := newPool(t, PoolOptions{Workers: 3, Pin: true})
	x := make([]int, 17)
	for round := 0; round < 500; round++ {
		p.RunFunc(len(x), func(c, _ int) { x[c] += c + round })
		for c := range x {
			x[c] -= c
		}
	}
	for c := range x {
		if x[c] != 500*499/2 {
			t.Fatalf("x[%d] is %d", c, x[c])
		}
	}
}

func TestRunFuncUsesParkedWorkers(t *testing.T) {
	p := newPool(t, PoolOptions{Workers: 2, Spin: time.Microsecond})
	time.Sleep(5 * time.Millisecond)
	// Both chunks wait for each other: only two workers at once can finish.
	var arrived atomic.Int32
	p.RunFunc(2, func(_, _ int) {
		arrived.Add(1)
		for arrived.Load() < 2 {
			runtime.Gosched()
		}
	})
}

func TestRunFuncPropagatesTheLowestPanic(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		p := newPool(t, PoolOptions{Workers: workers})
		cause := errors.New("cause")
		func() {
			defer func() {
				v, ok := recover().(*ChunkPanic)
				if !ok || v.Chunk != 3 || v.Value != cause || !strings.Contains(v.Error(), "chunk 3: panic: cause") {
					t.Errorf("%d workers: recovered %v", workers, v)
				}
			}()
			p.RunFunc(20, func(c, _ int) {
				if c%4 == 3 {
					panic(cause)
				}
			})
			t.Error("no panic")
		}()
		ran := 0
		p.RunFunc(1, func(_, _ int) { ran++ })
		if ran != 1 {
			t.Error("the pool does not work after a panic")
		}
	}
}

func TestPoolRefusesNestedLaunches(t *testing.T) {
	p := newPool(t, PoolOptions{Workers: 2})
	defer func() {
		v, ok := recover().(*ChunkPanic)
		if !ok || !strings.Contains(v.Error(), "one launch at a time") {
			t.Errorf("recovered %v", v)
		}
	}()
	p.RunFunc(1, func(_, _ int) { p.RunFunc(1, func(_, _ int) {}) })
}

func TestCloseStopsHelpers(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := 0; i < 20; i++ {
		p, err := NewPool(PoolOptions{Workers: 4, Scratch: 1000})
		if err != nil {
			t.Fatal(err)
		}
		p.RunFunc(i, func(_, _ int) {})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
	for i := 0; runtime.NumGoroutine() > before && i < 100; i++ {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines before, %d after", before, n)
	}
}

func TestRunFuncAllocatesNothing(t *testing.T) {
	p := newPool(t, PoolOptions{Workers: 2})
	f := func(_, _ int) {}
	if n := testing.AllocsPerRun(200, func() { p.RunFunc(8, f) }); n != 0 {
		t.Errorf("%v allocations a launch", n)
	}
}

func TestTimesAddUpToTheLaunch(t *testing.T) {
	p := newPool(t, PoolOptions{Workers: 2, Timed: true})
	for range 20 {
		start := time.Since(p.Epoch())
		p.RunFunc(6, func(int, int) { time.Sleep(200 * time.Microsecond) })
		end := time.Since(p.Epoch())
		chunks := 0
		for w, x := range p.Times() {
			chunks += x.Chunks
			if x.Chunks > 0 && (x.First < start || x.Last > end || x.Busy > x.Last-x.First || x.Busy < time.Duration(x.Chunks)*200*time.Microsecond) {
				t.Fatalf("worker %d: %+v in a launch from %v to %v", w, x, start, end)
			}
		}
		if chunks != 6 {
			t.Fatalf("%d chunks are timed, want 6", chunks)
		}
	}
	if p := newPool(t, PoolOptions{Workers: 2}); p.Times() != nil {
		t.Error("a pool measures times without being asked to")
	}
}
