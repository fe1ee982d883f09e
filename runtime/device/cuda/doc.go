// Package cuda runs compiled kernels on NVIDIA's GPUs, through the driver's own library and
// without cgo or a CUDA toolkit.
//
// libcuda.so.1, which comes with the driver, is opened when Open is called: a program that
// imports this package starts on machines that have no GPU, too. GOUACHE_LIBCUDA names another
// library. Open gives a Device, which runtime/exec uses; the package registers itself there as
// "cuda". Code comes as PTX, which the driver assembles, and perhaps assembled for one compute
// capability already (Device.Load); an entry with its arguments becomes a call (Code.Prepare); calls
// are started one by one, timed, or recorded as a graph and replayed. In a graph calls that don't
// wait for each other run side by side.
//
// A context is current per operating system thread, and goroutines move between threads. So every
// method binds its goroutine to a thread, makes the device's context current there, and then calls
// the driver. All work goes through one stream, in order, a replayed graph as one piece. A Device is
// for one goroutine at a time.
//
// The package chooses no launch sizes and knows no plan: see codegen/cuda and runtime/exec. The
// driver is called on linux alone; elsewhere Open says so. Start at Open.
package cuda
