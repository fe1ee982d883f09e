// Package ptxas runs NVIDIA's assembler over PTX texts, for tests: what it
// rejects no driver loads, and what it says about registers decides speed.
//
// Find looks for the program; Tool.Assemble gives what it reports per kernel;
// Report.Check says what no kernel may have. The package needs no GPU. The
// program's licence is NVIDIA's: it never comes with this repository
// (.ci/ptxas.sh fetches it).
package ptxas
