// Package bpe is a byte-level byte-pair-encoding tokenizer for captions.
//
// Captions are lowercased and their white space is collapsed, then cut into
// words, and each word's bytes are merged by the learned merges. Every byte is a
// token, so any caption can be encoded and nothing is ever "unknown".
//
// Two conventions for the ends of words are understood:
//
//   - SpacePrefix (what [Train] makes, GPT-2's): a word carries the space before
//     it, the first word gets one too. Decoding gives the cleaned caption back
//     exactly, and only 256 ids go to single bytes.
//   - WordSuffix (CLIP's): the last symbol of a word carries "</w>". [LoadCLIP]
//     reads CLIP's published vocabulary.
//
// Ids: 0 to VocabSize()-1 are tokens, nothing else. No special ids live inside the
// vocabulary. Padding depends on the position and belongs to the model: position
// i without a token gets id PadBase()+i, where PadBase is the model's text
// vocabulary (see [Tokenizer.Reserve]). Start tokens and the like are the
// model's business as well; CLIP's two are the constants [CLIPStart] and [CLIPEnd].
//
// Files are tokenizer.json as the Hugging Face tokenizers library reads and
// writes it (BPE model, ByteLevel pre-tokenizer).
//
// What it is not: a general Unicode normaliser. Lowercasing is rune by rune
// (unicode.ToLower), there is no NFC and no repair of wrongly decoded text (the
// "ftfy" step of CLIP's Python code).
//
// Start with [Train], [Load] and [Tokenizer.EncodePadded].
package bpe
