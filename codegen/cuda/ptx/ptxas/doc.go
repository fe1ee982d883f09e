// Package ptxas runs NVIDIA's assembler over PTX texts: for tests, as what it
// rejects no driver loads, and what it says about registers decides speed; and
// for compiled packages that are to load faster.
//
// Find looks for the program, At takes it from a path; Tool.Binary gives the
// cubin of a text, Tool.Assemble what it reports per kernel;
// Report.Check says what no kernel may have. The package needs no GPU. The
// program's licence is NVIDIA's: it never comes with this repository
// (.ci/ptxas.sh fetches it).
package ptxas
