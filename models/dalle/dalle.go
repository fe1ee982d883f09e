package dalle

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Config is the size of a transformer.
type Config struct {
	TextLen, TextVocab      int
	GridW, GridH            int // image tokens a row, rows
	ImageVocab              int
	Dim, Heads, Layers, MLP int // MLP: width of the MLPs in multiples of Dim, 0 for the paper's 4
	Kernel                  int // side of the last layer's convolutional window, odd (paper: 11)
	Batch                   int // of train and eval
	SampleBatch             int // of decode
	Optimizer               nn.AdamW
}

// Image is the number of image tokens.
func (c Config) Image() int { return c.GridW * c.GridH }

// Stream is the number of positions, also of the KV caches.
func (c Config) Stream() int { return c.TextLen + c.Image() }

// TextClasses is the number of text targets: tokens and pads.
func (c Config) TextClasses() int { return c.TextVocab + c.TextLen }

// Start is the start token's row in the embedding; image token i has row
// Start+1+i.
func (c Config) Start() int { return c.TextClasses() }

func (c Config) check() error {
	switch {
	case c.TextLen < 1 || c.TextVocab < 1 || c.GridW < 1 || c.GridH < 1 || c.ImageVocab < 1 || c.Dim < 1 || c.Heads < 1 || c.Layers < 1 || c.MLP < 0 || c.Batch < 1 || c.SampleBatch < 1:
		return fmt.Errorf("prior: %+v: sizes must be positive", c)
	case c.Image() < 2:
		return fmt.Errorf("prior: a grid of %dx%d has nothing to predict from; use at least 2 image tokens", c.GridW, c.GridH)
	case c.Dim%c.Heads != 0:
		return fmt.Errorf("prior: %d heads don't divide width %d", c.Heads, c.Dim)
	case c.Kernel%2 != 1:
		return fmt.Errorf("prior: kernel %d of the convolutional mask is even; it is centred, so make it odd", c.Kernel)
	}
	return nil
}

// Mask is the attention mask of layer i, counted from 0, over the stream's
// positions. Of 64 layers 47 are row, 16 column and the last conv (appendix
// B.1).
func (c Config) Mask(i int) mask.Mask {
	switch mask.Order(c.Layers)[i] {
	case mask.ColumnKind:
		return mask.Column(c.TextLen, c.GridW, c.GridH)
	case mask.ConvKind:
		return mask.Conv(c.TextLen, c.GridW, c.GridH, c.Kernel)
	}
	return mask.Row(c.TextLen, c.GridW, c.GridH)
}

// Build makes the module "prior".
func Build(c Config) (*ir.Module, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := ir.NewModule("prior")
	c.train(m.NewFunc("train"))
	c.eval(m.NewFunc("eval"))
	c.logits(m.NewFunc("logits"))
	c.prefill(m.NewFunc("prefill"))
	c.decode(m.NewFunc("decode"))
	nn.Averages(m)
	for _, f := range m.Funcs {
		if err := f.Err(); err != nil {
			return nil, fmt.Errorf("prior: %s: %w", f.Name, err)
		}
	}
	return m, nil
}

func (c Config) train(f *ir.Func) {
	c.Optimizer.Update(f, c.loss(f))
}

func (c Config) eval(f *ir.Func) { c.loss(f) }

func (c Config) logits(f *ir.Func) {
	_, _, toText, toImage := c.forward(f)
	f.Result("text_logits", ops.Reshape(c.textLogits(toText), c.Batch, c.TextLen, c.TextClasses()))
	f.Result("image_logits", ops.Reshape(c.imageLogits(toImage), c.Batch, c.Image(), c.ImageVocab))
}

// loss declares the inputs and losses of a batch.
func (c Config) loss(f *ir.Func) *ir.Value {
	text, image, toText, toImage := c.forward(f)
	t := nn.CrossEntropyOf("text_loss", toText, c.TextClasses(), ops.Reshape(text, c.Batch*c.TextLen), c.textLogits)
	i := nn.CrossEntropyOf("image_loss", toImage, c.ImageVocab, ops.Reshape(image, c.Batch*c.Image()), c.imageLogits)
	var loss *ir.Value
	f.Region("loss", false, func() {
		loss = ops.Add(ops.MulConst(t, 1.0/8), ops.MulConst(i, 7.0/8))
		f.Result("loss", loss)
		f.Result("text_loss", t)
		f.Result("image_loss", i)
	})
	return loss
}

// forward gives the inputs, and the rows that text and image logits are made
// of, [B*TextLen,Dim] and [B*N,Dim].
func (c Config) forward(f *ir.Func) (text, image, toText, toImage *ir.Value) {
	b, d, t := c.Batch, c.Dim, c.Stream()
	text = f.Input("text", ir.T(ir.I32, b, c.TextLen))
	image = f.Input("image", ir.T(ir.I32, b, c.Image()))
	var x *ir.Value
	f.Region("embed", false, func() {
		start := ops.Full(f, ir.T(ir.I32, b, 1), float64(c.Start()))
		seen := ops.Add(ops.SliceAxis(image, 1, 0, c.Image()-1), c.offset(f))
		e := ops.Take(c.table(f), ops.Concat(1, start, text, seen))
		x = ops.Reshape(ops.Add(e, c.positions(f)), b*t, d)
	})
	for i := range c.Layers {
		x = c.block().Apply(nn.In(f), i, b, x, nn.Masked(c.Mask(i)))
	}
	f.Region("unembed", false, func() {
		h := ops.Reshape(c.final(f, x), b, t, d)
		toText = ops.Reshape(ops.SliceAxis(h, 1, 0, c.TextLen), b*c.TextLen, d)
		toImage = ops.Reshape(ops.SliceAxis(h, 1, c.TextLen, t), b*c.Image(), d)
	})
	return text, image, toText, toImage
}

// prefix is the number of positions that candidates of a caption have in common:
// start token and text.
func (c Config) prefix() int { return c.TextLen + 1 }

// prefill runs start token and text of one caption at once, into the caches of
// stream slot. Among them every layer's mask is plain causal.
func (c Config) prefill(f *ir.Func) {
	text, slot := f.Input("text", ir.T(ir.I32, 1, c.TextLen)), f.Input("slot", ir.T(ir.I32))
	var x *ir.Value
	f.Region("embed", false, func() {
		start := ops.Full(f, ir.T(ir.I32, 1, 1), float64(c.Start()))
		e := ops.Take(c.table(f), ops.Concat(1, start, text))
		x = ops.Reshape(ops.Add(e, c.textPositions(f)), c.prefix(), c.Dim)
	})
	for i := range c.Layers {
		x = c.block().Apply(nn.In(f), i, 1, x, func(q, k, v *ir.Value) *ir.Value {
			// The streams' caches lie one after the other.
			first := ops.Mul(slot, ops.Full(f, ir.T(ir.I32), float64(c.Stream())))
			write := func(name string, rows *ir.Value) {
				cache := c.cache(f, i, name)
				all := ops.Reshape(cache, 1, c.SampleBatch*c.Stream(), c.Heads, c.Dim/c.Heads)
				f.Update(cache.Global, ops.Reshape(ops.CacheWrite(all, rows, first), cache.Type.Shape...))
			}
			write("k", k)
			write("v", v)
			return ops.Attention(q, k, v, mask.Causal())
		})
	}
	f.Region("unembed", false, func() {
		f.Result("logits", c.imageLogits(c.final(f, ops.SliceAxis(x, 0, c.TextLen, c.prefix()))))
	})
}

// decode runs one position of every stream against the caches, and those with the
// stream's prefix.
func (c Config) decode(f *ir.Func) {
	b := c.SampleBatch
	token, slot := f.Input("token", ir.T(ir.I32, b)), f.Input("slot", ir.T(ir.I32, b))
	pos := f.Input("pos", ir.T(ir.I32))
	var x *ir.Value
	f.Region("embed", false, func() {
		i32 := ir.T(ir.I32)
		isText := ops.Le(pos, ops.Full(f, i32, float64(c.TextLen)))
		isStart := ops.Eq(pos, ops.Full(f, i32, 0))
		id := ops.Select(isText, token, ops.Add(token, c.offset(f)))
		id = ops.Select(isStart, ops.Full(f, i32, float64(c.Start())), id)
		x = ops.Add(ops.Take(c.table(f), id), c.position(f, pos))
	})
	for i := range c.Layers {
		x = c.block().Apply(nn.In(f), i, b, x, func(q, k, v *ir.Value) *ir.Value {
			ck, cv := c.cache(f, i, "k"), c.cache(f, i, "v")
			k1, v1 := ops.CacheWrite(ck, k, pos), ops.CacheWrite(cv, v, pos)
			f.Update(ck.Global, k1)
			f.Update(cv.Global, v1)
			return ops.AttentionDecode(q, k1, v1, pos, slot, c.prefix(), c.Mask(i))
		})
	}
	f.Region("unembed", false, func() { f.Result("logits", c.imageLogits(c.final(f, x))) })
}

func (c Config) block() nn.Block { return nn.SparseTransformer(c.Dim, c.Heads, c.Layers, c.MLP) }

// cache is the KV cache [SampleBatch,Stream,Heads,Dim/Heads] of layer i.
func (c Config) cache(f *ir.Func, i int, name string) *ir.Value {
	t := ir.T(ir.F32, c.SampleBatch, c.Stream(), c.Heads, c.Dim/c.Heads)
	return nn.In(f).Sub("layer%d.cache", i).State(name, t)
}

// table is the embedding of all tokens: text, pads, start, image.
func (c Config) table(f *ir.Func) *ir.Value {
	return nn.In(f).Param("embed.token", nn.Normal(0.02), c.Start()+1+c.ImageVocab, c.Dim)
}

// offset is the row of image token 0 in table, as a scalar.
func (c Config) offset(f *ir.Func) *ir.Value {
	return ops.Full(f, ir.T(ir.I32), float64(c.Start()+1))
}

func (c Config) textPositions(f *ir.Func) *ir.Value {
	return nn.In(f).Position("embed.text_position", nn.Normal(0.01), c.prefix(), c.Dim)
}

// positions is the table [Stream,Dim] of position embeddings: learned ones for
// start token and text, sums of row and column embeddings for image tokens.
func (c Config) positions(f *ir.Func) *ir.Value {
	s := nn.In(f)
	text := c.textPositions(f)
	grid := ops.Reshape(ops.Add(c.rows(s), c.columns(s)), c.Image(), c.Dim)
	return ops.Concat(0, text, ops.SliceAxis(grid, 0, 0, c.Image()-1))
}

func (c Config) rows(s nn.Scope) *ir.Value {
	return s.Position("embed.row", nn.Normal(0.01), c.GridH, 1, c.Dim)
}

func (c Config) columns(s nn.Scope) *ir.Value {
	return s.Position("embed.column", nn.Normal(0.01), 1, c.GridW, c.Dim)
}

// position is row pos i32[] of positions, without the other rows.
func (c Config) position(f *ir.Func, pos *ir.Value) *ir.Value {
	s, i32 := nn.In(f), ir.T(ir.I32)
	whole := func(n int) *ir.Value { return ops.Full(f, i32, float64(n)) }
	text := ops.Take(c.textPositions(f), ops.Min(pos, whole(c.TextLen)))
	i := ops.Max(ops.Sub(pos, whole(c.TextLen+1)), whole(0))
	// Half a pixel to the right no rounding of the quotient crosses a row.
	row := ops.Cast(ops.Floor(ops.MulConst(ops.AddConst(ops.Cast(i, ir.F32), 0.5), 1/float64(c.GridW))), ir.I32)
	column := ops.Sub(i, ops.Mul(row, whole(c.GridW)))
	rows := ops.Reshape(c.rows(s), c.GridH, c.Dim)
	columns := ops.Reshape(c.columns(s), c.GridW, c.Dim)
	image := ops.Add(ops.Take(rows, row), ops.Take(columns, column))
	return ops.Select(ops.Le(pos, whole(c.TextLen)), text, image)
}

func (c Config) final(f *ir.Func, x *ir.Value) *ir.Value {
	return nn.LayerNorm(nn.In(f), "norm", x, 1e-6)
}

func (c Config) textLogits(x *ir.Value) *ir.Value {
	return nn.Matrix(nn.In(x.Func).Sub("unembed"), "text", x, c.TextClasses(), 0)
}

func (c Config) imageLogits(x *ir.Value) *ir.Value {
	return nn.Matrix(nn.In(x.Func).Sub("unembed"), "image", x, c.ImageVocab, 0)
}
