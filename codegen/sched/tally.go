package sched

import (
	"slices"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// tally adds up what a choice of buffers to make again costs, and how much is
// alive during each launch, without making the program: for paper's transformer
// in some 15 microseconds. Its numbers are those of the program that again
// makes (a test compares them).
//
// Launches that touch nothing of a choice are one slot for each run of them.
type tally struct {
	f       *forward
	buffers []*plan.Buffer // candidates first, then those whose life a choice can lengthen
	n       int            // candidates
	size    []int
	first   []int32 // slot of the first launch that writes it
	last    []int32 // slot of the last launch of the forward pass that touches it
	run     []int32 // of a candidate: the launch that writes it
	reruns  []rerun
	base    []int    // bytes of all other buffers alive in a slot
	across  []int    // and of those alive both before and in a slot
	reads   []access // slots of the backward pass that touch buffers
	time    int64    // of the whole program without recomputation

	choice  []bool
	shift   int32
	cost    int64
	made    []int32 // slot at which it was made again, or -1
	until   []int32 // last slot that touches the original
	copied  []int32 // last slot that touches the copy
	scratch []scratch
	insert  []int32 // launches inserted before a slot
	delta   []int
}

// access is a slot and the buffers that it touches.
type access struct {
	slot    int32
	buffers []int32
}

// rerun is a launch of the forward pass that may run again.
type rerun struct {
	launch int
	cost   int64
	in     []int32 // buffers it reads
	out    []int32 // and writes: a candidate, or -1
	bytes  []int   // of out
}

type scratch struct {
	at    int32
	bytes int
}

// outcome is what a choice comes to.
type outcome struct {
	peak   int   // most bytes alive
	excess int   // bytes above the target, summed over slots
	cost   int64 // nanoseconds of all launches that run again
}

func bytesOf(b *plan.Buffer) int { return alignUp(max(b.Bytes, 1)) }

func newTally(f *forward, rates kern.Rates) *tally {
	t := &tally{f: f}
	id := map[*plan.Buffer]int32{}
	add := func(b *plan.Buffer) {
		id[b] = int32(len(t.buffers))
		t.buffers = append(t.buffers, b)
	}
	rerunOf := map[int]int32{}
	for i := range f.p.Launches {
		l := &f.p.Launches[i]
		t.time += rates.Time(l.Kernel)
		if i >= f.end {
			continue
		}
		for a, b := range l.Args {
			if _, can := f.latest[b]; !can || l.Kernel.Bufs[a].Mode == kern.In {
				continue
			}
			if _, ok := rerunOf[i]; !ok {
				rerunOf[i] = int32(len(t.reruns))
				t.reruns = append(t.reruns, rerun{launch: i, cost: rates.Time(l.Kernel)})
			}
			if _, ok := id[b]; !ok {
				add(b)
				t.run = append(t.run, rerunOf[i])
			}
		}
	}
	t.n = len(t.buffers)
	n := len(f.p.Launches)
	whole := func(b *plan.Buffer) bool { return b.Arena != plan.Work || b.First < 0 || b.Last >= n }
	for i := range t.reruns {
		m := &t.reruns[i]
		l := f.p.Launches[m.launch]
		var outs []*plan.Buffer
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode == kern.In {
				if whole(b) {
					continue
				}
				if _, ok := id[b]; !ok {
					add(b)
				}
				m.in = append(m.in, id[b])
			} else if !slices.Contains(outs, b) {
				outs = append(outs, b)
				o := int32(-1)
				if c, ok := id[b]; ok && int(c) < t.n {
					o = c
				}
				m.out, m.bytes = append(m.out, o), append(m.bytes, bytesOf(b))
			}
		}
	}
	t.cut(id)
	return t
}

// cut makes the slots.
func (t *tally) cut(id map[*plan.Buffer]int32) {
	ls := t.f.p.Launches
	still := make([]int, len(ls)+1)    // alive in a launch, without what a choice touches
	straight := make([]int, len(ls)+1) // and in the one before
	for _, b := range t.f.p.Buffers {
		if _, ok := id[b]; ok || b.Arena != plan.Work {
			continue
		}
		for i := max(b.First, 0); i <= min(b.Last, len(ls)-1); i++ {
			still[i] += bytesOf(b)
			if i > b.First {
				straight[i] += bytesOf(b)
			}
		}
	}
	for _, b := range t.buffers {
		t.size = append(t.size, bytesOf(b))
	}
	t.first, t.last = make([]int32, len(t.buffers)), make([]int32, len(t.buffers))
	for i := range t.first {
		t.first[i] = -1
	}
	run := false
	for i := range ls {
		var touched []int32
		for _, b := range ls[i].Args {
			if x, ok := id[b]; ok && !slices.Contains(touched, x) {
				touched = append(touched, x)
			}
		}
		// A backward pass begins with a slot of its own.
		if run && len(touched) == 0 && i != t.f.end {
			s := len(t.base) - 1
			t.base[s] = max(t.base[s], still[i])
			continue
		}
		run = len(touched) == 0
		s := int32(len(t.base))
		t.base, t.across = append(t.base, still[i]), append(t.across, straight[i])
		for _, x := range touched {
			if t.first[x] < 0 {
				t.first[x] = s
			}
			if i < t.f.end {
				t.last[x] = s
			}
		}
		if i >= t.f.end && len(touched) > 0 {
			t.reads = append(t.reads, access{s, touched})
		}
	}
	k := len(t.buffers)
	t.made, t.copied, t.until = make([]int32, k), make([]int32, k), make([]int32, k)
	t.insert = make([]int32, len(t.base))
	t.delta = make([]int, len(t.base)+len(t.reruns)+2)
}

// measure finds what a choice comes to; excess counts above the target.
func (t *tally) measure(choice []bool, target int) outcome {
	t.choice, t.shift, t.cost, t.scratch = choice, 0, 0, t.scratch[:0]
	copy(t.until, t.last)
	for i := range t.made {
		t.made[i] = -1
	}
	for _, r := range t.reads {
		before := t.shift
		for _, x := range r.buffers {
			if int(x) < t.n && choice[x] && t.made[x] < 0 {
				t.launch(t.run[x], r.slot)
			}
		}
		t.insert[r.slot] = t.shift - before
		for _, x := range r.buffers {
			t.touch(x, r.slot+t.shift)
		}
	}
	d := t.delta[:len(t.base)+int(t.shift)+1]
	clear(d)
	for x, size := range t.size {
		d[t.first[x]] += size
		d[t.until[x]+1] -= size
		if at := t.made[x]; at >= 0 {
			d[at] += size
			d[t.copied[x]+1] -= size
		}
	}
	for _, s := range t.scratch {
		d[s.at] += s.bytes
		d[s.at+1] -= s.bytes
	}
	peak, excess, alive, at := 0, 0, 0, 0
	for s, base := range t.base {
		for range t.insert[s] {
			alive += d[at]
			at++
			n := alive + t.across[s]
			peak = max(peak, n)
			excess += max(n-target, 0)
		}
		alive += d[at]
		at++
		n := alive + base
		peak = max(peak, n)
		excess += max(n-target, 0)
	}
	return outcome{peak, excess, t.cost}
}

// touch says that buffer x is needed in a slot.
func (t *tally) touch(x, slot int32) {
	if t.made[x] >= 0 {
		t.copied[x] = slot
	} else {
		t.until[x] = slot
	}
}

// launch runs a launch again, before slot s.
func (t *tally) launch(m, s int32) {
	k := &t.reruns[m]
	for _, x := range k.in {
		if int(x) < t.n && t.choice[x] && t.made[x] < 0 {
			t.launch(t.run[x], s)
		}
	}
	at := s + t.shift
	t.shift++
	t.cost += k.cost
	for _, x := range k.in {
		t.touch(x, at)
	}
	for i, x := range k.out {
		if x >= 0 && t.choice[x] {
			t.made[x], t.copied[x] = at, at
		} else {
			t.scratch = append(t.scratch, scratch{at, k.bytes[i]})
		}
	}
}
