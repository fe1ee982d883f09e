// Package feed yields captioned pictures to training: sources (a folder, WebDataset
// shards, the drawn shapes), the two augmentations of the paper, and a Loader that
// prefetches batches.
//
// Everything is looked up by index: batch n is a pure function of the data, the seed
// and n, so any number of workers gives the same batches, a run resumes at any step,
// and every rank of a data-parallel run takes its own part of the same global batch.
// Data that can't be used (a picture that doesn't decode, an empty caption, a missing
// half) is skipped, counted by reason and reported, and never ends a run.
//
// It doesn't tokenize captions (runtime/bpe) and doesn't convert pixels to floats.
// Start with Open for a source, NewLoader for batches; package dice has the random
// numbers, picture writes PNG files.
package feed
