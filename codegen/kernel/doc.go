// Package kernel turns a graph into kernels: it decides which values are
// stored in memory, fuses their computations into kernels, lowers those into
// the kernel language and cuts their grids into chunks.
//
// The first step (store.go) marks values that must or should be stored: what
// matrix products and templates read, what the caller gets, what is expensive
// and used often. Everything else is recomputed where it is used. The second
// (fuse.go) starts from one unit per stored value and merges units as long as
// their computations share a loop nest. The third (lower.go) writes a unit as
// a kernel by asking for its outputs element by element. Tile (tile.go) fixes
// chunks. Lower (program.go) runs all of them and returns a plan without
// offsets.
//
// It knows the families of package ops, never a single op.
package kernel
