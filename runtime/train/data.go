package train

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gouache-ml/gouache/runtime/bpe"
	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// Keys that keep the random numbers of different purposes apart.
const (
	keyValidation = 0x76616c // seed of the validation source
	keyCaptions   = 0x627065 // BPE dropout
	keyOrder      = 0x6f7264 // order of the prior's samples
	keySplit      = 0x73706c // which samples are held back
)

// Data is the captioned pictures of a run, in two parts that don't meet.
type Data struct {
	Training, Validation feed.Source
	Drawn                bool // the pictures are drawn at the model's size
}

// OpenData opens the sources; side is the model's picture size.
func OpenData(c *Config, side int) (*Data, error) {
	d := &Data{Drawn: c.Data.Source == "shapes"}
	filters := []feed.Filter{feed.MinSide(side)}
	if c.Data.MinWords > 1 {
		filters = append(filters, feed.MinWords(c.Data.MinWords))
	}
	if c.Data.MaxAspect > 0 {
		filters = append(filters, feed.MaxAspect(c.Data.MaxAspect))
	}
	var err error
	if d.Training, err = feed.Open(c.Data.Source, side, c.Seed, filters...); err != nil {
		return nil, err
	}
	switch n := d.Training.Len(); {
	case c.Data.Validation != "":
		if d.Validation, err = feed.Open(c.Data.Validation, side, dice.Hash(c.Seed, keyValidation), filters...); err != nil {
			return nil, err
		}
	case n == 0:
		// Drawn pictures: another seed.
		if d.Validation, err = feed.Open(c.Data.Source, side, dice.Hash(c.Seed, keyValidation), filters...); err != nil {
			return nil, err
		}
	case n < 20:
		return nil, fmt.Errorf("%s: %d captioned pictures; training needs at least 20, or set data.validation", c.Data.Source, n)
	default:
		held := min(uint64(c.Data.HoldBack), n/10)
		order := dice.Permute(n, c.Seed, keySplit)
		d.Validation = part{d.Training, order, n - held, held}
		d.Training = part{d.Training, order, 0, n - held}
	}
	return d, nil
}

// part is the elements from..from+n-1 of a source's permutation.
type part struct {
	feed.Source
	order   dice.Permutation
	from, n uint64
}

func (p part) Len() uint64 { return p.n }

func (p part) At(i uint64) (feed.Sample, error) { return p.Source.At(p.order.At(p.from + i)) }

func (p part) Caption(i uint64) (string, error) { return p.Source.Caption(p.order.At(p.from + i)) }

func (p part) Report() feed.Report {
	r := p.Source.Report()
	r.Usable = p.n
	return r
}

// beginning is the first n samples of a source.
type beginning struct {
	feed.Source
	n uint64
}

func (b beginning) Len() uint64 { return b.n }

// loader makes batches for a model, augmented unless the pictures are drawn.
func (d *Data) loader(src feed.Source, o feed.LoaderOptions) (*feed.Loader, error) {
	if d.Drawn {
		o.Augment = nil
	}
	return feed.NewLoader(src, o)
}

// Tokenizer is the tokenizer of a run with the hash of its file.
type Tokenizer struct {
	*bpe.Tokenizer
	SHA256 string
}

// TokenizerPath is where a run keeps its tokenizer.
func TokenizerPath(out string) string { return filepath.Join(out, "tokenizer.json") }

// LoadTokenizer reads the tokenizer of a run, for a model with textVocab text tokens.
// The error wraps fs.ErrNotExist if there is none.
func LoadTokenizer(out string, textVocab int) (*Tokenizer, error) {
	path := TokenizerPath(out)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; train first", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	t, err := bpe.Load(path)
	if err != nil {
		return nil, err
	}
	if err := t.Reserve(textVocab); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	sum := sha256.Sum256(data)
	return &Tokenizer{t, hex.EncodeToString(sum[:])}, nil
}

// captionsRead is how many captions a tokenizer learns from at most; frequent words
// settle long before.
const captionsRead = 20000

// MakeTokenizer loads the tokenizer of a run, or trains and saves one on the training
// captions.
func MakeTokenizer(c *Config, d *Data, textVocab int, log io.Writer) (*Tokenizer, error) {
	t, err := LoadTokenizer(c.Out, textVocab)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	n := uint64(captionsRead)
	if l := d.Training.Len(); l > 0 {
		n = min(n, l)
	} else if c.Data.Pictures > 0 {
		n = min(n, uint64(c.Data.Pictures))
	}
	var failed error
	learned, err := bpe.Train(func(yield func(string) bool) {
		for i := range n {
			caption, err := d.Training.Caption(i)
			if err != nil {
				var skip *feed.SkipError
				if errors.As(err, &skip) {
					continue
				}
				failed = err
				return
			}
			if !yield(caption) {
				return
			}
		}
	}, textVocab)
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	if err := makeDir(c.Out); err != nil {
		return nil, err
	}
	if err := learned.Save(TokenizerPath(c.Out)); err != nil {
		return nil, err
	}
	fmt.Fprintf(log, "tokenizer: %d tokens from %d captions, %s\n", learned.VocabSize(), n, TokenizerPath(c.Out))
	return LoadTokenizer(c.Out, textVocab)
}

// encodeCaption writes a training caption's ids, with dropout keyed by the sample's
// place in the whole run, and returns how many positions are tokens. A caption that
// dropout makes too long is drawn again, and at last taken whole: chance cuts none.
func (t *Tokenizer) encodeCaption(dst []int32, caption string, dropout float64, seed, slot uint64) int {
	chance := bpe.NewSource(dice.Hash(seed, keyCaptions), slot)
	ids := t.EncodeDropout(caption, dropout, chance)
	for draws := 1; len(ids) > len(dst) && draws < 8; draws++ {
		ids = t.EncodeDropout(caption, dropout, chance)
	}
	if len(ids) > len(dst) {
		ids = t.Encode(caption)
	}
	padded, n, _ := t.Pad(ids, len(dst))
	copy(dst, padded)
	return n
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%w; check the output directory", err)
	}
	return nil
}
