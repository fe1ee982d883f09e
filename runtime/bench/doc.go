// Package bench is the command line of a compiled system whose programs are only
// timed, such as the system peers, and the command "bench" of every trainer:
//
//	trainer -list
//	trainer -program s.train -steps 5 -in update=1 -in lr=1e-4
//	trainer -sample s8 -tokens 64
//
// It runs one program of one model on made-up inputs, or draws image tokens with the
// programs prefill and decode (for a text each, or with -candidates for one text), and prints one line of JSON: seconds a step (or a token),
// the FLOPs of its kernels, seconds from the start of the process to the start and the end of
// the first step, peak memory. -kernels adds the time of each launch.
//
// It knows no peer and compares nothing; tests/peers does. How far kernels are from the
// machine's limits is what cmd/kbench tells. Start with Main.
package bench
