// Package nn has the layers that models are built from: parameters by name,
// linear and convolution layers, layer norm, transformer blocks, losses, the
// AdamW update and averages of weights.
//
// A layer is a Go function that appends ops to a function of the graph IR;
// there are no layer objects. Parameters are globals of the module: the first
// function that asks for a name declares it, later ones read the same tensor,
// so train, eval and decode share weights by sharing names.
//
// It is not a training loop: schedules of step size, temperature and the like
// arrive as scalar inputs, one value a step.
//
// Start at Scope, then layer.go and adamw.go.
package nn
