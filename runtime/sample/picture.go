package sample

import (
	"fmt"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// Decoder turns image tokens into pictures with the dVAE's decode program.
type Decoder struct {
	decode      Program
	batch, side int
	image       int
}

// NewDecoder finds the sizes of the program.
func NewDecoder(decode Program) (*Decoder, error) {
	tokens, err := decode.Input("tokens")
	if err != nil {
		return nil, err
	}
	images, err := decode.Output("images")
	if err != nil {
		return nil, err
	}
	if len(images.Shape) != 4 || images.Shape[3] != 3 {
		return nil, fmt.Errorf("dvae: decode gives %s; want [batch,side,side,3]", images)
	}
	b := images.Shape[0]
	return &Decoder{decode, b, images.Shape[1], tokens.Len() / b}, nil
}

// Image is the number of tokens of a picture.
func (d *Decoder) Image() int { return d.image }

// Side is the side of the pictures in pixels.
func (d *Decoder) Side() int { return d.side }

// Decode gives the picture of each list of tokens.
func (d *Decoder) Decode(tokens [][]int32) ([]picture.Picture, error) {
	var out []picture.Picture
	for at := 0; at < len(tokens); at += d.batch {
		now := tokens[at:min(len(tokens), at+d.batch)]
		in, err := d.decode.InputI32("tokens")
		if err != nil {
			return nil, err
		}
		clear(in)
		for j, t := range now {
			if len(t) != d.image {
				return nil, fmt.Errorf("dvae: picture %d has %d tokens, want %d", at+j, len(t), d.image)
			}
			copy(in[j*d.image:], t)
		}
		d.decode.Run()
		images, err := d.decode.OutputF32("images")
		if err != nil {
			return nil, err
		}
		n := d.side * d.side * 3
		for j := range now {
			out = append(out, picture.FromFloats(images[j*n:(j+1)*n], d.side, d.side))
		}
	}
	return out, nil
}

// Ranker says how well pictures go with captions, with the contrastive model's
// embed_image and embed_text programs.
type Ranker struct {
	image, text          Program
	batch, side, textLen int
	features             int
}

// NewRanker finds the sizes of the programs.
func NewRanker(embedImage, embedText Program) (*Ranker, error) {
	images, err := embedImage.Input("images")
	if err != nil {
		return nil, err
	}
	features, err := embedImage.Output("features")
	if err != nil {
		return nil, err
	}
	text, err := embedText.Input("text")
	if err != nil {
		return nil, err
	}
	if len(images.Shape) != 4 || len(features.Shape) != 2 || len(text.Shape) != 2 || text.Shape[0] != images.Shape[0] {
		return nil, fmt.Errorf("clip: images are %s, text %s, features %s; want [batch,side,side,3], [batch,length], [batch,features]", images, text, features)
	}
	return &Ranker{embedImage, embedText, images.Shape[0], images.Shape[1], text.Shape[1], features.Shape[1]}, nil
}

// TextLen is the number of text positions.
func (r *Ranker) TextLen() int { return r.textLen }

// Text is a caption as the contrastive model reads it: ids of TextLen, and the
// position of the last token.
type Text struct {
	IDs []int32
	End int32
}

// EmbedTexts gives a unit vector for each text.
func (r *Ranker) EmbedTexts(texts []Text) ([][]float32, error) {
	var out [][]float32
	for at := 0; at < len(texts); at += r.batch {
		now := texts[at:min(len(texts), at+r.batch)]
		ids, err := r.text.InputI32("text")
		if err != nil {
			return nil, err
		}
		end, err := r.text.InputI32("end")
		if err != nil {
			return nil, err
		}
		clear(ids)
		clear(end)
		for j, t := range now {
			copy(ids[j*r.textLen:(j+1)*r.textLen], t.IDs)
			end[j] = t.End
		}
		r.text.Run()
		if out, err = r.read(out, r.text, len(now)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// EmbedPictures gives a unit vector for each picture.
func (r *Ranker) EmbedPictures(pictures []picture.Picture) ([][]float32, error) {
	var out [][]float32
	n := r.side * r.side * 3
	for at := 0; at < len(pictures); at += r.batch {
		now := pictures[at:min(len(pictures), at+r.batch)]
		images, err := r.image.InputF32("images")
		if err != nil {
			return nil, err
		}
		clear(images)
		for j, p := range now {
			if p.Width != r.side || len(p.Pixels) != n {
				return nil, fmt.Errorf("clip: picture %d is %dx%d, want %dx%d", at+j, p.Width, p.Height, r.side, r.side)
			}
			for k, v := range p.Pixels {
				images[j*n+k] = float32(v) / 255
			}
		}
		r.image.Run()
		if out, err = r.read(out, r.image, len(now)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Ranker) read(out [][]float32, p Program, n int) ([][]float32, error) {
	f, err := p.OutputF32("features")
	if err != nil {
		return nil, err
	}
	for j := range n {
		out = append(out, append([]float32(nil), f[j*r.features:(j+1)*r.features]...))
	}
	return out, nil
}

// Cosine is the product of two unit vectors.
func Cosine(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
