package cpu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

const (
	// stackBytes is each worker's kernel stack; kernels keep little there and never recurse.
	stackBytes = 256 << 10
	// defaultSpin is how long a worker without work looks for some before it parks. Waking a
	// parked worker costs 50 us and more, and kernels of one chunk last up to 1 ms: with 40 us of
	// spinning two workers trained no faster than one (90 ms a step of demo's dvae, against 44 ms).
	defaultSpin = 2 * time.Millisecond
)

// PoolOptions configures NewPool.
type PoolOptions struct {
	Workers int           // including the goroutine that calls Run; 0 means GOMAXPROCS
	Scratch int           // bytes of scratch memory for each worker, at least what the kernels need
	Pin     bool          // bind the helpers to processors, where there are at least as many as workers
	Spin    time.Duration // how long to look for work before parking; 0 means 2 ms
	Timed   bool          // measure what each worker does, see Pool.Times
}

// Pool shares the chunks of one kernel launch among workers: the caller and Workers-1 helper
// goroutines on threads of their own. Workers take the next chunks from one counter, so a helper
// that wakes late only loses the chunks it did not get. A pool serves one launch at a time.
type Pool struct {
	workers int
	spin    time.Duration
	epoch   time.Time // of the times; zero unless they are measured
	times   []WorkerTime
	busy    atomic.Bool
	closed  bool
	mem     []byte // kernel stacks
	scratch *Arena
	space   []workspace
	helpers []helper
	stopped sync.WaitGroup

	// The launch. Written before unclaimed is set, and read only by a worker that has claimed a
	// chunk: they cannot change before that chunk is done.
	kernel, args uintptr
	fn           func(chunk, worker int)
	chunks       int64

	_          [64]byte
	unclaimed  atomic.Int64 // chunks nobody has taken yet
	deal       atomic.Int64 // a Deal, and
	equal      atomic.Int64 // the chunks of an Equal one; a worker that is late at worst takes more or fewer
	_          [40]byte
	unfinished atomic.Int64 // chunks not done yet
	_          [56]byte
	waiting    atomic.Bool // the caller is parked, or about to be
	done       chan struct{}

	panicMu sync.Mutex
	failure *ChunkPanic
}

type workspace struct{ stackTop, scratch uintptr }

// WorkerTime is what one worker did in a launch. Times count from Pool.Epoch.
type WorkerTime struct {
	Chunks      int
	First, Last time.Duration // start of its first chunk, end of its last
	Busy        time.Duration // in chunks
	_           [32]byte      // workers write at the same time
}

type helper struct {
	parked atomic.Bool // it sleeps on wake, or is about to
	wake   chan struct{}
	_      [48]byte
}

// ChunkPanic is the value Pool.RunFunc panics with after its function has panicked.
type ChunkPanic struct {
	Chunk int
	Value any    // of the original panic
	Stack []byte // where it happened
}

func (p *ChunkPanic) Error() string {
	return fmt.Sprintf("cpu: chunk %d: panic: %v\n%s", p.Chunk, p.Value, p.Stack)
}

// NewPool starts the helpers. Close stops them.
func NewPool(o PoolOptions) (*Pool, error) {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Workers < 0 || o.Scratch < 0 {
		return nil, fmt.Errorf("cpu: pool of %d workers with %d bytes of scratch is not possible", o.Workers, o.Scratch)
	}
	if o.Spin == 0 {
		o.Spin = defaultSpin
	}
	p := &Pool{workers: o.Workers, spin: o.Spin, done: make(chan struct{}, 1), helpers: make([]helper, o.Workers)}
	if o.Timed {
		p.epoch, p.times = time.Now(), make([]WorkerTime, o.Workers)
	}
	if err := p.allot(o.Scratch); err != nil {
		return nil, err
	}
	cpus := allowedCPUs()
	for w := 1; w < p.workers; w++ {
		p.helpers[w].wake = make(chan struct{}, 1)
		pin := -1
		if o.Pin && len(cpus) >= p.workers {
			pin = cpus[w]
		}
		p.stopped.Add(1)
		go p.help(w, pin)
	}
	return p, nil
}

// allot maps a guarded stack and scratch memory for each worker.
func (p *Pool) allot(scratch int) error {
	page := os.Getpagesize()
	each := stackBytes + page
	mem, err := mapMemory(each*p.workers, false)
	if err != nil {
		return fmt.Errorf("cpu: stacks of %d workers: %v", p.workers, err)
	}
	p.mem = mem
	// An odd number of cache lines keeps equal offsets of different workers in different sets.
	step := int64(scratch+Align-1)&^(Align-1) + Align
	p.scratch, err = NewArena(step * int64(p.workers))
	if err != nil {
		unmapMemory(mem)
		return fmt.Errorf("cpu: scratch of %d workers: %v", p.workers, err)
	}
	for w := 0; w < p.workers; w++ {
		stack := mem[w*each : (w+1)*each]
		if err := guardMemory(stack[:page]); err != nil {
			p.scratch.Close()
			unmapMemory(mem)
			return fmt.Errorf("cpu: stack guard: %v", err)
		}
		p.space = append(p.space, workspace{
			stackTop: uintptr(unsafe.Pointer(&stack[0])) + uintptr(each),
			scratch:  p.scratch.Addr(step * int64(w)),
		})
	}
	return nil
}

// Workers returns the number of workers, the caller included.
func (p *Pool) Workers() int { return p.workers }

// Times tells what each worker did in the launch that ended last; nil unless PoolOptions.Timed was
// set. The next launch overwrites it.
func (p *Pool) Times() []WorkerTime { return p.times }

// Epoch is the moment from which Times counts.
func (p *Pool) Epoch() time.Time { return p.epoch }

// Deal is how many chunks a worker takes in one go.
type Deal int64

const (
	// Balanced is for kernels whose time is arithmetic: a quarter of a worker's share of what is left.
	// Few claims at first, for processors that pass the counter to and fro lose a tenth of a microsecond
	// each time, and single chunks at the end, so that all workers end together.
	Balanced Deal = iota
	// Long is for kernels that wait for memory, which is fastest where one worker reads on and on: all
	// of its share of what is left.
	Long
	// Equal is for kernels whose chunks have work in common: the same part of all for each worker.
	Equal
)

// DealFor is how a kernel's chunks should be dealt out: whether they have work in common, and how
// many operations it does on how many bytes.
func DealFor(together bool, flops, bytes int64) Deal {
	switch {
	case together:
		return Equal
	case flops <= 8*bytes:
		return Long
	default:
		return Balanced
	}
}

// Run does the chunks 0 <= c < chunks of a kernel and returns when all are done. args is the
// address of its argument block, which must lie outside Go's heap (see Arena). Run allocates
// nothing. Chunks are dealt out Balanced.
func (p *Pool) Run(kernel, args uintptr, chunks int) { p.RunDealt(kernel, args, chunks, Balanced) }

// RunDealt is Run with a choice.
func (p *Pool) RunDealt(kernel, args uintptr, chunks int, deal Deal) {
	p.acquire()
	p.kernel, p.args = kernel, args
	p.launch(chunks, deal)
	p.busy.Store(false)
}

// RunFunc calls f for each chunk 0 <= c < chunks, on any worker and in any order, and returns
// when all calls have. If calls panic, RunFunc panics with the *ChunkPanic of the lowest chunk.
func (p *Pool) RunFunc(chunks int, f func(chunk, worker int)) {
	p.acquire()
	p.fn = f
	p.launch(chunks, Balanced)
	p.fn = nil
	failure := p.failure
	p.failure = nil
	p.busy.Store(false)
	if failure != nil {
		panic(failure)
	}
}

func (p *Pool) acquire() {
	if !p.busy.CompareAndSwap(false, true) {
		panic("cpu: a pool serves one launch at a time")
	}
	if p.closed {
		panic("cpu: launch on a closed pool")
	}
}

func (p *Pool) launch(chunks int, deal Deal) {
	clear(p.times)
	if chunks <= 0 {
		return
	}
	p.chunks = int64(chunks)
	p.unfinished.Store(int64(chunks))
	p.deal.Store(int64(deal))
	p.equal.Store(int64((chunks + p.workers - 1) / p.workers))
	p.unclaimed.Store(int64(chunks))
	need := min(chunks, p.workers)
	for w := 1; w < need; w++ {
		if h := &p.helpers[w]; h.parked.Load() && h.parked.CompareAndSwap(true, false) {
			h.wake <- struct{}{}
		}
	}
	p.work(0)
	p.wait()
}

// work does chunks until none is unclaimed. A successful exchange says that the launch it
// counts is running, whichever launch the worker came for, so no generation is needed.
func (p *Pool) work(worker int) {
	for {
		left := p.unclaimed.Load()
		if left == 0 {
			return
		}
		n := p.claim(left)
		if !p.unclaimed.CompareAndSwap(left, left-n) {
			continue
		}
		chunk := p.chunks - left
		var start time.Duration
		if p.times != nil {
			start = time.Since(p.epoch)
		}
		if p.fn != nil {
			for c := chunk; c < chunk+n; c++ {
				p.protect(int(c), worker)
			}
		} else {
			s := &p.space[worker]
			call(p.kernel, s.stackTop, p.args, chunk, chunk+n, s.scratch)
		}
		if p.times != nil {
			p.timed(worker, int(n), start)
		}
		if p.unfinished.Add(-n) == 0 && worker != 0 && p.waiting.CompareAndSwap(true, false) {
			p.done <- struct{}{}
		}
	}
}

// claim is how many of the chunks left a worker should take.
func (p *Pool) claim(left int64) int64 {
	workers := int64(p.workers)
	switch Deal(p.deal.Load()) {
	case Equal:
		return min(left, p.equal.Load())
	case Long:
		return max(1, left/workers)
	default:
		return max(1, left/(4*workers))
	}
}

// timed adds chunks to a worker's times. It comes before they count as done, so that whoever
// saw the launch end sees them.
func (p *Pool) timed(worker, chunks int, start time.Duration) {
	t := &p.times[worker]
	if t.Chunks == 0 {
		t.First = start
	}
	t.Last = time.Since(p.epoch)
	t.Busy += t.Last - start
	t.Chunks += chunks
}

func (p *Pool) protect(chunk, worker int) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		p.panicMu.Lock()
		if p.failure == nil || p.failure.Chunk > chunk {
			p.failure = &ChunkPanic{Chunk: chunk, Value: v, Stack: debug.Stack()}
		}
		p.panicMu.Unlock()
	}()
	p.fn(chunk, worker)
}

// wait returns when every chunk is done. It spins first: the helpers' last chunks usually end
// within a fraction of a chunk. It does not yield to the scheduler, which on a locked thread
// would be a futex call that takes the processor from the helper.
func (p *Pool) wait() {
	if p.workers == 1 || p.spinUntil(func() bool { return p.unfinished.Load() == 0 }) {
		return
	}
	// A helper that was held up between its last chunk of an earlier launch and its look at waiting
	// may send for this one, so a message only means: look again.
	for p.unfinished.Load() != 0 {
		p.waiting.Store(true)
		if p.unfinished.Load() == 0 && p.waiting.CompareAndSwap(true, false) {
			return
		}
		<-p.done
	}
}

// spinUntil polls ok for the pool's spinning time and returns whether it became true.
func (p *Pool) spinUntil(ok func() bool) bool {
	if ok() {
		return true
	}
	start := time.Now()
	for {
		for i := 0; i < 16; i++ { // 16 pauses are about 1 us
			pause()
			if ok() {
				return true
			}
		}
		if time.Since(start) > p.spin {
			return false
		}
	}
}

// help is the loop of helper w. closed is never set while a launch runs, and is published by the
// wake-up that Close sends.
func (p *Pool) help(w, pin int) {
	defer p.stopped.Done()
	// The thread is not unlocked: it ends with the goroutine, and with it the binding.
	runtime.LockOSThread()
	if pin >= 0 {
		// A refusal leaves the thread unbound, which is only slower.
		_ = pinThread(pin)
	}
	h := &p.helpers[w]
	hasWork := func() bool { return p.unclaimed.Load() > 0 }
	for {
		p.work(w)
		if p.spinUntil(hasWork) {
			continue
		}
		h.parked.Store(true)
		if hasWork() && h.parked.CompareAndSwap(true, false) {
			continue
		}
		if _, open := <-h.wake; !open {
			return
		}
	}
}

// Close stops the helpers and frees stacks and scratch memory.
func (p *Pool) Close() error {
	if !p.busy.CompareAndSwap(false, true) {
		return errors.New("cpu: close of a pool during a launch")
	}
	defer p.busy.Store(false)
	if p.closed {
		return nil
	}
	p.closed = true
	for w := 1; w < p.workers; w++ {
		close(p.helpers[w].wake)
	}
	p.stopped.Wait()
	err := p.scratch.Close()
	return errors.Join(err, unmapMemory(p.mem))
}
