package shapes

import "github.com/gouache-ml/gouache/runtime/feed/dice"

// heldOutOneIn is the share of combinations kept out of training.
const heldOutOneIn = 10

// HeldOut tells whether the scene is kept out of training; the rule is in the
// package's description, and does not depend on any seed.
func HeldOut(s Scene) bool {
	switch {
	case len(s.Objects) == 1 && s.Position != Anywhere:
		return dice.HashString("single "+s.Objects[0].String()+" "+s.Position.String())%heldOutOneIn == 0
	case len(s.Objects) == 2:
		a, b, rel := s.Objects[0], s.Objects[1], s.Relation
		if rel == Below || rel == RightOf {
			a, b, rel = b, a, rel.Inverse()
		}
		key := "pair " + a.Color.String() + " " + a.Shape.String() + " " + rel.String() +
			" " + b.Color.String() + " " + b.Shape.String()
		return dice.HashString(key)%heldOutOneIn == 0
	}
	return false
}

// everyObject lists the objects in a fixed order.
func everyObject() []Object {
	var all []Object
	for size := Small; size < numSizes; size++ {
		for color := Red; color < numColors; color++ {
			for shape := Circle; shape < numShapes; shape++ {
				all = append(all, Object{size, color, shape})
			}
		}
	}
	return all
}

// singles lists every one-object scene, with and without position, and pairs every
// two-object scene, in a fixed order.
func singles() []Scene {
	var all []Scene
	for _, o := range everyObject() {
		for p := Anywhere; p < numPositions; p++ {
			all = append(all, Scene{Objects: []Object{o}, Position: p})
		}
	}
	return all
}

func pairs() []Scene {
	var all []Scene
	objects := everyObject()
	for _, a := range objects {
		for _, b := range objects {
			if a.Color == b.Color && a.Shape == b.Shape {
				continue
			}
			for rel := Above; rel < numRelations; rel++ {
				all = append(all, Scene{Objects: []Object{a, b}, Relation: rel})
			}
		}
	}
	return all
}

// TrainingCaptions lists every distinct caption that training can yield, singles
// first, in a fixed order: 14,597 of them.
func TrainingCaptions() []string { return captions(false) }

// CaptionCounts is the number of distinct captions in training and held out.
type CaptionCounts struct {
	Singles, Pairs               int // in training
	HeldOutSingles, HeldOutPairs int
}

// Training is the number of distinct training captions.
func (c CaptionCounts) Training() int { return c.Singles + c.Pairs }

// CountCaptions counts the grammar's captions.
func CountCaptions() CaptionCounts {
	var c CaptionCounts
	for _, s := range singles() {
		if HeldOut(s) {
			c.HeldOutSingles++
		} else {
			c.Singles++
		}
	}
	for _, s := range pairs() {
		if HeldOut(s) {
			c.HeldOutPairs++
		} else {
			c.Pairs++
		}
	}
	return c
}

func captions(heldOut bool) []string {
	var all []string
	for _, s := range append(singles(), pairs()...) {
		if HeldOut(s) == heldOut {
			all = append(all, s.Caption())
		}
	}
	return all
}

// HeldOutCaptions lists n distinct held-out captions in an order shuffled by the
// seed: singles and pairs in turn, starting with a single, and only pairs once the
// singles are used up. It returns fewer than n only where there are no more.
func HeldOutCaptions(n int, seed uint64) []string {
	kinds := [2][]Scene{}
	for k, all := range [2][]Scene{singles(), pairs()} {
		var held []Scene
		for _, s := range all {
			if HeldOut(s) {
				held = append(held, s)
			}
		}
		order := dice.Permute(uint64(len(held)), seed, uint64(k))
		for i := range held {
			kinds[k] = append(kinds[k], held[order.At(uint64(i))])
		}
	}
	var out []string
	for turn := 0; len(out) < n && len(kinds[0])+len(kinds[1]) > 0; turn++ {
		k := turn % 2
		if len(kinds[k]) == 0 {
			k = 1 - k
		}
		out = append(out, kinds[k][0].Caption())
		kinds[k] = kinds[k][1:]
	}
	return out
}
