// Package train trains the compiled models of a system: schedules, the loop with its
// snapshots and logs, and what each model is fed with.
//
// A Stage says how the inputs of one model's train program are filled; Loop runs it
// step by step, validates, averages weights, saves snapshots and resumes them. Batch
// n, its dropout and its noise depend on the seed and n alone, and everything else
// that changes from step to step is in the snapshot, so a resumed run gives the bits
// of one that was never stopped.
//
// The stages build on each other: DVAE first, then Encode turns pictures into tokens
// (kept in a file that belongs to one dVAE), then Prior; CLIP needs the tokenizer
// alone.
//
// It knows no command line (runtime/trainer) and draws no samples (runtime/sample);
// the models themselves are compiled programs behind the interfaces System, Model and
// Program, which runtime/exec implements.
//
// Start with Config, then Loop.
package train
