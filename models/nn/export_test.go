package nn

// What tests of the package see.
var (
	CrossEntropyInChunks = crossEntropyOf
	ChunkRows            = chunkRows
)
