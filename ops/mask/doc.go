// Package mask is the algebra of attention masks and the tables kernels read
// them from.
//
// A Mask says which keys each query may attend to: causal, prefix, row,
// column and conv patterns, their unions and intersections. It is the
// attribute of the attention ops and prints as text that parses back. The
// package knows nothing of ops or kernels.
//
// # Block tables
//
// Blocks cuts the T x T pairs into blocks of 32 x 32 (the last row and column
// of blocks stick out when T is not a multiple) and writes, as a flat slice
// of int32, for each query block the key blocks with any allowed pair. With
// nb = (T+31)/32:
//
//	word 0 .. nb          start[i]: entries of query block i are the words
//	                      start[i], start[i]+2, ... below start[i+1]; offsets
//	                      count words from the table's beginning
//	word start[i] + 2j    number of the key block, ascending
//	word start[i] + 2j+1  0 when every pair of the block is allowed, else the
//	                      offset of 32 words, one for each query row of the
//	                      block, whose bit c (least significant first) is set
//	                      when key column c is allowed
//
// Pairs outside T x T are never allowed: a block that sticks out is partial
// and its bits there are 0, rows at or past T included. Equal groups of 32
// words are stored once. The first entry is always word nb+1.
//
// BlocksTransposed is the same with the roles exchanged, for gradients of keys
// and values: for each key block its query blocks, one word for each key row
// whose bit c is set when query column c is allowed.
//
// # Key lists
//
// Keys is for decoding one position at a time:
//
//	word 0 .. T           start[q]: the keys of query q are the words from
//	                      start[q] to start[q+1]-1, ascending; offsets count
//	                      words from the table's beginning
//
// Start at Mask, then Row, Column and Conv for the masks of a text-and-image
// stream.
package mask
