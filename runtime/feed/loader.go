package feed

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// LoaderOptions says what a batch is. Side and Batch are required.
type LoaderOptions struct {
	Side  int // pictures are Side x Side
	Batch int // samples a step on this rank
	// Rank of Ranks takes its part of each step's Ranks*Batch samples; zero values
	// mean one rank.
	Rank, Ranks int
	Seed        uint64 // of order and augmentation
	// InOrder keeps the source's order in every epoch instead of shuffling.
	InOrder bool
	// Pool is the number of consecutive steps whose samples are dealt out anew, so that
	// similar captions share a batch; below 2, samples come as they are.
	Pool int
	// Augment brings pictures to Side; nil takes them as they are, for sources whose
	// pictures have that size.
	Augment Augment
	Workers int // goroutines that decode; default one for each processor
	Ahead   int // batches prepared in advance; default 2
}

// Batch is the captioned pictures of one step.
type Batch struct {
	Step     uint64
	Side     int
	Pixels   []uint8 // Batch x Side x Side x 3
	Captions []string
	Names    []string // where the samples come from
}

// Picture is picture j of the batch; it shares the batch's memory.
func (b *Batch) Picture(j int) picture.Picture {
	n := b.Side * b.Side * 3
	return picture.Square(b.Pixels[j*n:(j+1)*n], b.Side)
}

// Loader makes batches in the background. Batch n depends on the source, the seed and
// n alone, whatever the number of workers and wherever the loader started.
type Loader struct {
	src   Source
	opt   LoaderOptions
	tally tally
	// similar is nil where samples come as they are.
	similar *similar

	mu   sync.Mutex
	bad  map[uint64]bool // samples found unusable, which are counted once
	stop func()          // ends the goroutines; nil when none run
	next uint64          // the step that Next returns
	line chan *pending
}

// pending is a batch on its way.
type pending struct {
	batch Batch
	left  sync.WaitGroup
	mu    sync.Mutex
	errAt int // the first sample that failed, if err is set
	err   error
}

// NewLoader checks the options. Nothing is read before Next or At.
func NewLoader(src Source, opt LoaderOptions) (*Loader, error) {
	if opt.Ranks == 0 {
		opt.Ranks = 1
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if opt.Ahead <= 0 {
		opt.Ahead = 2
	}
	switch {
	case src == nil:
		return nil, errors.New("loader: no source")
	case opt.Side < 1:
		return nil, fmt.Errorf("loader: side is %d, want the model's picture size", opt.Side)
	case opt.Batch < 1:
		return nil, fmt.Errorf("loader: batch is %d, want at least 1", opt.Batch)
	case opt.Rank < 0 || opt.Rank >= opt.Ranks:
		return nil, fmt.Errorf("loader: rank %d is outside 0..%d", opt.Rank, opt.Ranks-1)
	}
	l := &Loader{src: src, opt: opt, bad: map[uint64]bool{}}
	if opt.Pool > 1 {
		l.similar = &similar{
			size:    uint64(opt.Pool) * uint64(opt.Batch) * uint64(opt.Ranks),
			caption: func(slot uint64) (string, error) { return src.Caption(l.index(slot)) },
		}
	}
	return l, nil
}

// StepsPerEpoch is how many steps see every sample once, rounded up; 0 for a source
// without end. Epochs follow each other without a gap, also inside a batch.
func (l *Loader) StepsPerEpoch() uint64 {
	global := uint64(l.opt.Batch) * uint64(l.opt.Ranks)
	return (l.src.Len() + global - 1) / global
}

// StartAt makes Next continue with the given step, dropping what was prepared.
func (l *Loader) StartAt(step uint64) {
	l.Close()
	l.mu.Lock()
	l.next = step
	l.mu.Unlock()
}

// Close ends the goroutines and waits for them. The loader can still be used: Next
// starts them again.
func (l *Loader) Close() {
	l.mu.Lock()
	stop := l.stop
	l.stop = nil
	l.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Report is the source's report with what was skipped since.
func (l *Loader) Report() Report {
	r := l.src.Report()
	since := Report{Skipped: l.tally.list()}
	r.Usable -= min(r.Usable, uint64(since.Total()))
	r.Add(since)
	return r
}

// Next returns the batch of the next step, and prepares those after it. It is meant
// for one goroutine.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	l.mu.Lock()
	if l.stop == nil {
		l.start()
	}
	line := l.line
	l.mu.Unlock()
	select {
	case p, ok := <-line:
		if !ok {
			return nil, errors.New("loader: closed while a batch was awaited")
		}
		p.left.Wait()
		if p.err != nil {
			l.StartAt(p.batch.Step) // so that the next call tries again
			return nil, p.err
		}
		l.mu.Lock()
		l.next = p.batch.Step + 1
		l.mu.Unlock()
		return &p.batch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start runs a goroutine that deals out samples and the workers that fill them in.
func (l *Loader) start() {
	type job struct {
		to *pending
		j  int
	}
	quit := make(chan struct{})
	jobs := make(chan job)
	// The dealer holds one batch more than the channel does.
	line := make(chan *pending, max(0, l.opt.Ahead-1))
	var all sync.WaitGroup
	step := l.next
	all.Add(1 + l.opt.Workers)
	go func() {
		defer all.Done()
		defer close(line)
		defer close(jobs)
		for ; ; step++ {
			p := l.newPending(step)
			select {
			case line <- p:
			case <-quit:
				return
			}
			for j := range l.opt.Batch {
				select {
				case jobs <- job{p, j}:
				case <-quit:
					// Whoever waits for this batch must not hang.
					p.fail(j, errors.New("loader: closed while a batch was made"))
					for range l.opt.Batch - j {
						p.left.Done()
					}
					return
				}
			}
		}
	}()
	for range l.opt.Workers {
		go func() {
			defer all.Done()
			for w := range jobs {
				if err := l.fill(&w.to.batch, w.j); err != nil {
					w.to.fail(w.j, err)
				}
				w.to.left.Done()
			}
		}()
	}
	l.line = line
	l.stop = sync.OnceFunc(func() {
		close(quit)
		all.Wait()
	})
}

func (l *Loader) newPending(step uint64) *pending {
	n := l.opt.Batch
	p := &pending{batch: Batch{
		Step: step, Side: l.opt.Side,
		Pixels:   make([]uint8, n*l.opt.Side*l.opt.Side*3),
		Captions: make([]string, n),
		Names:    make([]string, n),
	}}
	p.left.Add(n)
	return p
}

// fail keeps the error of the first sample, so that the message doesn't depend on
// timing.
func (p *pending) fail(j int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil || j < p.errAt {
		p.errAt, p.err = j, err
	}
}

// At makes the batch of a step directly, in the calling goroutine.
func (l *Loader) At(step uint64) (*Batch, error) {
	p := l.newPending(step)
	for j := range l.opt.Batch {
		if err := l.fill(&p.batch, j); err != nil {
			return nil, err
		}
	}
	return &p.batch, nil
}

// fill makes sample j of a batch. Where the sample that is due can't be used, the
// one after it in the source's order takes its place.
func (l *Loader) fill(b *Batch, j int) error {
	slot := (b.Step*uint64(l.opt.Ranks)+uint64(l.opt.Rank))*uint64(l.opt.Batch) + uint64(j)
	due := slot
	if l.similar != nil {
		var err error
		if due, err = l.similar.slot(slot); err != nil {
			return err
		}
	}
	index, n := l.index(due), l.src.Len()
	limit := n
	if n == 0 {
		limit = 1000 // an endless source in which none of a thousand is usable has none
	}
	for tries := range limit {
		at := index + tries
		if n > 0 {
			at %= n
		}
		if l.isBad(at) {
			continue
		}
		s, err := l.sample(at, slot)
		var skip *SkipError
		if errors.As(err, &skip) {
			l.setBad(at, skip)
			continue
		}
		if err != nil {
			return err
		}
		size := l.opt.Side * l.opt.Side * 3
		copy(b.Pixels[j*size:(j+1)*size], s.Pixels)
		b.Captions[j], b.Names[j] = s.Caption, s.Name
		return nil
	}
	return unusable(l.Report(), "check the data, or lower the picture size")
}

// index is the sample that is due at a slot.
func (l *Loader) index(slot uint64) uint64 {
	n := l.src.Len()
	if n == 0 {
		return slot
	}
	epoch, place := slot/n, slot%n
	if l.opt.InOrder {
		return place
	}
	return dice.Permute(n, l.opt.Seed, epoch).At(place)
}

func (l *Loader) sample(index, slot uint64) (Sample, error) {
	s, err := l.src.At(index)
	if err != nil {
		return s, err
	}
	if l.opt.Augment != nil {
		// The slot, not the index, keys the draws: every epoch augments anew.
		s.Picture, err = l.opt.Augment(s.Picture, dice.New(l.opt.Seed, slot, augmentKey))
		if err != nil {
			var skip *SkipError
			if errors.As(err, &skip) && skip.Name == "" {
				err = &SkipError{s.Name, skip.Reason, skip.Err}
			}
			return s, err
		}
	}
	if s.Width != l.opt.Side || s.Height != l.opt.Side || s.Check() != nil {
		return s, fmt.Errorf("%s: is %dx%d, the model takes %dx%d: set an augmentation, or prepare the pictures at that size",
			s.Name, s.Width, s.Height, l.opt.Side, l.opt.Side)
	}
	return s, nil
}

// augmentKey keeps the draws of augmentation apart from those of the order.
const augmentKey = 0x6175676d

func (l *Loader) isBad(index uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad[index]
}

func (l *Loader) setBad(index uint64, e *SkipError) {
	l.mu.Lock()
	known := l.bad[index]
	l.bad[index] = true
	l.mu.Unlock()
	if !known {
		l.tally.skip(e)
	}
}
