package clip

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Config is the size of a contrastive model; both towers have the same depth.
type Config struct {
	ImageSize, Patch     int // pixels; Patch divides ImageSize
	ImageDim, ImageHeads int
	// Stem is the number of channels of the first of the stem's convolutions,
	// which halve the picture until a pixel is a patch and double the channels.
	// 0 projects patches of pixels, as CLIP's ViT does; a stem of convolutions
	// learns faster (Xiao et al. 2021, "Early convolutions help transformers see
	// better").
	Stem               int
	TextLen, TextVocab int
	TextDim, TextHeads int
	Layers             int
	MLP                int // width of the MLPs in multiples of the dimension; 0 is CLIP's 4
	Embed              int // size of the shared space
	Batch              int // pairs of train and eval
	EmbedBatch         int // of embed_image and embed_text; 0 is Batch
	Optimizer          nn.AdamW
}

// maxScale limits the factor on similarities.
const maxScale = 100

func (c Config) check() error {
	switch {
	case c.ImageSize < 1 || c.Patch < 1 || c.ImageDim < 1 || c.ImageHeads < 1 || c.TextLen < 1 || c.TextVocab < 1 || c.TextDim < 1 || c.TextHeads < 1 || c.Layers < 1 || c.MLP < 0 || c.Embed < 1 || c.Batch < 1 || c.EmbedBatch < 0:
		return fmt.Errorf("clip: %+v: sizes must be positive", c)
	case c.ImageSize%c.Patch != 0:
		return fmt.Errorf("clip: patches of %d don't divide an image of %d", c.Patch, c.ImageSize)
	case c.Stem < 0 || c.Stem > 0 && (c.Patch < 2 || c.Patch&(c.Patch-1) != 0):
		return fmt.Errorf("clip: a stem of %d channels with patches of %d; a stem needs patches of 2, 4, 8, ... pixels", c.Stem, c.Patch)
	case c.ImageDim%c.ImageHeads != 0:
		return fmt.Errorf("clip: %d heads don't divide image width %d", c.ImageHeads, c.ImageDim)
	case c.TextDim%c.TextHeads != 0:
		return fmt.Errorf("clip: %d heads don't divide text width %d", c.TextHeads, c.TextDim)
	}
	return nil
}

// Build makes the module "clip".
func Build(c Config) (*ir.Module, error) {
	if c.EmbedBatch == 0 {
		c.EmbedBatch = c.Batch
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	m := ir.NewModule("clip")
	c.train(m.NewFunc("train"))
	c.eval(m.NewFunc("eval"))
	f := m.NewFunc("embed_image")
	f.Result("features", c.imageTower(f, c.EmbedBatch))
	f = m.NewFunc("embed_text")
	f.Result("features", c.textTower(f, c.EmbedBatch))
	nn.Averages(m)
	for _, f := range m.Funcs {
		if err := f.Err(); err != nil {
			return nil, fmt.Errorf("clip: %s: %w", f.Name, err)
		}
	}
	return m, nil
}

func (c Config) train(f *ir.Func) {
	loss, _ := c.loss(f)
	c.Optimizer.Update(f, loss)
}

func (c Config) eval(f *ir.Func) {
	_, cosines := c.loss(f)
	f.Result("similarity", cosines)
}

// loss declares the inputs, and the results loss, accuracy and scale.
func (c Config) loss(f *ir.Func) (loss, cosines *ir.Value) {
	image := c.imageTower(f, c.Batch)
	text := c.textTower(f, c.Batch)
	f.Region("loss", false, func() {
		t := nn.In(f).Param("temperature", nn.Value(math.Log(1/0.07)))
		scale := ops.Min(ops.Exp(t), ops.Scalar(f, maxScale))
		cosines = ops.MatMulT(image, text)
		logits := ops.Mul(cosines, scale)
		pair := ops.Iota(f, 0, c.Batch)
		a, b := nn.CrossEntropy(logits, pair), nn.CrossEntropy(ops.Transpose(logits), pair)
		loss = ops.MulConst(ops.Add(a, b), 0.5)
		hit := ops.Cast(ops.Eq(ops.Argmax(cosines), pair), ir.F32)
		f.Result("loss", loss)
		f.Result("accuracy", ops.Mean(hit))
		f.Result("scale", scale)
	})
	return loss, cosines
}

// imageTower declares the input images and gives unit features [b,Embed].
func (c Config) imageTower(f *ir.Func, b int) *ir.Value {
	images := f.Input("images", ir.T(ir.F32, b, c.ImageSize, c.ImageSize, 3))
	s := nn.In(f).Sub("image")
	g, d := c.ImageSize/c.Patch, c.ImageDim
	n := g*g + 1
	std := 1 / math.Sqrt(float64(d))
	var x *ir.Value
	f.Region("image.embed", false, func() {
		centred := ops.AddConst(ops.MulConst(images, 2), -1)
		rows := c.patches(s, centred, b)
		if rows.Invalid() {
			x = rows
			return
		}
		e := ops.Reshape(nn.Matrix(s, "patch", rows, d, 1/math.Sqrt(float64(rows.Type.Shape[1]))), b, g*g, d)
		class := ops.BroadcastTo(s.Position("class", nn.Normal(std), 1, d), b, 1, d)
		x = ops.Add(ops.Concat(1, class, e), s.Position("position", nn.Normal(std), n, d))
		x = ops.Reshape(nn.LayerNorm(s, "pre", x, 1e-5), b*n, d)
	})
	block := nn.CLIPTransformer(d, c.ImageHeads, c.Layers, c.MLP)
	for i := range c.Layers {
		x = block.Apply(s, i, b, x, nn.Masked(mask.All()))
	}
	f.Region("image.head", false, func() {
		class := ops.Reshape(ops.SliceAxis(ops.Reshape(x, b, n, d), 1, 0, 1), b, d)
		y := nn.LayerNorm(s, "post", class, 1e-5)
		x = nn.Unit(ops.MatMul(y, s.Param("projection", nn.Normal(std), d, c.Embed)))
	})
	return x
}

// patches gives what image tokens are made of, a row for each patch: its
// pixels, or what the stem makes of it and its surroundings.
func (c Config) patches(s nn.Scope, images *ir.Value, b int) *ir.Value {
	g, p := c.ImageSize/c.Patch, c.Patch
	if c.Stem == 0 {
		// A convolution with stride p is a matrix product over patches.
		x := ops.Transpose(ops.Reshape(images, b, g, p, g, p, 3), 0, 1, 3, 2, 4, 5)
		return ops.Reshape(x, b*g*g, p*p*3)
	}
	x, n := images, c.Stem
	for i := 0; p > 1; i++ {
		if i > 0 {
			n *= 2
		}
		x, p = ops.MaxPool2D(ops.ReLU(nn.Conv(s, fmt.Sprintf("stem%d", i+1), x, 3, n)), 2), p/2
	}
	return ops.Reshape(x, b*g*g, n)
}

// textTower declares the inputs text and end and gives unit features
// [b,Embed].
func (c Config) textTower(f *ir.Func, b int) *ir.Value {
	text := f.Input("text", ir.T(ir.I32, b, c.TextLen))
	end := f.Input("end", ir.T(ir.I32, b))
	s := nn.In(f).Sub("text")
	t, d := c.TextLen, c.TextDim
	var x *ir.Value
	f.Region("text.embed", false, func() {
		e := nn.Embedding(s, "token", text, c.TextVocab, d, 0.02)
		x = ops.Reshape(ops.Add(e, s.Position("position", nn.Normal(0.01), t, d)), b*t, d)
	})
	block := nn.CLIPTransformer(d, c.TextHeads, c.Layers, c.MLP)
	for i := range c.Layers {
		x = block.Apply(s, i, b, x, nn.Masked(mask.Causal()))
	}
	f.Region("text.head", false, func() {
		first := ops.Mul(ops.Iota(f, 0, b), ops.Full(f, ir.T(ir.I32), float64(t)))
		last := ops.Take(x, ops.Add(first, end))
		y := nn.LayerNorm(s, "norm", last, 1e-5)
		x = nn.Unit(ops.MatMul(y, s.Param("projection", nn.Normal(1/math.Sqrt(float64(d))), d, c.Embed)))
	})
	return x
}
