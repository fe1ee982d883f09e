package nn

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Linear is x[M,K] times NAME.w[K,n] plus NAME.b[n], with weights of standard
// deviation std and zero bias.
func Linear(s Scope, name string, x *ir.Value, n int, std float64) *ir.Value {
	return ops.Add(Matrix(s, name, x, n, std), s.Param(name+".b", Zeros(), n))
}

// Matrix is x[M,K] times NAME.w[K,n], without bias.
func Matrix(s Scope, name string, x *ir.Value, n int, std float64) *ir.Value {
	if x.Invalid() {
		return x
	}
	return ops.MatMul(x, s.Param(name+".w", Normal(std), x.Type.Shape[x.Type.Rank()-1], n))
}

// LayerNorm normalises the last axis of x to mean 0 and variance 1, then
// applies NAME.gain and NAME.bias.
func LayerNorm(s Scope, name string, x *ir.Value, eps float64) *ir.Value {
	if x.Invalid() {
		return x
	}
	last := x.Type.Rank() - 1
	d := x.Type.Shape[last]
	c := ops.Sub(x, ops.MeanKeep(x, last))
	sd := ops.Sqrt(ops.AddConst(ops.MeanKeep(ops.Square(c), last), eps))
	y := ops.Mul(ops.Div(c, sd), s.Param(name+".gain", Ones(), d))
	return ops.Add(y, s.Param(name+".bias", Zeros(), d))
}

// Embedding takes rows of the table NAME[rows,dim] by ids; the result has the
// shape of ids with dim appended.
func Embedding(s Scope, name string, ids *ir.Value, rows, dim int, std float64) *ir.Value {
	return ops.Take(s.Param(name, Normal(std), rows, dim), ids)
}

// Conv is a k by k convolution of x[B,H,W,Cin] with zero padding (k-1)/2 and
// stride 1, NAME.w[k,k,Cin,n] and NAME.b[n]. Weights have standard deviation
// 1/sqrt(Cin*k*k), as in the released dVAE. With k = 1 the weight is stored
// as the matrix [Cin,n].
func Conv(s Scope, name string, x *ir.Value, k, n int) *ir.Value {
	if x.Invalid() {
		return x
	}
	sh := x.Type.Shape
	cin := sh[3]
	std := 1 / math.Sqrt(float64(cin*k*k))
	if k == 1 {
		rows := ops.Reshape(x, sh[0]*sh[1]*sh[2], cin)
		return ops.Reshape(Linear(s, name, rows, n, std), sh[0], sh[1], sh[2], n)
	}
	return ops.Add(ops.Conv2D(x, s.Param(name+".w", Normal(std), k, k, cin, n), 1, (k-1)/2), s.Param(name+".b", Zeros(), n))
}

// LogSumExp is ln sum exp over the last axis, which keeps extent 1; the
// maximum is subtracted first, so no exponential overflows.
func LogSumExp(x *ir.Value) *ir.Value {
	if x.Invalid() {
		return x
	}
	last := x.Type.Rank() - 1
	top := ops.StopGradient(ops.ReduceMaxKeep(x, last))
	return ops.Add(ops.Log(ops.SumKeep(ops.Exp(ops.Sub(x, top)), last)), top)
}

// Softmax is exp(x) normalised to sum 1 over the last axis.
func Softmax(x *ir.Value) *ir.Value {
	if x.Invalid() {
		return x
	}
	last := x.Type.Rank() - 1
	e := ops.Exp(ops.Sub(x, ops.StopGradient(ops.ReduceMaxKeep(x, last))))
	return ops.Div(e, ops.SumKeep(e, last))
}

// CrossEntropy is the mean over rows of logits[M,N] of -ln softmax at
// targets i32[M], in nats.
func CrossEntropy(logits, targets *ir.Value) *ir.Value {
	if logits.Invalid() || targets.Invalid() {
		return logits
	}
	m, n := logits.Type.Shape[0], logits.Type.Shape[1]
	hit := ops.Eq(ops.Iota(logits.Func, 1, m, n), ops.Reshape(targets, m, 1))
	picked := ops.SumKeep(ops.Select(hit, logits, ops.Scalar(logits.Func, 0)), 1)
	return ops.Mean(ops.Sub(LogSumExp(logits), picked))
}

// Limits of the chunks that CrossEntropyOf takes rows in.
const (
	chunkLogits = 4 << 20 // so many logits, 16 MiB, are no burden
	maxChunks   = 8       // each reads the weights, and adds to their gradient, once more
)

// CrossEntropyOf is CrossEntropy of the logits [.,classes] that head, a product
// with weights, makes of rows of x[M,K]. Where the logits are many it takes the
// rows in chunks, each in a region of its own: no more than one chunk's logits
// are stored at once, nor of their gradient.
func CrossEntropyOf(region string, x *ir.Value, classes int, targets *ir.Value, head func(rows *ir.Value) *ir.Value) *ir.Value {
	if x.Invalid() || targets.Invalid() {
		return x
	}
	return crossEntropyOf(region, x, chunkRows(x.Type.Shape[0], x.Type.Shape[1], classes), targets, head)
}

// chunkRows is how many of m rows of width k make a chunk. The gradient of the
// weights [k,classes] waits whole for the optimizer, so that logits of half as
// many rows, with their gradient, are no more than what is there anyway. A few
// chunks more are made where those are equal and share their kernels.
func chunkRows(m, k, classes int) int {
	n := min(maxChunks, ceilDiv(m, max(k/2, chunkLogits/classes, 1)))
	for i := n; i < 2*n; i++ {
		if m%i == 0 {
			return m / i
		}
	}
	return ceilDiv(m, n)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func crossEntropyOf(region string, x *ir.Value, rows int, targets *ir.Value, head func(rows *ir.Value) *ir.Value) *ir.Value {
	f, m := x.Func, x.Type.Shape[0]
	var parts []*ir.Value
	for lo := 0; lo < m; lo += rows {
		hi, name := min(lo+rows, m), region
		if rows < m {
			name = fmt.Sprintf("%s%d", region, lo/rows)
		}
		f.Region(name, false, func() {
			part := CrossEntropy(head(ops.SliceAxis(x, 0, lo, hi)), ops.SliceAxis(targets, 0, lo, hi))
			parts = append(parts, ops.MulConst(part, float64(hi-lo)/float64(m)))
		})
	}
	mean := parts[0]
	for _, p := range parts[1:] {
		mean = ops.Add(mean, p)
	}
	return mean
}

// Unit divides each row of x by its Euclidean length.
func Unit(x *ir.Value) *ir.Value {
	if x.Invalid() {
		return x
	}
	return ops.Div(x, ops.Sqrt(ops.SumKeep(ops.Square(x), x.Type.Rank()-1)))
}
