// Package usermodel uses Gouache as somebody else's project would: a module of
// its own, outside this repository, declares models, compiles them and trains
// them. The sources under testdata are that project, and examples to read:
//
//	language, classifier    two models, declared
//	gouachec                the compiler with these models: the whole program
//	train/language, ...     training loops of one's own
//	wrong                   mistakes, and what the compiler says about them
//
// A training loop with snapshots, logs and resuming is in runtime/train; here
// is the least that works.
package usermodel
