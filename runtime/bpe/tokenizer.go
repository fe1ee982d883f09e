package bpe

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

const (
	noMerge      = int32(-1)
	wordSuffix   = "</w>"
	maxCacheSize = 1 << 17 // words; bounds memory on web captions, where new "words" never stop
)

// token is one entry of the vocabulary: raw bytes, and whether a word ends with it.
type token struct {
	bytes string
	last  bool
}

type merge struct{ rank, id int32 }

// Tokenizer turns captions into token ids and back. It is immutable but for
// [Tokenizer.Reserve], and safe for concurrent use.
type Tokenizer struct {
	convention Convention
	vocab      []token
	merges     [][2]int32 // in order of rank
	table      map[uint64]merge
	single     [2][256]int32 // ids of single bytes: inside a word, at its end
	padBase    int

	mu    sync.RWMutex
	words map[string][]int32
}

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

// build completes a tokenizer from its vocabulary and merges, checking that they fit.
func build(convention Convention, vocab []token, merges [][2]int32) (*Tokenizer, error) {
	t := &Tokenizer{
		convention: convention, vocab: vocab, merges: merges,
		table: make(map[uint64]merge, len(merges)), padBase: len(vocab),
		words: make(map[string][]int32),
	}
	ids := make(map[token]int32, len(vocab))
	for i, tok := range vocab {
		if j, dup := ids[tok]; dup {
			return nil, fmt.Errorf("ids %d and %d are the same token %q", j, i, tok.bytes)
		}
		ids[tok] = int32(i)
	}
	ends := []bool{false}
	if convention == WordSuffix {
		ends = append(ends, true)
	}
	for e, last := range ends {
		for b := range 256 {
			id, ok := ids[token{string([]byte{byte(b)}), last}]
			if !ok {
				return nil, fmt.Errorf("no token for byte %#02x (end of word: %t); a byte-level vocabulary has all 256", b, last)
			}
			t.single[e][b] = id
		}
	}
	if convention == SpacePrefix {
		t.single[1] = t.single[0]
	}
	for rank, m := range merges {
		a, b := vocab[m[0]], vocab[m[1]]
		id, ok := ids[token{a.bytes + b.bytes, b.last}]
		if !ok || a.last {
			return nil, fmt.Errorf("merge %d of %q and %q makes no token of the vocabulary", rank, a.bytes, b.bytes)
		}
		key := pairKey(m[0], m[1])
		if old, dup := t.table[key]; dup {
			return nil, fmt.Errorf("merges %d and %d are the same pair %q %q", old.rank, rank, a.bytes, b.bytes)
		}
		t.table[key] = merge{int32(rank), id}
	}
	return t, nil
}

// VocabSize is the number of tokens; ids run from 0 to VocabSize()-1.
func (t *Tokenizer) VocabSize() int { return len(t.vocab) }

// Convention says how words are marked.
func (t *Tokenizer) Convention() Convention { return t.convention }

// PadBase is the id that stands for "no token" at position 0: the model's text
// vocabulary when [Tokenizer.Reserve] was called, else VocabSize().
func (t *Tokenizer) PadBase() int { return t.padBase }

// Reserve declares the model's text vocabulary, at which pad ids start. A
// tokenizer may have fewer tokens than the model has rows, never more. Call it
// before the tokenizer is shared between goroutines.
func (t *Tokenizer) Reserve(textVocab int) error {
	if textVocab < len(t.vocab) {
		return fmt.Errorf("tokenizer has %d tokens, the model's text vocabulary %d; train the tokenizer with vocabulary size %d or less", len(t.vocab), textVocab, textVocab)
	}
	t.padBase = textVocab
	return nil
}

// Encode returns the caption's token ids, without padding or limit.
func (t *Tokenizer) Encode(caption string) []int32 { return t.AppendEncode(nil, caption) }

// AppendEncode appends the caption's token ids to dst.
func (t *Tokenizer) AppendEncode(dst []int32, caption string) []int32 {
	type fresh struct {
		word string
		ids  []int32
	}
	var missed []fresh
	t.mu.RLock()
	full := len(t.words) >= maxCacheSize
	t.convention.eachWord(caption, func(word string) {
		ids, ok := t.words[word]
		if !ok {
			ids = t.encodeWord(word)
			if !full {
				missed = append(missed, fresh{strings.Clone(word), ids})
			}
		}
		dst = append(dst, ids...)
	})
	t.mu.RUnlock()
	if missed != nil {
		t.mu.Lock()
		for _, m := range missed {
			t.words[m.word] = m.ids
		}
		t.mu.Unlock()
	}
	return dst
}

func (t *Tokenizer) bytesOf(dst []int32, word string) []int32 {
	for i := 0; i < len(word)-1; i++ {
		dst = append(dst, t.single[0][word[i]])
	}
	return append(dst, t.single[1][word[len(word)-1]])
}

// encodeWord merges a word's bytes: lowest rank first, leftmost first. Quadratic
// in the word's length, which beats a heap below some 100 bytes; longer words go
// through a heap, so that a 100 kB "word" stays harmless.
func (t *Tokenizer) encodeWord(word string) []int32 {
	ids := t.bytesOf(make([]int32, 0, len(word)), word)
	if len(ids) > 128 {
		return t.mergeLong(ids)
	}
	for len(ids) > 1 {
		best, at := merge{rank: 1<<31 - 1}, -1
		for i := 0; i+1 < len(ids); i++ {
			if m, ok := t.table[pairKey(ids[i], ids[i+1])]; ok && m.rank < best.rank {
				best, at = m, i
			}
		}
		if at < 0 {
			break
		}
		ids[at] = best.id
		ids = append(ids[:at+1], ids[at+2:]...)
	}
	return ids
}

// NewSource is the random source for one sample's BPE dropout, a PCG keyed by the
// run's seed and the sample's index in the whole run: the same pair gives the
// same tokens, whatever ran before.
func NewSource(seed, sample uint64) *rand.PCG { return rand.NewPCG(seed, sample) }

// EncodeDropout encodes with BPE dropout (Provilkov et al., algorithm 1): at every
// step each possible merge is set aside with probability p. p=0 is Encode, p=1
// gives bytes. Only src supplies chance.
func (t *Tokenizer) EncodeDropout(caption string, p float64, src rand.Source) []int32 {
	if p <= 0 {
		return t.Encode(caption)
	}
	var out, ids []int32
	t.convention.eachWord(caption, func(word string) {
		ids = t.bytesOf(ids[:0], word)
		for len(ids) > 1 {
			best, at := merge{rank: 1<<31 - 1}, -1
			for i := 0; i+1 < len(ids); i++ {
				m, ok := t.table[pairKey(ids[i], ids[i+1])]
				if !ok || float64(src.Uint64()>>11)*0x1p-53 < p {
					continue
				}
				if m.rank < best.rank {
					best, at = m, i
				}
			}
			if at < 0 {
				break
			}
			ids[at] = best.id
			ids = append(ids[:at+1], ids[at+2:]...)
		}
		out = append(out, ids...)
	})
	return out
}

// EncodePadded encodes a caption to exactly length ids. The first count are the
// caption's tokens, the rest pad ids ([Tokenizer.Pad]). A caption that is too long is
// cut and truncated is true; callers count those.
func (t *Tokenizer) EncodePadded(caption string, length int) (ids []int32, count int, truncated bool) {
	return t.Pad(t.AppendEncode(make([]int32, 0, length), caption), length)
}

// Pad cuts or extends ids to length; position i without a token gets
// PadBase()+i, the pad id of its position. It may write into ids' spare capacity.
func (t *Tokenizer) Pad(ids []int32, length int) (padded []int32, count int, truncated bool) {
	if len(ids) > length {
		return ids[:length], length, true
	}
	count = len(ids)
	for i := count; i < length; i++ {
		ids = append(ids, int32(t.padBase+i))
	}
	return ids, count, false
}

// Decode returns the text of ids. Ids outside the vocabulary (pads, start and end
// tokens) are left out, bytes that aren't UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.vocab) {
			continue
		}
		tok := t.vocab[id]
		b.WriteString(tok.bytes)
		if tok.last {
			b.WriteByte(' ')
		}
	}
	text := b.String()
	if t.convention == WordSuffix {
		text = strings.TrimSuffix(text, " ")
	} else {
		text = strings.TrimPrefix(text, " ")
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// Token returns the raw bytes of one id, "" outside the vocabulary.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.vocab) {
		return ""
	}
	return t.vocab[id].bytes
}
