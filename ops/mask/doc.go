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
// Blocks puts the queries into blocks of at most 32, which kernels treat side
// by side in vector lanes, and writes, as a flat slice of int32, the keys of
// each block: all that any of its queries may attend to. Which queries form a
// block is chosen so that the lists get short: neighbours in the stream, or
// tiles of the picture; for a column mask, columns. All offsets count words
// from the table's beginning.
//
//	word 0                n, the number of blocks
//	word 1 .. n+1         start[i]: block i is the words start[i] to
//	                      start[i+1]-1
//
// A block is the number of its queries, the offset of a list of 32 words with
// their positions (the last one repeated), and for every 128 of its keys, or
// what is left of them, an entry of three words:
//
//	count                 number of keys, 1 to 128
//	offset                of the list of their positions, count rounded up to
//	                      a multiple of 8 (the last one repeated)
//	mask                  0 when count is a multiple of 8, the block has 32
//	                      queries and all of them are allowed all of the keys;
//	                      else the offset of mask words: for every 32 keys 32
//	                      words, one for each query, whose bit c (least
//	                      significant first) is set when key c is allowed
//
// Bits of queries and keys that don't exist are 0. Keys that all queries of a
// block are allowed come first. Equal lists and masks are stored once.
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
