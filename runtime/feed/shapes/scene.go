package shapes

import (
	"fmt"
	"strings"
)

// Shape is the outline of an object.
type Shape uint8

// Color is the fill of an object, an index into Palette.
type Color uint8

// Size is the nominal extent of an object: about 0.29 of the picture's side when
// small, 0.44 when large.
type Size uint8

// Position is where a single object lies; Anywhere leaves it open.
type Position uint8

// Relation is how the first object of a pair lies to the second; NoRelation belongs to singles.
type Relation uint8

// The outlines.
const (
	Circle Shape = iota
	Square
	Triangle
	Cross
	numShapes
)

// The colours.
const (
	Red Color = iota
	Green
	Blue
	Yellow
	Purple
	Orange
	Cyan
	Black
	numColors
)

// The sizes.
const (
	Small Size = iota
	Large
	numSizes
)

// The positions.
const (
	Anywhere Position = iota
	TopLeft
	TopRight
	BottomLeft
	BottomRight
	Center
	numPositions
)

// The relations.
const (
	NoRelation Relation = iota
	Above
	Below
	LeftOf
	RightOf
	numRelations
)

var (
	shapeNames    = []string{"circle", "square", "triangle", "cross"}
	colorNames    = []string{"red", "green", "blue", "yellow", "purple", "orange", "cyan", "black"}
	sizeNames     = []string{"small", "large"}
	positionNames = []string{"", "top left", "top right", "bottom left", "bottom right", "center"}
	relationNames = []string{"", "above", "below", "to the left of", "to the right of"}
)

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

// String is the word captions use.
func (s Shape) String() string { return name(shapeNames, int(s)) }

// String is the word captions use.
func (c Color) String() string { return name(colorNames, int(c)) }

// String is the word captions use.
func (s Size) String() string { return name(sizeNames, int(s)) }

// String is the phrase captions use after "at the"; Anywhere is empty.
func (p Position) String() string { return name(positionNames, int(p)) }

// String is the phrase captions use between two objects; NoRelation is empty.
func (r Relation) String() string { return name(relationNames, int(r)) }

// Inverse is the relation seen from the second object.
func (r Relation) Inverse() Relation {
	switch r {
	case Above:
		return Below
	case Below:
		return Above
	case LeftOf:
		return RightOf
	case RightOf:
		return LeftOf
	}
	return r
}

// Object is one shape of a scene.
type Object struct {
	Size  Size
	Color Color
	Shape Shape
}

// String is the object's noun phrase without article: "small red circle".
func (o Object) String() string {
	return o.Size.String() + " " + o.Color.String() + " " + o.Shape.String()
}

// Scene is what a caption says: one object, perhaps with a position, or two objects
// with a relation of the first to the second.
type Scene struct {
	Objects  []Object
	Position Position
	Relation Relation
}

// Caption writes the scene in the package's grammar.
func (s Scene) Caption() string {
	var b strings.Builder
	for i, o := range s.Objects {
		if i > 0 {
			b.WriteString(" " + s.Relation.String() + " ")
		}
		b.WriteString("a " + o.String())
	}
	if s.Position != Anywhere {
		b.WriteString(" at the " + s.Position.String())
	}
	return b.String()
}

// Check tells whether the grammar can express the scene.
func (s Scene) Check() error {
	for _, o := range s.Objects {
		if o.Size >= numSizes || o.Color >= numColors || o.Shape >= numShapes {
			return fmt.Errorf("scene: unknown object %q", o)
		}
	}
	if s.Position >= numPositions || s.Relation >= numRelations {
		return fmt.Errorf("scene: unknown position %d or relation %d", s.Position, s.Relation)
	}
	switch len(s.Objects) {
	case 1:
		if s.Relation != NoRelation {
			return fmt.Errorf("scene: one object cannot be %q another", s.Relation)
		}
	case 2:
		a, b := s.Objects[0], s.Objects[1]
		if s.Relation == NoRelation || s.Position != Anywhere {
			return fmt.Errorf("scene: a pair needs a relation and no position")
		}
		if a.Color == b.Color && a.Shape == b.Shape {
			return fmt.Errorf("scene: both objects are a %v %v; they must differ in colour or shape", a.Color, a.Shape)
		}
	default:
		return fmt.Errorf("scene: has %d objects, want 1 or 2", len(s.Objects))
	}
	return nil
}

// ParseCaption reads a caption of the package's grammar, in any letter case and
// spacing. The error names the word that does not fit and what could stand there.
func ParseCaption(caption string) (Scene, error) {
	p := parser{caption: caption, words: strings.Fields(strings.ToLower(caption))}
	var s Scene
	s.Objects = append(s.Objects, p.object())
	if p.err == nil && p.at < len(p.words) {
		if p.words[p.at] == "at" {
			p.at++
			p.expect("the")
			s.Position = Position(p.phrase("a position", positionNames))
		} else {
			s.Relation = Relation(p.phrase("a relation", relationNames))
			s.Objects = append(s.Objects, p.object())
		}
	}
	if p.err == nil && p.at < len(p.words) {
		p.fail("the end of the caption")
	}
	if p.err == nil {
		if err := s.Check(); err != nil {
			p.err = fmt.Errorf("caption %q: %w", caption, err)
		}
	}
	if p.err != nil {
		return Scene{}, p.err
	}
	return s, nil
}

type parser struct {
	caption string
	words   []string
	at      int
	err     error
}

func (p *parser) fail(want string) {
	if p.err != nil {
		return
	}
	if p.at < len(p.words) {
		p.err = fmt.Errorf("caption %q: word %d is %q, want %s", p.caption, p.at+1, p.words[p.at], want)
	} else {
		p.err = fmt.Errorf("caption %q: ends early, want %s", p.caption, want)
	}
}

func (p *parser) expect(word string) {
	if p.err == nil && p.at < len(p.words) && p.words[p.at] == word {
		p.at++
		return
	}
	p.fail(fmt.Sprintf("%q", word))
}

// phrase reads one of the non-empty names, of any number of words.
func (p *parser) phrase(kind string, names []string) int {
	if p.err != nil {
		return 0
	}
	rest := strings.Join(p.words[p.at:], " ") + " "
	for i, n := range names {
		if n != "" && strings.HasPrefix(rest, n+" ") {
			p.at += len(strings.Fields(n))
			return i
		}
	}
	var known []string
	for _, n := range names {
		if n != "" {
			known = append(known, n)
		}
	}
	p.fail(kind + " (" + strings.Join(known, ", ") + ")")
	return 0
}

func (p *parser) object() Object {
	p.expect("a")
	size := p.phrase("a size", sizeNames)
	color := p.phrase("a color", colorNames)
	shape := p.phrase("a shape", shapeNames)
	return Object{Size(size), Color(color), Shape(shape)}
}
