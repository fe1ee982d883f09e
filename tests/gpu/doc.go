// Command gpu checks and times the compiled CUDA kernels on a machine with a
// GPU: make gpu-check builds what it needs and runs it.
//
// It runs the tests of tests/compiled and tests/parity on the GPU, then times the
// system gpupeers and, where python3 has PyTorch with CUDA, torch_peers.py on the
// same GPU, and prints one table of times and ratios, as gpu.json too. It
// compiles nothing: the programs it runs lie in the folder -bin, so that they
// can be built on another machine.
package main
