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
//	prefill  start token and text into the caches; logits of the first image token
//	decode   one position into the caches; logits of the next image token
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
// To sample, prefill takes text i32[SampleBatch,TextLen] and gives logits
// f32[SampleBatch,ImageVocab] of image token 0. For image token i known,
// decode takes it as token i32[SampleBatch] with pos i32[] = TextLen+1+i and
// gives the logits of image token i+1. decode also works for the positions
// before: token is the text token pos-1, ignored at pos 0; its logits mean
// nothing before pos TextLen. Caches need no clearing: a position reads only
// positions written before it in the same image, when every image starts with
// prefill or pos 0.
//
// Start at Config and Build.
package dalle
