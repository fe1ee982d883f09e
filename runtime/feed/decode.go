package feed

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/image/webp"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// The reasons a sample is skipped for, besides those of filters.
const (
	ReasonNoCaption    = "without a caption"
	ReasonNoImage      = "without a picture"
	ReasonEmptyCaption = "with an empty caption"
	ReasonBadText      = "with a caption that is not UTF-8"
	ReasonBadImage     = "with a picture that does not decode"
	ReasonHuge         = "with a picture above 100 megapixels"
	ReasonDuplicate    = "with a second file of the same name"
	ReasonUnreadable   = "unreadable"
	ReasonTooSmall     = "too small to crop"
)

// maxPixels guards against files whose header claims an absurd size.
const maxPixels = 100_000_000

var imageExtensions = map[string]bool{"png": true, "jpg": true, "jpeg": true, "webp": true}

type codec struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// sniff chooses by content, since files with a wrong extension are common.
func sniff(head []byte) (codec, error) {
	switch {
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		return codec{png.DecodeConfig, png.Decode}, nil
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")):
		return codec{jpeg.DecodeConfig, jpeg.Decode}, nil
	case len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP":
		return codec{webp.DecodeConfig, webp.Decode}, nil
	case len(head) == 0:
		return codec{}, errors.New("empty file")
	}
	return codec{}, errors.New("neither PNG, JPEG nor WebP")
}

// dimensions reads width and height from the start of an image.
func dimensions(r io.Reader) (w, h int, err error) {
	defer recovered(&err)
	var head [12]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return 0, 0, err
	}
	c, err := sniff(head[:n])
	if err != nil {
		return 0, 0, err
	}
	cfg, err := c.config(io.MultiReader(bytes.NewReader(head[:n]), r))
	if err == nil && (cfg.Width <= 0 || cfg.Height <= 0) {
		err = fmt.Errorf("size is %dx%d", cfg.Width, cfg.Height)
	}
	return cfg.Width, cfg.Height, err
}

// decode turns an image file into RGB; what is transparent shows white.
func decode(data []byte) (p picture.Picture, err error) {
	defer recovered(&err)
	c, err := sniff(data)
	if err != nil {
		return picture.Picture{}, err
	}
	m, err := c.decode(bytes.NewReader(data))
	if err != nil {
		return picture.Picture{}, err
	}
	return flatten(m), nil
}

// recovered turns a decoder's panic on hostile input into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("decoder gave up: %v", r)
	}
}

func flatten(m image.Image) picture.Picture {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	// draw has fast paths for what the decoders return.
	flat := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(flat, flat.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(flat, flat.Rect, m, b.Min, draw.Over)
	p := picture.Picture{Width: w, Height: h, Pixels: make([]uint8, w*h*3)}
	for i := range w * h {
		copy(p.Pixels[i*3:i*3+3], flat.Pix[i*4:])
	}
	return p
}

// cleanCaption makes a caption one line: runs of white space become one space.
func cleanCaption(raw []byte) (caption, reason string) {
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		return "", ReasonBadText
	}
	caption = strings.Join(strings.Fields(string(raw)), " ")
	if caption == "" {
		return "", ReasonEmptyCaption
	}
	return caption, ""
}
