// Package shapes is the built-in source of captioned images: small scenes of one
// or two coloured shapes, drawn by the program from a seed, and a judge that reads
// a picture back into what it shows.
//
// It exists so that a whole text-to-image system can be trained and measured
// without downloading anything: captions follow a small grammar, some combinations
// are held out of training, and Judge scores pictures of a trained model without a
// second learned model. It is not a substitute for photographs, and the judge knows
// only this package's colours and shapes.
//
// Captions:
//
//	a SIZE COLOR SHAPE
//	a SIZE COLOR SHAPE at the POSITION
//	a SIZE COLOR SHAPE RELATION a SIZE COLOR SHAPE
//
// with sizes small and large; colours red, green, blue, yellow, purple, orange,
// cyan and black; shapes circle, square, triangle and cross; positions top left, top
// right, bottom left, bottom right and center; relations above, below, to the left
// of and to the right of. The two objects of a pair differ in colour or in shape.
//
// Held out of training (see HeldOut):
//   - a positioned single, if the hash of (size, colour, shape, position) is 0 modulo 10;
//   - a pair, if the hash of (colour, shape, relation, colour, shape) is 0 modulo 10,
//     whatever the sizes. "A below B" is hashed as "B above A", and "A to the right of
//     B" as "B to the left of A": the two captions describe the same picture.
//
// A single without a position is never held out, but its training picture is never
// drawn where its position would be a held-out one. So no training picture shows a
// held-out combination.
//
// Start with Source for pictures, Scene for the grammar, Judge for scoring.
package shapes
