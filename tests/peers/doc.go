// Command peers times Gouache beside other programs that do the same work: PyTorch, OpenBLAS and oneDNN. It is what
// make bench-peers runs.
//
//	go run ./tests/peers                     all rows, alternated three times
//	go run ./tests/peers -run '^S step'      rows by name
//	go run ./tests/peers -rounds 1 -steps 1  a quick look
//
// Both sides run as processes of their own and in turns, ours first in one round and last in the next, each with the
// whole machine; a row's figures are medians over the rounds of the medians of each process. Ours is the generated
// command of the system peers (runtime/bench); theirs are the scripts in torch/, which need Debian's python3-torch.
// llm.c and GoMLX join where -llmc and -gomlx name their commands (llmc/gpt2.c and gomlx/main.go say how to build them).
// Where a peer has several ways (dense or sparse masks, fp32 or bf16), the fastest counts; one that loses by half in
// the first round is not run again.
//
// It prints a table of ratios with the goals, and writes out/bench/peers.json and peers.txt. It tests nothing about
// results: torch/transformer.py -check and torch/sample.py -check do for the peer, the other tests for ours. Start at
// rows.go, which says what is compared.
package main
