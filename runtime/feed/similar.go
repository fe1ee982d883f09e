package feed

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// group is how many samples with similar captions are put side by side.
const group = 8

// similar deals the samples of consecutive steps out anew, so that those with similar
// captions share a batch: hard negatives for a contrastive loss, which learns little
// from captions that have nothing in common. Every sample keeps occurring once an
// epoch. A pool is a run of slots; slot s of a pool takes the sample of another slot
// of the same pool.
type similar struct {
	size    uint64                            // slots of a pool
	caption func(slot uint64) (string, error) // of the sample that is due at a slot

	mu    sync.Mutex
	pools [2]*pool // the latest ones: batches made ahead straddle two
}

type pool struct {
	number uint64
	order  []uint32
	err    error
	made   sync.Once
}

// slot is the slot whose sample takes the given slot's place.
func (s *similar) slot(slot uint64) (uint64, error) {
	n := slot / s.size
	s.mu.Lock()
	p := s.pools[n%2]
	if p == nil || p.number != n {
		p = &pool{number: n}
		s.pools[n%2] = p
	}
	s.mu.Unlock()
	p.made.Do(func() { p.order, p.err = s.deal(n * s.size) })
	if p.err != nil {
		return 0, p.err
	}
	return n*s.size + uint64(p.order[slot%s.size]), nil
}

// deal orders the pool that starts at a slot: the first sample that is left, then the
// most similar ones, until a group is full. Samples with the same caption don't meet
// in a group, as neither is a negative of the other.
func (s *similar) deal(first uint64) ([]uint32, error) {
	words := map[string]int{}
	bags := make([][]int, s.size) // numbers of words, sorted
	texts := make([]string, s.size)
	for i := range bags {
		caption, err := s.caption(first + uint64(i))
		var skip *SkipError
		if err != nil && !errors.As(err, &skip) {
			return nil, err
		}
		texts[i] = strings.ToLower(caption)
		for _, w := range strings.Fields(texts[i]) {
			n, ok := words[w]
			if !ok {
				n = len(words)
				words[w] = n
			}
			bags[i] = append(bags[i], n)
		}
		slices.Sort(bags[i])
	}
	var order []uint32
	left := make([]uint32, s.size)
	for i := range left {
		left[i] = uint32(i)
	}
	for len(left) > 0 {
		anchor := left[0]
		taken := []match{{1, 0, anchor}}
		for _, i := range left[1:] {
			m, last := match{shared: jaccard(bags[anchor], bags[i]), at: i}, taken[len(taken)-1]
			if len(taken) == group && m.shared < last.shared {
				continue
			}
			m.tie = dice.Hash(first, uint64(anchor), uint64(i))
			if len(taken) == group && !m.before(last) {
				continue
			}
			if slices.ContainsFunc(taken, func(t match) bool { return texts[t.at] == texts[i] }) {
				continue
			}
			if len(taken) == group {
				taken = taken[:group-1]
			}
			at := 1
			for at < len(taken) && taken[at].before(m) {
				at++
			}
			taken = slices.Insert(taken, at, m)
		}
		for _, t := range taken {
			order = append(order, t.at)
		}
		left = slices.DeleteFunc(left, func(i uint32) bool {
			return slices.ContainsFunc(taken, func(t match) bool { return t.at == i })
		})
	}
	return order, nil
}

// match is a sample beside a group's first.
type match struct {
	shared float64
	tie    uint64 // many captions are equally far: chance decides
	at     uint32
}

func (m match) before(o match) bool {
	if m.shared != o.shared {
		return m.shared > o.shared
	}
	return m.tie < o.tie
}

// jaccard is the share of words that two sorted bags have in common.
func jaccard(a, b []int) float64 {
	if len(a)+len(b) == 0 {
		return 0
	}
	both := 0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			both++
			i++
			j++
		case a[i] < b[j]:
			i++
		default:
			j++
		}
	}
	return float64(both) / float64(len(a)+len(b)-both)
}
