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
// what is left of them, an entry of five words:
//
//	count                 number of keys, 1 to 128
//	offset                of the list of their positions, count rounded up to
//	                      a multiple of 8 (the last one repeated)
//	mask                  0 when count is a multiple of 8, the block has 32
//	                      queries and all of them are allowed all of the keys;
//	                      else the offset of mask words: for every 32 keys 32
//	                      words, one for each query, whose bit c (least
//	                      significant first) is set when key c is allowed
//	first, end            the first query that is allowed any of the keys, and
//	                      one beyond the last: 0 and 32, or those of a half, 0
//	                      and 16 or 16 and 32
//
// Bits of queries and keys that don't exist are 0. Keys that all queries of a
// block are allowed come first, and keys that only one half has after those of both. Equal lists and masks are stored once.
//
// # Key lists
//
// Keys is for decoding one position at a time:
//
//	word 0 .. T           start[q]: the keys of query q are the words from
//	                      start[q] to start[q+1]-1, ascending; offsets count
//	                      words from the table's beginning
//
// # Tile tables
//
// Tiles is for processors that work on more rows at a time than block tables
// have lanes, and gather what those have to do with in larger tiles: it puts
// positions, the rows, into blocks of a chosen number, with the columns of each.
// Rows are queries and columns keys; in a transposed table, for gradients of
// keys and values, rows are keys and columns the queries that may attend to
// them. A block's rows belong to warps, some to each in turn, and columns are
// ordered so that a warp can leave out groups of 16 that none of its rows is
// allowed. Blocks come in descending order of work. Offsets count words from the
// table's beginning.
//
//	word 0                n, the number of blocks
//	word 8 .. 8n+7        records of 8 words, one for each block:
//	  0                   number of its rows
//	  1                   offset of the list of their positions, as many as a
//	                      block may have (the last one repeated)
//	  2                   number of its columns
//	  3                   number of leading tiles, of 64 columns each, that all
//	                      rows are allowed whole, and no warp is without rows:
//	                      they have no mask words
//	  4                   offset of the list of the columns' positions, rounded
//	                      up to whole tiles (the last one repeated)
//	  5                   offset of the mask words of the other tiles: for every
//	                      32 columns a word for each row a block may have, whose
//	                      bit c (least significant first) is set when column c
//	                      is allowed
//	  6                   offset of a word for each of those tiles, whose bit
//	                      g*w + i is set when a row of warp i of w is allowed a
//	                      column of group g; and one more word
//
// Bits of rows and columns that don't exist are 0, except that whole tiles have
// none. Records begin at multiples of 4 words. A block whose rows are allowed no
// column at all has column 0, with a tile whose bits are all 0.
//
// Start at Mask, then Row, Column and Conv for the masks of a text-and-image
// stream.
package mask
