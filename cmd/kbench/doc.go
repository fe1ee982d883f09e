// Command kbench measures compiled kernels: how fast each is, alone or inside
// a program of its model, and how near that comes to what the machine can do.
//
//	kbench -system demo -list                        what there is
//	kbench -system demo -run 'matmul|attention'      kernels alone, on made-up data
//	kbench -system demo -program prior.train         a whole program: time by block and kernel
//	kbench -system demo -program prior.train -run .  its kernels alone, ordered by launches x time
//	kbench -system peers -program s.train -trace t.json -pprof p.pb.gz
//	kbench -json >old; ...; kbench -compare old      what a change did
//
// Each line gives median and quartiles, FLOPs and bytes a second as counted from the
// IR (of convolutions by minimal filtering, those that they do), and the share of the roof: the longer of two times, the FLOPs at the measured
// peak of fused multiply-adds, and the bytes at the measured bandwidth of the cache
// level (or memory) that holds the kernel's buffers. "of fma" or "of 4MiB" says which.
// A figure above its measured peak is withheld, and a note says so. Peaks are measured
// again every minute, because other processes come and go. -benchstat writes the same
// as Go benchmarks do, so that benchstat compares two outputs.
//
// It does not check results: that is what the tests of codegen/cpu are for.
// Start at main and session; machine.go has the peaks, ranges.go finds valid
// contents for index buffers.
package main
