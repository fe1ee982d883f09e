package shapes

import (
	"fmt"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// Source yields training pictures of one side length without end. The zero Size
// means 32 pixels; sides of 32, 48 and 64 are the ones the judge is tuned on.
type Source struct {
	Seed uint64
	Size int
}

// Side is the side of the pictures in pixels.
func (s Source) Side() int {
	if s.Size == 0 {
		return 32
	}
	return s.Size
}

// Check tells whether the size is one that can be drawn.
func (s Source) Check() error {
	if n := s.Side(); n < MinSize || n > MaxSize {
		return fmt.Errorf("shapes: picture size %d is outside %d..%d", n, MinSize, MaxSize)
	}
	return nil
}

// Sample returns picture i (8-bit RGB, row by row) and its caption: a pure function
// of seed, size and i. Half of the scenes are pairs, 35% singles with a position,
// 15% singles without. Held-out scenes never occur. The size must pass Check.
func (s Source) Sample(i uint64) (img []uint8, caption string) {
	scene, r := s.scene(i)
	size := s.Side()
	img = make([]uint8, size*size*3)
	scene.draw(img, size, r, func(p Position) bool {
		return HeldOut(Scene{Objects: scene.Objects, Position: p})
	})
	return img, scene.Caption()
}

// Caption is the caption of picture i, which isn't drawn.
func (s Source) Caption(i uint64) string {
	scene, _ := s.scene(i)
	return scene.Caption()
}

// scene is what picture i shows, and the stream that its drawing goes on with.
func (s Source) scene(i uint64) (Scene, *dice.Stream) {
	r := dice.New(s.Seed, i)
	scene := randomScene(r)
	for HeldOut(scene) {
		scene = randomScene(r)
	}
	return scene, r
}

func randomObject(r *dice.Stream) Object {
	return Object{Size(r.Intn(int(numSizes))), Color(r.Intn(int(numColors))), Shape(r.Intn(int(numShapes)))}
}

func randomScene(r *dice.Stream) Scene {
	kind := r.Intn(100)
	s := Scene{Objects: []Object{randomObject(r)}}
	switch {
	case kind < 15:
	case kind < 50:
		s.Position = TopLeft + Position(r.Intn(int(numPositions)-1))
	default:
		s.Relation = Above + Relation(r.Intn(int(numRelations)-1))
		b := randomObject(r)
		for b.Color == s.Objects[0].Color && b.Shape == s.Objects[0].Shape {
			b = randomObject(r)
		}
		s.Objects = append(s.Objects, b)
	}
	return s
}
