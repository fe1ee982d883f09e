// Package modeltest runs a model's functions in float64 under ir/interp, with
// stored tensors kept from call to call, as a device would keep them. It is
// for tests of models at tiny sizes.
//
// Start at Start and Machine.MustCall.
package modeltest
