package bpe

import (
	"container/heap"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
)

// Train learns at most vocabSize tokens from captions, under SpacePrefix: 256
// bytes, then the most frequent pair inside words again and again; equal counts
// go to the pair with the smaller ids. A pair that occurs once is not worth an id, so small
// sets of captions end with fewer tokens; while there is room every word
// that occurs twice becomes one token. The result depends on the captions' words and counts
// only, not on their order.
func Train(captions iter.Seq[string], vocabSize int) (*Tokenizer, error) {
	if vocabSize < 256 {
		return nil, fmt.Errorf("vocabulary size %d: at least 256, one for every byte", vocabSize)
	}
	if vocabSize > 1<<24 {
		return nil, fmt.Errorf("vocabulary size %d: at most %d", vocabSize, 1<<24)
	}
	counts := make(map[string]int64)
	seen := false
	for caption := range captions {
		seen = true
		SpacePrefix.eachWord(caption, func(word string) {
			if _, ok := counts[word]; !ok {
				word = strings.Clone(word) // don't keep the whole caption alive
			}
			counts[word]++
		})
	}
	if !seen || len(counts) == 0 {
		return nil, fmt.Errorf("no words in the captions; a tokenizer is trained from at least one caption")
	}
	l := newLearner(counts)
	for len(l.vocab) < vocabSize && l.mergeBest() {
	}
	return build(SpacePrefix, l.vocab, l.merges)
}

type learner struct {
	vocab  []token
	merges [][2]int32
	words  []trainWord
	known  map[string]bool // the vocabulary's byte strings
	pairs  map[uint64]*pair
	queue  pairQueue
	seenIn []int32 // last merge at which a word was visited, so that it's rewritten once
}

type trainWord struct {
	ids   []int32
	count int64
}

type pair struct {
	count int64
	words []int32 // indices of words it was ever seen in; may repeat, may be stale
}

func newLearner(counts map[string]int64) *learner {
	l := &learner{known: make(map[string]bool), pairs: make(map[uint64]*pair)}
	var single [256]int32
	for i, b := range byteOrder {
		single[b] = int32(i)
		l.add(string([]byte{b}))
	}
	names := make([]string, 0, len(counts))
	for w := range counts {
		names = append(names, w)
	}
	slices.Sort(names)
	l.words = make([]trainWord, len(names))
	l.seenIn = make([]int32, len(names))
	for i, w := range names {
		ids := make([]int32, len(w))
		for j := range len(w) {
			ids[j] = single[w[j]]
		}
		l.words[i] = trainWord{ids, counts[w]}
		l.count(int32(i), 1)
	}
	for key, p := range l.pairs {
		l.queue = append(l.queue, queued{p.count, key})
	}
	heap.Init(&l.queue) // the order is total: the map's order doesn't show
	return l
}

func (l *learner) add(text string) int32 {
	l.known[text] = true
	l.vocab = append(l.vocab, token{bytes: text})
	return int32(len(l.vocab) - 1)
}

// count adds (sign 1) or takes away (sign -1) a word's pairs.
func (l *learner) count(word int32, sign int64) {
	w := &l.words[word]
	for i := 0; i+1 < len(w.ids); i++ {
		key := pairKey(w.ids[i], w.ids[i+1])
		p := l.pairs[key]
		if p == nil {
			p = &pair{}
			l.pairs[key] = p
		}
		p.count += sign * w.count
		if sign > 0 && (len(p.words) == 0 || p.words[len(p.words)-1] != word) {
			p.words = append(p.words, word)
		}
	}
}

// mergeBest makes one token of the most frequent pair, and says whether one was left.
func (l *learner) mergeBest() bool {
	for len(l.queue) > 0 {
		top := heap.Pop(&l.queue).(queued)
		p := l.pairs[top.key]
		if p == nil || p.count < 2 {
			continue
		}
		if p.count != top.count { // counts of old pairs only fall: put it back where it belongs now
			heap.Push(&l.queue, queued{p.count, top.key})
			continue
		}
		a, b := int32(top.key>>32), int32(uint32(top.key))
		text := l.vocab[a].bytes + l.vocab[b].bytes
		if l.known[text] {
			continue // another split of the same bytes has the id; two ids for one text would be a waste
		}
		id := l.add(text)
		l.merges = append(l.merges, [2]int32{a, b})
		fresh := l.rewrite(p.words, a, b, id)
		delete(l.pairs, top.key)
		for _, key := range fresh {
			heap.Push(&l.queue, queued{l.pairs[key].count, key})
		}
		return true
	}
	return false
}

// rewrite replaces the pair a b by id in words and returns the new pairs.
func (l *learner) rewrite(words []int32, a, b, id int32) []uint64 {
	stamp := int32(len(l.merges))
	var fresh []uint64
	for _, w := range words {
		if l.seenIn[w] == stamp {
			continue
		}
		l.seenIn[w] = stamp
		l.count(w, -1)
		ids := l.words[w].ids
		out := ids[:0]
		for i := 0; i < len(ids); i++ {
			if i+1 < len(ids) && ids[i] == a && ids[i+1] == b {
				out = append(out, id)
				i++
			} else {
				out = append(out, ids[i])
			}
		}
		l.words[w].ids = out
		l.count(w, 1)
		for i := 0; i+1 < len(out); i++ {
			if out[i] == id || out[i+1] == id {
				fresh = append(fresh, pairKey(out[i], out[i+1]))
			}
		}
	}
	sort.Slice(fresh, func(i, j int) bool { return fresh[i] < fresh[j] })
	return slices.Compact(fresh)
}

type queued struct {
	count int64
	key   uint64
}

type pairQueue []queued

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	if q[i].count != q[j].count {
		return q[i].count > q[j].count
	}
	return q[i].key < q[j].key
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pairQueue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *pairQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
