// Package dalle is the second stage: a sparse transformer over one stream of
// text and image tokens (section 2.2 and appendix B).
//
// The stream's inputs are a start token, TextLen text tokens and the image
// tokens but the last, in raster order: TextLen + N positions for N image
// tokens. Position p predicts token p+1: positions 0 to TextLen-1 the text,
// TextLen to the last the image. A text token id at or above TextVocab is a
// pad: id TextVocab+i is the learned pad of text position i. Pads are
// attended to and predicted like other tokens.
//
// Functions of the module "prior":
//
//	train    one AdamW step
//	eval     the losses of a batch
//	logits   all logits of a batch
//	prefill  start token and text of a caption into the caches; logits of the first image token
//	decode   one position of a batch into the caches; logits of the next image tokens
//	average  averages of the weights, see nn.Averages
//
// Inputs of train, eval and logits: text i32[B,TextLen], image i32[B,N]. train
// has lr, clip and update of nn.AdamW besides (paper: lr up to 4.5e-4 in
// 5,000 steps, then halved on plateaus; clip 4).
//
// Results: text_loss and image_loss are mean cross-entropies per token of each
// kind, in nats; loss = text_loss/8 + image_loss*7/8; grad_norm and skipped
// are those of nn.AdamW.
//
// Sampling draws a batch of SampleBatch streams, each with caches of its own.
// Candidates of one caption have the first TextLen+1 positions in common, so
// these are computed and kept once: prefill takes text i32[1,TextLen] and slot
// i32[], writes to the caches of stream slot, and gives logits f32[1,ImageVocab]
// of image token 0. For image token i known, decode takes it as token
// i32[SampleBatch] with pos i32[] = TextLen+1+i, and as slot i32[SampleBatch]
// where prefill put each stream's caption; it gives logits
// f32[SampleBatch,ImageVocab] of image token i+1. It leaves what prefill wrote
// as it is. decode also works for the positions before, if every stream has its
// own slot: token is the text token pos-1, ignored at pos 0; its logits mean
// nothing before pos TextLen. Caches need no clearing: a position reads only
// positions written before it in the same image, when every image starts with
// prefill or pos 0.
//
// Start at Config and Build.
package dalle
