// Command gomlx times one training step of the transformer at the sizes T with GoMLX's own layers and trainer on its
// pure-Go backend. It takes minutes a step and 9 GiB. It is a module of its own, so that Gouache does not depend on
// GoMLX:
//
//	cd tests/peers/gomlx && go build -o ../../../bin/gomlx .
//
// then go run ./tests/peers -gomlx bin/gomlx.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"syscall"
	"time"

	"github.com/gomlx/gomlx/backends/simplego"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
	"github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/gomlx/pkg/ml/layers"
	"github.com/gomlx/gomlx/pkg/ml/layers/activations"
	"github.com/gomlx/gomlx/pkg/ml/train"
	"github.com/gomlx/gomlx/pkg/ml/train/losses"
	"github.com/gomlx/gomlx/pkg/ml/train/optimizers"
)

// The sizes T.
const (
	dim, heads, depth     = 256, 4, 4
	text, grid, batch     = 64, 16, 8
	textVocab, imageVocab = 2048, 1024
	image, stream         = grid * grid, text + grid*grid
	number                = dtypes.Float32
)

// kind is the mask of a layer, counted from 1.
func kind(layer int) string {
	switch {
	case layer == depth:
		return "conv"
	case (layer-2)%4 == 0:
		return "column"
	}
	return "row"
}

// mask tells which keys each position sees: image tokens all text and, causally, a part of the picture.
func mask(kind string) [][]bool {
	m := make([][]bool, stream)
	for p := range m {
		m[p] = make([]bool, stream)
		for q := 0; q < text && (q <= p || p >= text); q++ {
			m[p][q] = true
		}
		for i, j := p-text, 0; j <= i; j++ {
			d := i - j
			switch kind {
			case "row":
				m[p][text+j] = d <= grid
			case "column":
				ti, tj := i%grid*grid+i/grid, j%grid*grid+j/grid
				m[p][text+j] = tj <= ti && tj >= ti-grid
			case "conv":
				for r := 0; r <= 5; r++ {
					m[p][text+j] = m[p][text+j] || d >= r*grid-5 && d <= r*grid+5
				}
			}
		}
	}
	return m
}

// model gives the logits of text and image; in are the tokens of both, then the masks row, column, conv.
func model(ctx *context.Context, _ any, in []*Node) []*Node {
	g := in[0].Graph()
	masks := map[string]*Node{"row": in[2], "column": in[3], "conv": in[4]}
	position := func(name string, n int) *Node {
		return ctx.In(name).VariableWithShape("position", shapes.Make(number, n, dim)).ValueGraph(g)
	}
	xt := Add(layers.Embedding(ctx.In("text"), ExpandAxes(in[0], -1), number, textVocab, dim), BroadcastToDims(InsertAxes(position("text_position", text), 0), batch, text, dim))
	rows := BroadcastToDims(InsertAxes(position("row", grid), 1), grid, grid, dim)
	columns := BroadcastToDims(InsertAxes(position("column", grid), 0), grid, grid, dim)
	xi := Add(layers.Embedding(ctx.In("image"), ExpandAxes(in[1], -1), number, imageVocab, dim), BroadcastToDims(Reshape(Add(rows, columns), 1, image, dim), batch, image, dim))
	x := Concatenate([]*Node{xt, xi}, 1)
	for l := 1; l <= depth; l++ {
		c := ctx.In(fmt.Sprintf("layer%d", l))
		n := layers.LayerNormalization(c.In("norm1"), x, -1).Done()
		const d = dim / heads
		q, k, v := layers.Dense(c.In("q"), n, true, heads, d), layers.Dense(c.In("k"), n, true, heads, d), layers.Dense(c.In("v"), n, true, heads, d)
		a := MulScalar(Einsum("bihd,bjhd->bhij", q, k), 0.125)
		may := BroadcastToDims(InsertAxes(masks[kind(l)], 0, 0), batch, heads, stream, stream)
		p := Softmax(Where(may, a, BroadcastToDims(Scalar(g, number, -1e9), batch, heads, stream, stream)), -1)
		o := Reshape(Einsum("bhij,bjhd->bihd", p, v), batch, stream, dim)
		x = Add(x, layers.Dense(c.In("out"), o, true, dim))
		m := layers.LayerNormalization(c.In("norm2"), x, -1).Done()
		m = activations.Gelu(layers.Dense(c.In("wide"), m, true, 4*dim))
		x = Add(x, layers.Dense(c.In("back"), m, true, dim))
	}
	flat := Reshape(layers.LayerNormalization(ctx.In("norm"), x, -1).Done(), batch*stream, dim)
	// A gather, not a slice: the gradient of a slice needs Pad, which the Go backend lacks.
	part := func(low, high int) *Node {
		var at [][]int32
		for b := range batch {
			for p := low; p < high; p++ {
				at = append(at, []int32{int32(b*stream + p)})
			}
		}
		return Reshape(Gather(flat, Const(g, at)), batch, high-low, dim)
	}
	return []*Node{layers.Dense(ctx.In("to_text"), part(0, text-1), true, textVocab), layers.Dense(ctx.In("to_image"), part(text-1, stream-1), true, imageVocab)}
}

func loss(labels, logits []*Node) *Node {
	t := ReduceAllMean(losses.SparseCategoricalCrossEntropyLogits(labels[:1], logits[:1]))
	i := ReduceAllMean(losses.SparseCategoricalCrossEntropyLogits(labels[1:2], logits[1:2]))
	return Add(MulScalar(t, 1./8), MulScalar(i, 7./8))
}

// tokens are random, [batch][n].
func tokens(rng *rand.Rand, n, below int) [][]int32 {
	out := make([][]int32, batch)
	for b := range out {
		for range n {
			out[b] = append(out[b], int32(rng.Intn(below)))
		}
	}
	return out
}

// labels are tokens from a position on, [batch][n][1].
func labels(tokens [][]int32, from int) *tensors.Tensor {
	out := make([][][]int32, batch)
	for b := range out {
		for _, t := range tokens[b][from:] {
			out[b] = append(out[b], []int32{t})
		}
	}
	return tensors.FromValue(out)
}

func main() {
	steps, threads := flag.Int("steps", 1, "timed steps, after one that is not"), flag.Int("threads", 2, "threads")
	flag.Parse()
	if err := run(*steps, *threads); err != nil {
		fmt.Fprintf(os.Stderr, "gomlx: %v\n", err)
		os.Exit(1)
	}
}

func run(steps, threads int) error {
	runtime.GOMAXPROCS(threads)
	backend, err := simplego.New(fmt.Sprintf("parallelism=%d", threads))
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewSource(1))
	tt, ti := tokens(rng, text, textVocab), tokens(rng, image, imageVocab)
	optimizer := optimizers.Adam().LearningRate(1e-4).Betas(0.9, 0.96).WeightDecay(4.5e-2).Done()
	trainer := train.NewTrainer(backend, context.New(), model, loss, optimizer, nil, nil)
	var times []float64
	for i := range 1 + steps {
		// The trainer takes its inputs over, so they are made anew for each step.
		in := []*tensors.Tensor{tensors.FromValue(tt), tensors.FromValue(ti)}
		for _, k := range []string{"row", "column", "conv"} {
			in = append(in, tensors.FromValue(mask(k)))
		}
		start := time.Now()
		out, err := trainer.TrainStep(nil, in, []*tensors.Tensor{labels(tt, 1), labels(ti, 0)})
		if err != nil {
			return err
		}
		_ = out[0].Value() // waits for it
		if i > 0 {
			times = append(times, time.Since(start).Seconds())
		}
	}
	sort.Float64s(times)
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	n := len(times)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"what": "transformer", "config": "T", "threads": threads, "peak_rss_mb": float64(u.Maxrss) * 1024 / 1e6,
		"s_step": map[string]any{"median": (times[(n-1)/2] + times[n/2]) / 2, "min": times[0], "max": times[n-1], "n": n},
	})
}
