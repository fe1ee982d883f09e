package simt

// reconverge sets where the two sides of every branch meet again: the first
// instruction that all paths from the branch pass, its immediate post-dominator.
//
// A path that returns passes nothing, so it would make every branch meet only at
// the end. But lanes that have returned don't keep the others waiting: paths that
// end in a return before the last are left out, and matter only to branches from
// which all paths end so.
func reconverge(code []inst) {
	// Blocks: maximal runs of instructions without branches out or in.
	n := len(code)
	leader := make([]bool, n+1)
	leader[0] = true
	for i := range code {
		switch code[i].kind {
		case kBra:
			leader[code[i].target] = true
			leader[i+1] = true
		case kRet, kTrap:
			leader[i+1] = true
		}
	}
	var starts []int
	blockOf := make([]int, n+1)
	for i := range code {
		if leader[i] {
			starts = append(starts, i)
		}
		blockOf[i] = len(starts) - 1
	}
	nb := len(starts)
	succ := make([][]int, nb)
	var rets []int
	for b := range starts {
		end := n
		if b+1 < nb {
			end = starts[b+1]
		}
		last := &code[end-1]
		switch {
		case last.kind == kBra:
			succ[b] = append(succ[b], blockOf[last.target])
			if last.guard >= 0 {
				succ[b] = append(succ[b], b+1)
			}
		case (last.kind == kRet || last.kind == kTrap) && last.guard < 0:
			rets = append(rets, b)
		default:
			succ[b] = append(succ[b], b+1)
		}
	}
	// The last return that code reaches; the compiler adds one behind the text
	// that often nothing does.
	reach := make([]bool, nb)
	stack := []int{0}
	reach[0] = true
	for len(stack) > 0 {
		b := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, s := range succ[b] {
			if !reach[s] {
				reach[s] = true
				stack = append(stack, s)
			}
		}
	}
	var live []int
	for _, r := range rets {
		if reach[r] {
			live = append(live, r)
		}
	}
	if len(live) == 0 {
		return // runs for ever, or traps
	}
	main := postDominators(succ, live[len(live)-1:])
	all := postDominators(succ, live)
	for i := range code {
		if in := &code[i]; in.kind == kBra && in.guard >= 0 {
			d := main[blockOf[i]]
			if d == unreached {
				d = all[blockOf[i]]
			}
			if d >= 0 {
				in.join = int32(starts[d])
			}
		}
	}
}

// What postDominators has for blocks that no block post-dominates, and for those
// from which no exit is reached.
const (
	atExit    = -1
	unreached = -2
)

// postDominators finds the immediate post-dominator of each block, by the
// algorithm of Cooper, Harvey and Kennedy on the reversed graph.
func postDominators(succ [][]int, exits []int) []int {
	nb := len(succ)
	root := nb
	pred := make([][]int, nb+1) // of the graph; successors in the reversed one
	for b, ss := range succ {
		for _, s := range ss {
			pred[s] = append(pred[s], b)
		}
	}
	pred[root] = exits
	isExit := make([]bool, nb)
	for _, e := range exits {
		isExit[e] = true
	}
	// post-order of the reversed graph
	order, num := []int{}, make([]int, nb+1)
	for i := range num {
		num[i] = -1
	}
	type frame struct{ b, i int }
	seen := make([]bool, nb+1)
	seen[root] = true
	for st := []frame{{root, 0}}; len(st) > 0; {
		f := &st[len(st)-1]
		if f.i < len(pred[f.b]) {
			s := pred[f.b][f.i]
			f.i++
			if !seen[s] {
				seen[s] = true
				st = append(st, frame{s, 0})
			}
			continue
		}
		num[f.b] = len(order)
		order = append(order, f.b)
		st = st[:len(st)-1]
	}
	dom := make([]int, nb+1)
	for i := range dom {
		dom[i] = unreached
	}
	dom[root] = root
	meet := func(a, b int) int {
		for a != b {
			for num[a] < num[b] {
				a = dom[a]
			}
			for num[b] < num[a] {
				b = dom[b]
			}
		}
		return a
	}
	for changed := true; changed; {
		changed = false
		for i := len(order) - 2; i >= 0; i-- {
			b := order[i]
			d := unreached
			if isExit[b] {
				d = root
			}
			for _, s := range succ[b] {
				if dom[s] == unreached {
					continue
				}
				if d == unreached {
					d = s
				} else {
					d = meet(d, s)
				}
			}
			if d != dom[b] {
				dom[b], changed = d, true
			}
		}
	}
	for b := range dom {
		if dom[b] == root {
			dom[b] = atExit
		}
	}
	return dom[:nb]
}

// reaches says whether control can come from one instruction to another.
func reaches(code []inst, from, to int32) bool {
	seen := make([]bool, len(code))
	todo := []int32{from}
	for len(todo) > 0 {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for !seen[pc] {
			seen[pc] = true
			if pc == to {
				return true
			}
			in := &code[pc]
			if in.kind == kBra {
				todo = append(todo, in.target)
			}
			if in.guard < 0 && (in.kind == kBra || in.kind == kRet || in.kind == kTrap) {
				break
			}
			pc++
		}
	}
	return false
}
