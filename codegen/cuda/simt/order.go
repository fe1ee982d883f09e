package simt

// The order of memory accesses is tracked with vector clocks: every agent (a warp,
// or a unit that works on its own, like the one that copies tensors) counts the
// points at which it passes something on, and knows up to which count of every
// other agent it comes after. An access at clock t of agent a is ordered before
// what warp w does now if w knows of t.
//
// Agents are numbered throughout the grid, agentsPerCluster for each cluster; 0 is
// none. The clocks of a warp's own cluster are in a slice; those of others, which
// it knows of only through atomic operations on global memory, in a map.

const agentsPerCluster = 1 << 12

// past is a set of events that lie before some point.
type past struct {
	vc []uint32 // by agent of the cluster
	// fenced is the part of vc whose ordinary memory accesses are visible to the
	// async proxy as well. Nil where the kernel doesn't use it.
	fenced []uint32
	others *others
}

// others is what is known of other clusters. It's never changed once it is shared.
type others struct {
	by map[uint32]*moment
}

// moment is what is known of a cluster.
type moment struct {
	vc, fenced []uint32
}

func joinClocks(a, b []uint32) []uint32 {
	if len(b) > len(a) {
		a = append(a, make([]uint32, len(b)-len(a))...)
	}
	for i, x := range b {
		if x > a[i] {
			a[i] = x
		}
	}
	return a
}

// join adds the events of q to p.
func (p *past) join(q *past) {
	p.vc = joinClocks(p.vc, q.vc)
	if q.fenced != nil {
		p.fenced = joinClocks(p.fenced, q.fenced)
	}
	p.others = p.others.join(q.others)
}

// reset empties p, keeping its memory.
func (p *past) reset() {
	clear(p.vc)
	clear(p.fenced)
	p.others = nil
}

func (p *past) copy() past {
	return past{append([]uint32(nil), p.vc...), append([]uint32(nil), p.fenced...), p.others}
}

func (o *others) join(p *others) *others {
	switch {
	case p == nil || o == p:
		return o
	case o == nil:
		return p
	}
	r := &others{make(map[uint32]*moment, max(len(o.by), len(p.by)))}
	for k, m := range o.by {
		r.by[k] = m
	}
	for k, m := range p.by {
		n := r.by[k]
		if n == nil {
			r.by[k] = m
		} else if n != m {
			r.by[k] = &moment{
				joinClocks(append([]uint32(nil), n.vc...), m.vc),
				joinClocks(append([]uint32(nil), n.fenced...), m.fenced),
			}
		}
	}
	return r
}

// order is a warp's past, and its place in the numbering of agents.
type order struct {
	past
	base    uint32 // agent 0 of the cluster
	agent   uint32 // own
	cluster uint32
	// released is what a fence has made visible to whoever sees a later atomic
	// operation of this warp; acquired is what atomic operations have seen that a
	// later fence makes count.
	released, acquired *release
}

// knows says whether clock t of agent a lies in the past.
func (o *order) knows(a, t uint32) bool {
	if i := a - o.base; i < agentsPerCluster {
		return i < uint32(len(o.vc)) && t <= o.vc[i]
	}
	if o.others == nil {
		return false
	}
	m := o.others.by[(a-1)/agentsPerCluster]
	i := (a - 1) % agentsPerCluster
	return m != nil && i < uint32(len(m.vc)) && t <= m.vc[i]
}

// proxied says whether a write at clock t of agent a is known to the async proxy.
func (o *order) proxied(a, t uint32) bool {
	if i := a - o.base; i < agentsPerCluster {
		return i < uint32(len(o.fenced)) && t <= o.fenced[i]
	}
	return true
}

// clock is the agent's own count.
func (o *order) clock() uint32 { return o.vc[o.agent-o.base] }

// tick starts a new interval: what the warp does from now on isn't covered by what
// it has passed on.
func (o *order) tick() { o.vc[o.agent-o.base]++ }
