// Package sample draws pictures for captions with trained models: tokens from the
// transformer, pictures from the dVAE, and an order from the contrastive model
// (section 2.6).
//
// A token is drawn with a random number that belongs to the seed, the caption, the
// candidate and the position alone. So a caption's pictures don't depend on what else
// is drawn beside it, on batches or on threads.
//
// It loads no weights and trains nothing (runtime/train). Start with Pipeline; Prior,
// Decoder and Ranker are its parts, and Distribution is the choice of one token.
package sample
