package bpe

import "container/heap"

// mergeLong gives the same result as encodeWord's loop in n log n: symbols in a
// doubly linked list, possible merges in a heap ordered by rank, then position.
func (t *Tokenizer) mergeLong(ids []int32) []int32 {
	n := len(ids)
	next, prev := make([]int, n), make([]int, n)
	for i := range ids {
		next[i], prev[i] = i+1, i-1
	}
	var todo candidates
	offer := func(i int) {
		if i < 0 || next[i] >= n {
			return
		}
		if m, ok := t.table[pairKey(ids[i], ids[next[i]])]; ok {
			heap.Push(&todo, candidate{m, i, ids[i], ids[next[i]]})
		}
	}
	for i := range n - 1 {
		offer(i)
	}
	for len(todo) > 0 {
		c := heap.Pop(&todo).(candidate)
		i := c.at
		if ids[i] != c.left || next[i] >= n || ids[next[i]] != c.right {
			continue // one of the two has been merged since
		}
		gone := next[i]
		ids[i], ids[gone] = c.id, noMerge
		next[i] = next[gone]
		if next[i] < n {
			prev[next[i]] = i
		}
		offer(prev[i])
		offer(i)
	}
	out := ids[:0]
	for i := 0; i < n; i = next[i] {
		out = append(out, ids[i])
	}
	return out
}

type candidate struct {
	merge
	at          int
	left, right int32
}

type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	if c[i].rank != c[j].rank {
		return c[i].rank < c[j].rank
	}
	return c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	old := *c
	x := old[len(old)-1]
	*c = old[:len(old)-1]
	return x
}
