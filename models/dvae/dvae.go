package dvae

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
)

// Config is the size of a dVAE. Groups are separated by a factor 2 in
// resolution, so tokens form a grid of side ImageSize/2^(Groups-1).
type Config struct {
	ImageSize      int // side in pixels
	Width          int // channels at full resolution (n_hid); doubles with each group
	Groups         int
	BlocksPerGroup int
	Stem           int // kernel of the encoder's first convolution, odd
	Codebook       int // number of token values
	CodeDim        int // size of a codebook vector
	Batch          int // of train and eval
	CodeBatch      int // of encode and decode; 0 is Batch
	Optimizer      nn.AdamW

	// What short runs need different from the paper's three million updates;
	// 0 is the release's value.
	CodeStd     float64 // standard deviation of the initial codebook; 0 is 1/sqrt(Codebook)
	Narrow      int     // blocks narrow to 1/Narrow of their width; 0 is 4
	Gain        float64 // factor on residual branches; 0 is 1/L^2 with L blocks in the network
	MinLogScale float64 // lower limit of ln b; 0 is -7
	// UsageWeight adds that multiple of the log of a code's running share of all
	// tokens to its logit before the argmax that makes tokens. The KL term
	// spreads what is one thing, such as background, over many codes that decode
	// alike; which of them has the largest logit is noise that the transformer
	// would have to learn. Among codes that explain a patch about as well the
	// usual one is taken instead: entropy-constrained quantisation (Chou,
	// Lookabaugh and Gray 1989). 0 is the paper's plain argmax.
	UsageWeight float64
}

// Usage of codes: how fast the running share follows, and what is added to it
// so that a code that was never taken can be.
const (
	usageDecay = 0.99
	usageFloor = 1e-5
)

// Margin is e of the map phi(x) = (1-2e)x + e, which keeps pixels off 0 and 1.
const Margin = 0.1

// maxLogScale limits |ln b|, unless MinLogScale does from below: the density
// has no bound as b goes to 0.
const maxLogScale = 7

// Grid is the side of the token grid.
func (c Config) Grid() int { return c.ImageSize >> (c.Groups - 1) }

func (c Config) narrow() int {
	if c.Narrow == 0 {
		return 4
	}
	return c.Narrow
}

func (c Config) check() error {
	switch {
	case c.ImageSize < 1 || c.Width < 4 || c.Groups < 1 || c.BlocksPerGroup < 1 || c.Codebook < 2 || c.CodeDim < 1 || c.Batch < 1 || c.CodeBatch < 0:
		return fmt.Errorf("dvae: %+v: sizes must be positive, width at least 4, codebook at least 2", c)
	case c.Stem%2 != 1:
		return fmt.Errorf("dvae: stem kernel %d is even; zero padding of (k-1)/2 needs an odd one", c.Stem)
	case c.ImageSize%(1<<(c.Groups-1)) != 0:
		return fmt.Errorf("dvae: image size %d is no multiple of 2^%d, the factor between image and tokens", c.ImageSize, c.Groups-1)
	case c.UsageWeight < 0:
		return fmt.Errorf("dvae: usage weight %g is negative; want 0 for none, or up to about 1", c.UsageWeight)
	case c.Narrow < 0 || c.Width%c.narrow() != 0:
		return fmt.Errorf("dvae: width %d is no multiple of %d, what blocks narrow by", c.Width, c.narrow())
	}
	return nil
}

// Build makes the module "dvae".
func Build(c Config) (*ir.Module, error) {
	if c.CodeBatch == 0 {
		c.CodeBatch = c.Batch
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	m := ir.NewModule("dvae")
	c.train(m.NewFunc("train"))
	c.eval(m.NewFunc("eval"))
	c.encode(m.NewFunc("encode"))
	c.decode(m.NewFunc("decode"))
	nn.Averages(m)
	for _, f := range m.Funcs {
		if err := f.Err(); err != nil {
			return nil, fmt.Errorf("dvae: %s: %w", f.Name, err)
		}
	}
	return m, nil
}

func (c Config) images(f *ir.Func, batch int) *ir.Value {
	return f.Input("images", ir.T(ir.F32, batch, c.ImageSize, c.ImageSize, 3))
}

func (c Config) train(f *ir.Func) {
	images := c.images(f, c.Batch)
	seed, step := f.Input("seed", ir.T(ir.I32)), f.Input("step", ir.T(ir.I32))
	tau, beta := f.Input("tau", ir.T(ir.F32)), f.Input("beta", ir.T(ir.F32))
	logits := c.encoder(f, images)
	var soft *ir.Value
	f.Region("relax", false, func() {
		rows := c.Batch * c.Grid() * c.Grid()
		u := ops.RandomUniform(seed, step, 0, rows, c.Codebook)
		gumbel := ops.Neg(ops.Log(ops.Neg(ops.Log(u))))
		soft = nn.Softmax(ops.Div(ops.Add(logits, gumbel), tau))
	})
	loss := c.loss(f, images, logits, c.decoder(f, c.code(f, soft, c.Batch)), beta)
	tokens := c.tokens(logits, c.Batch)
	f.Result("tokens", tokens)
	c.countUsage(f, tokens)
	c.Optimizer.Update(f, loss)
}

func (c Config) eval(f *ir.Func) {
	images := c.images(f, c.Batch)
	beta := f.Input("beta", ir.T(ir.F32))
	logits := c.encoder(f, images)
	tokens := c.tokens(logits, c.Batch)
	out := c.decoder(f, c.lookup(f, tokens))
	c.loss(f, images, logits, out, beta)
	f.Result("mse", ops.Mean(ops.Square(ops.Sub(pixels(out), images))))
	f.Result("tokens", tokens)
}

func (c Config) encode(f *ir.Func) {
	f.Result("tokens", c.tokens(c.encoder(f, c.images(f, c.CodeBatch)), c.CodeBatch))
}

func (c Config) decode(f *ir.Func) {
	tokens := f.Input("tokens", ir.T(ir.I32, c.CodeBatch, c.Grid(), c.Grid()))
	f.Result("images", pixels(c.decoder(f, c.lookup(f, tokens))))
}

// tokens is the argmax of logits[rows,Codebook] as i32[batch,h,w]; see
// UsageWeight.
func (c Config) tokens(logits *ir.Value, batch int) *ir.Value {
	if c.UsageWeight > 0 && !logits.Invalid() {
		usual := ops.Log(ops.AddConst(c.usage(logits.Func), usageFloor))
		logits = ops.Add(logits, ops.MulConst(usual, c.UsageWeight))
	}
	return ops.Reshape(ops.Argmax(logits), batch, c.Grid(), c.Grid())
}

// usage reads the running share of every code.
func (c Config) usage(f *ir.Func) *ir.Value {
	return nn.In(f).Sub("enc").Buffer("usage", nn.Value(1/float64(c.Codebook)), c.Codebook)
}

// countUsage moves the shares towards those of a batch's tokens.
func (c Config) countUsage(f *ir.Func, tokens *ir.Value) {
	if c.UsageWeight == 0 || tokens.Invalid() {
		return
	}
	f.Region("usage", false, func() {
		rows := tokens.Type.Len()
		codes := ops.Iota(f, 0, c.Codebook)
		hit := ops.Cast(ops.Eq(ops.Reshape(tokens, rows, 1), codes), ir.F32)
		share, usage := ops.MulConst(ops.Sum(hit, 0), (1-usageDecay)/float64(rows)), c.usage(f)
		f.Update(usage.Global, ops.Add(ops.MulConst(usage, usageDecay), share))
	})
}

// encoder gives the logits [B*h*w,Codebook].
func (c Config) encoder(f *ir.Func, images *ir.Value) *ir.Value {
	s := nn.In(f).Sub("enc")
	x := images
	f.Region("enc.in", false, func() { x = nn.Conv(s, "in", x, c.Stem, c.Width) })
	for g := range c.Groups {
		for b := range c.BlocksPerGroup {
			x = c.block(s, g, b, x, c.Width<<g, []int{3, 3, 3, 1})
		}
		if g < c.Groups-1 {
			x = ops.MaxPool2D(x, 2)
		}
	}
	f.Region("enc.out", false, func() { x = nn.Conv(s, "out", ops.ReLU(x), 1, c.Codebook) })
	if x.Invalid() {
		return x
	}
	return ops.Reshape(x, x.Type.Len()/c.Codebook, c.Codebook)
}

// code is the decoder's first 1x1 convolution on a distribution over codes
// [rows,Codebook]: its weight is the codebook, [Codebook,CodeDim].
func (c Config) code(f *ir.Func, soft *ir.Value, batch int) *ir.Value {
	var x *ir.Value
	f.Region("dec.in", false, func() {
		table, bias := c.codebook(f)
		x = ops.Reshape(ops.Add(ops.MatMul(soft, table), bias), batch, c.Grid(), c.Grid(), c.CodeDim)
	})
	return x
}

// lookup is code for hard tokens i32[B,h,w]: a row of the codebook each.
func (c Config) lookup(f *ir.Func, tokens *ir.Value) *ir.Value {
	var x *ir.Value
	f.Region("dec.in", false, func() {
		table, bias := c.codebook(f)
		x = ops.Add(ops.Take(table, tokens), bias)
	})
	return x
}

func (c Config) codebook(f *ir.Func) (table, bias *ir.Value) {
	s := nn.In(f).Sub("dec")
	std := c.CodeStd
	if std == 0 {
		std = 1 / math.Sqrt(float64(c.Codebook))
	}
	return s.Param("in.w", nn.Normal(std), c.Codebook, c.CodeDim), s.Param("in.b", nn.Zeros(), c.CodeDim)
}

// decoder turns code vectors [B,h,w,CodeDim] into [B,S,S,6]: mu, then ln b.
func (c Config) decoder(f *ir.Func, x *ir.Value) *ir.Value {
	s := nn.In(f).Sub("dec")
	for g := range c.Groups {
		for b := range c.BlocksPerGroup {
			x = c.block(s, g, b, x, c.Width<<(c.Groups-1-g), []int{1, 3, 3, 3})
		}
		if g < c.Groups-1 {
			x = ops.Upsample(x, 2)
		}
	}
	f.Region("dec.out", false, func() { x = nn.Conv(s, "out", ops.ReLU(x), 1, 6) })
	return x
}

// block is the release's residual block: four convolutions, each after a ReLU,
// through a quarter of the width (see Narrow), scaled by Gain. The skip path is a 1x1 convolution where the width changes.
func (c Config) block(s nn.Scope, group, index int, x *ir.Value, width int, kernels []int) *ir.Value {
	if x.Invalid() {
		return x
	}
	l := s.Sub("group%d.block%d", group+1, index+1)
	gain := c.Gain
	if gain == 0 {
		layers := float64(c.Groups * c.BlocksPerGroup)
		gain = 1 / (layers * layers)
	}
	s.Func.Region(l.Name(), false, func() {
		h := x
		for i, k := range kernels {
			n := width / c.narrow()
			if i == len(kernels)-1 {
				n = width
			}
			h = nn.Conv(l, fmt.Sprintf("conv%d", i+1), ops.ReLU(h), k, n)
		}
		skip := x
		if x.Type.Shape[3] != width {
			skip = nn.Conv(l, "skip", x, 1, width)
		}
		x = ops.Add(skip, ops.MulConst(h, gain))
	})
	return x
}

// loss declares the results loss, reconstruction and kl. logits is
// [B*h*w,Codebook], out the decoder's [B,S,S,6].
func (c Config) loss(f *ir.Func, images, logits, out, beta *ir.Value) *ir.Value {
	var loss *ir.Value
	f.Region("loss", false, func() {
		reconstruction := ops.Mean(c.laplace(images, out))
		// KL(q || uniform) = ln K - H(q), from the plain logits.
		lse := nn.LogSumExp(logits)
		logq := ops.Sub(logits, lse)
		perRow := ops.AddConst(ops.Sum(ops.Mul(ops.Exp(logq), logq), 1), math.Log(float64(c.Codebook)))
		kl := ops.Mean(perRow)
		if kl.Invalid() || reconstruction.Invalid() {
			loss = kl
			return
		}
		perValue := float64(c.Grid()*c.Grid()) / float64(c.ImageSize*c.ImageSize*3)
		loss = ops.Add(reconstruction, ops.Mul(beta, ops.MulConst(kl, perValue)))
		f.Result("loss", loss)
		f.Result("reconstruction", reconstruction)
		f.Result("kl", kl)
	})
	return loss
}

// laplace is -ln of the logit-Laplace density of phi(images), per value:
// ln 2 + ln b + ln(x(1-x)) + |logit(x)-mu|/b (appendix A.3).
func (c Config) laplace(images, out *ir.Value) *ir.Value {
	if out.Invalid() {
		return out
	}
	lowest := c.MinLogScale
	if lowest == 0 {
		lowest = -maxLogScale
	}
	mu, lnb := ops.SliceAxis(out, 3, 0, 3), ops.Clamp(ops.SliceAxis(out, 3, 3, 6), lowest, maxLogScale)
	x := ops.AddConst(ops.MulConst(images, 1-2*Margin), Margin)
	rest := ops.AddConst(ops.Neg(x), 1)
	lnx, lnr := ops.Log(x), ops.Log(rest)
	distance := ops.Abs(ops.Sub(ops.Sub(lnx, lnr), mu))
	scaled := ops.Mul(distance, ops.Exp(ops.Neg(lnb)))
	return ops.Add(ops.AddConst(ops.Add(lnb, ops.Add(lnx, lnr)), math.Ln2), scaled)
}

// pixels is phi^-1(sigmoid(mu)), clamped to [0,1].
func pixels(out *ir.Value) *ir.Value {
	if out.Invalid() {
		return out
	}
	y := ops.Sigmoid(ops.SliceAxis(out, 3, 0, 3))
	return ops.Clamp(ops.MulConst(ops.AddConst(y, -Margin), 1/(1-2*Margin)), 0, 1)
}
