package mask

// The layer masks of the paper (figure 11) for a stream of one start token,
// text tokens and an image of h rows of w tokens, of which the last is only
// predicted, so that it has Len(text, w, h) positions. Start and text are
// causal among themselves and seen by every image token; what image tokens
// see of the image differs. The patterns depend on distances alone, so h has
// no influence on them; it is an argument to keep calls alike.

// Len is the number of positions of a stream: 1 + text + w*h - 1.
func Len(text, w, h int) int { return text + w*h }

func stream(text int, image Mask) Mask { return Causal().And(Prefix(text + 1).Or(image)) }

// Row lets an image token see the raster back to the token right above it:
// w+1 tokens with itself.
func Row(text, w, _ int) Mask { return stream(text, RowWindow(w)) }

// Column lets an image token see its column up to itself.
func Column(text, w, _ int) Mask { return stream(text, ColumnStride(w)) }

// Conv lets an image token see the causal part of the k by k window around it.
func Conv(text, w, _, k int) Mask { return stream(text, ConvWindow(k, w)) }

// ConvSize is the paper's window of the convolutional mask.
const ConvSize = 11

// Kind is one of the layer masks.
type Kind string

// The kinds of layer masks.
const (
	RowKind    Kind = "row"
	ColumnKind Kind = "column"
	ConvKind   Kind = "conv"
)

// Order is the mask of each of n layers: the last is convolutional; of the
// others, layer i (from 1) is a column where (i-2) mod 4 = 0, else a row
// (appendix B.1).
func Order(n int) []Kind {
	out := make([]Kind, n)
	for i := 1; i <= n; i++ {
		switch {
		case i == n:
			out[i-1] = ConvKind
		case (i-2)%4 == 0:
			out[i-1] = ColumnKind
		default:
			out[i-1] = RowKind
		}
	}
	return out
}

// Layers is the mask of each of n layers of a text-and-image stream.
func Layers(n, text, w, h int) []Mask {
	out := make([]Mask, n)
	for i, k := range Order(n) {
		switch k {
		case RowKind:
			out[i] = Row(text, w, h)
		case ColumnKind:
			out[i] = Column(text, w, h)
		case ConvKind:
			out[i] = Conv(text, w, h, ConvSize)
		}
	}
	return out
}
