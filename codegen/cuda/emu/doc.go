// Package emu runs compiled GPU kernels on the emulator: the PTX that is shipped,
// on ordinary memory, with every check of package simt.
//
// It is what tests and kbench -device emu use; nothing that is shipped imports
// it. Start at Compile.
package emu
