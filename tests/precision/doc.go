// Command precision trains one transformer in several ways of storing it in 16 bits and
// tells what becomes of its gradients. It is what make precision-study runs.
//
//	go run ./tests/precision                                   the system deep: no scaling, one scale, one a resblock
//	go run ./tests/precision -system emoji -run fp32,resblock -seeds 1,2,3 prior.steps=100
//
// It compiles the system once for each way, trains the dVAE and encodes pictures once, and
// then trains the transformer from the same weights on the same data in the same order: the
// ways differ in nothing else. What is there already is used again, so an interrupted study
// goes on. Arguments key=value are settings of the trainer.
//
// It prints tables in Markdown and writes them to OUT/tables.md, beside report.html, which
// has curves of losses and scales and the exponents of every resblock's gradients as well.
// docs/precision.md shows and explains them. It tests nothing. Start at main.go.
package main
