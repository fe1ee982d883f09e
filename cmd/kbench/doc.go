// Command kbench measures compiled kernels: how fast each is, alone or inside
// a program of its model, and how near that comes to what the machine can do.
//
//	kbench -system demo -list                        what there is
//	kbench -system demo -run 'matmul|attention'      kernels alone, on made-up data
//	kbench -system demo -program prior.train         a whole program: time by block and kernel
//	kbench -system demo -program prior.train -run .  its kernels alone, ordered by launches x time
//
// Lines of kernels measured alone have the form of Go benchmarks, so that
// benchstat compares two outputs. The roof of a kernel is the longer of two
// times: its FLOPs at the measured peak of fused multiply-adds, and its bytes
// at the measured bandwidth of the cache level (or memory) that holds its
// buffers; %roof is that time as a share of the measured one. Both peaks are
// measured again every minute, because other processes come and go.
//
// It does not check results: that is what the tests of codegen/cpu are for.
// Start at main and session; machine.go has the peaks, ranges.go finds valid
// contents for index buffers.
package main
