// Package clip is the contrastive model that reranks samples: a vision
// transformer and a causal text transformer with features in one space
// (section 2.6; Radford et al. 2021).
//
// Functions of the module "clip":
//
//	train        one AdamW step on a batch of matched pairs
//	eval         the loss and the similarities of a batch
//	embed_image  images f32[EmbedBatch,S,S,3] in [0,1] to unit features [EmbedBatch,Embed]
//	embed_text   text and end to unit features [EmbedBatch,Embed]
//	average      averages of the weights, see nn.Averages
//
// Inputs of train and eval: images f32[B,S,S,3] in [0,1], text i32[B,TextLen]
// and end i32[B], the position of each text's last token, where its feature is
// read. Attention is causal, so what follows end has no influence; fill it with
// any id below TextVocab. train has lr, clip and update of nn.AdamW
// besides (CLIP: warm-up of 2,000 steps, then cosine).
//
// Results: loss, the mean of the cross-entropies over texts given an image and
// images given a text, in nats; accuracy, the share of images whose own text
// is the most similar; scale, exp(temperature) as used; grad_norm and skipped
// of nn.AdamW. eval also gives similarity[B,B], cosines of images by texts.
//
// Start at Config and Build.
package clip
