package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/snapshot"
)

// Codes are pictures as tokens of one dVAE, with their captions.
type Codes struct {
	Tokens   []uint16 // Len x Image
	Captions []string
	Image    int     // tokens a picture
	Seconds  float64 // spent on encoding, kept with the file
}

// Len is the number of pictures.
func (c *Codes) Len() int { return len(c.Captions) }

// Picture is the tokens of picture i.
func (c *Codes) Picture(i int) []uint16 { return c.Tokens[i*c.Image : (i+1)*c.Image] }

// codesKey is what the tokens in a file depend on; another key, and they are made anew.
type codesKey struct {
	Source   string
	Seed     uint64
	Pictures uint64 // of the source
	Captions uint64 // hash of their captions, for sources of files
	Count    int    // encoded, all views
	Side     int
	DVAE     string
}

func (k codesKey) String() string {
	return fmt.Sprintf("%s; seed %d; %d pictures; captions %x; %d encoded at %d; dvae %s", k.Source, k.Seed, k.Pictures, k.Captions, k.Count, k.Side, k.DVAE)
}

// CodesPath is where the tokens of a part of the data ("training", "validation") lie.
func CodesPath(out, part string) string { return filepath.Join(out, "codes", part+".safetensors") }

// Encoder turns pictures into tokens.
type Encoder struct {
	program Program
	side    int
	batch   int
	image   int
	images  []float32
}

// NewEncoder uses the dVAE's encode program; its weights must be loaded.
func NewEncoder(m Model) (*Encoder, error) {
	p, err := m.Program("encode")
	if err != nil {
		return nil, err
	}
	in, err := p.Input("images")
	if err != nil {
		return nil, err
	}
	shape, err := shapeOf(in, 4)
	if err != nil {
		return nil, err
	}
	out, err := p.Output("tokens")
	if err != nil {
		return nil, err
	}
	images, err := in.F32()
	if err != nil {
		return nil, err
	}
	return &Encoder{p, shape[1], shape[0], out.Len() / shape[0], images}, nil
}

// Encode gives the tokens of pictures of the model's size, in their order.
func (e *Encoder) Encode(pictures []picture.Picture) ([][]int32, error) {
	var all [][]int32
	n := e.side * e.side * 3
	for at := 0; at < len(pictures); at += e.batch {
		now := pictures[at:min(len(pictures), at+e.batch)]
		for i, p := range now {
			if len(p.Pixels) != n || p.Width != e.side {
				return nil, fmt.Errorf("picture %d is %dx%d, the dvae takes %dx%d", at+i, p.Width, p.Height, e.side, e.side)
			}
			pixels(e.images[i*n:(i+1)*n], p.Pixels)
		}
		e.program.Run()
		tokens, err := e.program.OutputI32("tokens")
		if err != nil {
			return nil, err
		}
		for i := range now {
			all = append(all, append([]int32(nil), tokens[i*e.image:(i+1)*e.image]...))
		}
	}
	return all, nil
}

// pixels converts 8-bit values to floats in [0,1].
func pixels(dst []float32, src []uint8) {
	for i, v := range src {
		dst[i] = float32(v) / 255
	}
}

// Encode makes the tokens of the training and validation pictures, or takes them from
// the run's folder when they are of the same data and dVAE. validation is how many
// pictures of that part are needed. The dVAE's weights must be loaded, dvae being
// their hash.
func Encode(ctx context.Context, c *Config, d *Data, m Model, dvae string, validation int, log io.Writer) (training, held *Codes, err error) {
	e, err := NewEncoder(m)
	if err != nil {
		return nil, nil, err
	}
	count, src := c.Data.Pictures, d.Training
	if n := int(src.Len()); n > 0 {
		if count == 0 || count > n {
			count = n
		}
		// The loader goes round and round over these: once for each view.
		src = beginning{src, uint64(count)}
	}
	if !d.Drawn {
		count *= c.Data.Views
	}
	if training, err = e.part(ctx, c, d, src, "training", count, dvae, log); err != nil {
		return nil, nil, err
	}
	if held, err = e.part(ctx, c, d, d.Validation, "validation", validation, dvae, log); err != nil {
		return nil, nil, err
	}
	return training, held, nil
}

func (e *Encoder) part(ctx context.Context, c *Config, d *Data, src feed.Source, name string, count int, dvae string, log io.Writer) (*Codes, error) {
	path := CodesPath(c.Out, name)
	captions, err := hashCaptions(src)
	if err != nil {
		return nil, err
	}
	key := codesKey{src.Report().Source, c.Seed, src.Len(), captions, count, e.side, dvae}.String()
	codes, err := readCodes(path, key, e.image)
	if err != nil {
		return nil, err
	}
	if codes != nil {
		return codes, nil
	}
	// The place in the whole keys the augmentation, so every view differs.
	loader, err := d.loader(src, feed.LoaderOptions{Side: e.side, Batch: e.batch, Seed: c.Seed, InOrder: true, Augment: feed.AugmentPrior(e.side)})
	if err != nil {
		return nil, err
	}
	defer loader.Close()
	progress := metrics.NewProgress(log, "encode "+name, "images", 0, int64(count))
	defer progress.Done()
	codes = &Codes{Image: e.image}
	start := time.Now()
	for codes.Len() < count {
		batch, err := loader.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("encode: %w; what was encoded is made again", ErrInterrupted)
		}
		if err != nil {
			return nil, err
		}
		pixels(e.images, batch.Pixels)
		e.program.Run()
		tokens, err := e.program.OutputI32("tokens")
		if err != nil {
			return nil, err
		}
		n := min(e.batch, count-codes.Len())
		for _, t := range tokens[:n*e.image] {
			codes.Tokens = append(codes.Tokens, uint16(t))
		}
		codes.Captions = append(codes.Captions, batch.Captions[:n]...)
		progress.Update(int64(codes.Len()), float64(n))
	}
	if r := loader.Report(); r.Total() > 0 {
		progress.Note("%s", r)
	}
	codes.Seconds = time.Since(start).Seconds()
	return codes, codes.write(path, key)
}

// hashCaptions tells a collection of files from what it was before files came, went or
// changed; 0 for a source without end, whose name says all.
func hashCaptions(src feed.Source) (uint64, error) {
	h := uint64(0)
	for i := range src.Len() {
		caption, err := src.Caption(i)
		if err != nil {
			return 0, err
		}
		h = dice.Hash(h, dice.HashString(caption))
	}
	return h, nil
}

// write replaces the file in one step.
func (c *Codes) write(path, key string) error {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	tokens := make([]byte, 0, 2*len(c.Tokens))
	for _, t := range c.Tokens {
		tokens = binary.LittleEndian.AppendUint16(tokens, t)
	}
	var text, ends []byte
	for _, s := range c.Captions {
		text = append(text, s...)
		ends = binary.LittleEndian.AppendUint32(ends, uint32(len(text)))
	}
	tmp := path + ".tmp"
	err := snapshot.WriteFile(tmp, []snapshot.Tensor{
		{Name: "tokens", DType: "U16", Shape: []int{c.Len(), c.Image}, Data: tokens},
		{Name: "captions", DType: "U8", Shape: []int{len(text)}, Data: text},
		{Name: "caption_ends", DType: "I32", Shape: []int{c.Len()}, Data: ends},
	}, map[string]string{"key": key, "sha256": sum(tokens, text, ends), "seconds": strconv.FormatFloat(c.Seconds, 'f', 3, 64)})
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// sum tells whether the parts of the file are as they were written: other tokens
// would train as well, to no good.
func sum(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readCodes gives nil where there is no file of that key.
func readCodes(path, key string, image int) (*Codes, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	tensors, metadata, err := snapshot.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w; remove the file, it is made again", err)
	}
	if metadata["key"] != key {
		return nil, nil
	}
	data := map[string][]byte{}
	for _, t := range tensors {
		data[t.Name] = t.Data
	}
	c := &Codes{Image: image}
	if c.Seconds, err = strconv.ParseFloat(metadata["seconds"], 64); err != nil {
		return nil, fmt.Errorf("%s: seconds: %w; remove the file, it is made again", path, err)
	}
	ends, text, tokens := data["caption_ends"], data["captions"], data["tokens"]
	if sum(tokens, text, ends) != metadata["sha256"] {
		return nil, fmt.Errorf("%s: damaged: its SHA-256 is not the one written with it; remove the file, it is made again", path)
	}
	for i := 0; i+1 < len(tokens); i += 2 {
		c.Tokens = append(c.Tokens, binary.LittleEndian.Uint16(tokens[i:]))
	}
	from := uint32(0)
	for i := 0; i+3 < len(ends); i += 4 {
		to := binary.LittleEndian.Uint32(ends[i:])
		if to < from || int(to) > len(text) {
			return nil, fmt.Errorf("%s: captions are damaged; remove the file, it is made again", path)
		}
		c.Captions = append(c.Captions, string(text[from:to]))
		from = to
	}
	if len(c.Tokens) != c.Len()*image {
		return nil, fmt.Errorf("%s: %d tokens for %d captions; remove the file, it is made again", path, len(c.Tokens), c.Len())
	}
	return c, nil
}
