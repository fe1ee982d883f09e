package bpe

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// CLIP's vocabulary has 49,406 tokens; these two ids follow it. They are never
// produced by Encode, not even from a caption that spells them out.
const (
	CLIPStart = 49406 // start of text
	CLIPEnd   = 49407 // end of text
)

const clipMerges = 49152 - 256 - 2 // CLIP uses the first 48,894 of the file's merges

const clipPattern = `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`

// LoadCLIP reads CLIP's vocabulary, the file bpe_simple_vocab_16e6.txt.gz of its
// release (gzipped or plain). Pad ids start at 49,408, above start and end tokens.
func LoadCLIP(path string) (*Tokenizer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := readCLIP(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; CLIP's release has it as bpe_simple_vocab_16e6.txt.gz", path, err)
	}
	return t, nil
}

func readCLIP(r io.Reader) (*Tokenizer, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReader(z)
	}
	vocab := make([]token, 0, 512+clipMerges)
	ids := make(map[token]int32, cap(vocab))
	add := func(tok token) {
		ids[tok] = int32(len(vocab))
		vocab = append(vocab, tok)
	}
	for _, last := range []bool{false, true} {
		for _, b := range byteOrder {
			add(token{string([]byte{b}), last})
		}
	}
	merges := make([][2]int32, 0, clipMerges)
	lines := bufio.NewScanner(in)
	for n := 1; len(merges) < clipMerges && lines.Scan(); n++ {
		if n == 1 {
			if !strings.Contains(lines.Text(), "#version") {
				return nil, fmt.Errorf("line 1: %.40q is not the heading \"#version\"", lines.Text())
			}
			continue
		}
		left, right, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return nil, fmt.Errorf("line %d: %.40q is not two symbols", n, lines.Text())
		}
		a, err := parseToken(left, wordSuffix)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		b, err := parseToken(right, wordSuffix)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		ia, oka := ids[a]
		ib, okb := ids[b]
		if !oka || !okb {
			return nil, fmt.Errorf("line %d: %q merges symbols no earlier line makes", n, lines.Text())
		}
		merges = append(merges, [2]int32{ia, ib})
		add(token{a.bytes + b.bytes, b.last})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(merges) < clipMerges {
		return nil, fmt.Errorf("only %d merges, CLIP has %d: the file is cut short", len(merges), clipMerges)
	}
	t, err := build(WordSuffix, vocab, merges)
	if err != nil {
		return nil, err
	}
	return t, t.Reserve(CLIPEnd + 1)
}

func parseToken(text, suffix string) (token, error) {
	last := suffix != "" && strings.HasSuffix(text, suffix) && text != suffix
	if last {
		text = strings.TrimSuffix(text, suffix)
	}
	raw, err := unescape(text)
	if err == nil && raw == "" {
		err = fmt.Errorf("empty token")
	}
	return token{raw, last}, err
}

func (t *Tokenizer) formatToken(id int32) string {
	tok := t.vocab[id]
	if tok.last {
		return escape(tok.bytes) + wordSuffix
	}
	return escape(tok.bytes)
}

// Save writes the tokenizer as tokenizer.json; the same tokenizer gives the same
// bytes. The file replaces an older one in one step.
func (t *Tokenizer) Save(path string) error {
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return disk.Replace(path, text.Bytes())
}

// Write writes the tokenizer in the format of tokenizer.json.
func (t *Tokenizer) Write(w io.Writer) error {
	var b bytes.Buffer
	heading := spacePrefixHeading
	if t.convention == WordSuffix {
		heading = fmt.Sprintf(wordSuffixHeading, quote(clipPattern))
	}
	b.WriteString(heading)
	b.WriteString("    \"vocab\": {")
	for i := range t.vocab {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n      %s: %d", quote(t.formatToken(int32(i))), i)
	}
	b.WriteString("\n    },\n    \"merges\": [")
	for i, m := range t.merges {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n      %s", quote(t.formatToken(m[0])+" "+t.formatToken(m[1])))
	}
	b.WriteString("\n    ]\n  }\n}\n")
	_, err := w.Write(b.Bytes())
	return err
}

func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

const spacePrefixHeading = `{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": {
    "type": "Sequence",
    "normalizers": [
      {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
      {"type": "Strip", "strip_left": true, "strip_right": true},
      {"type": "Lowercase"}
    ]
  },
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
`

const wordSuffixHeading = `{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": {
    "type": "Sequence",
    "normalizers": [
      {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
      {"type": "Strip", "strip_left": true, "strip_right": true},
      {"type": "Lowercase"}
    ]
  },
  "pre_tokenizer": {
    "type": "Sequence",
    "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": %s}, "behavior": "Removed", "invert": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
    ]
  },
  "post_processor": null,
  "decoder": {
    "type": "Sequence",
    "decoders": [
      {"type": "Replace", "pattern": {"String": "</w>"}, "content": "\u0120"},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
    ]
  },
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "</w>",
    "fuse_unk": false,
    "byte_fallback": false,
`

// Load reads a tokenizer.json with a byte-level BPE model in one of the two
// conventions. Added (special) tokens are dropped: they are the model's business.
func Load(path string) (*Tokenizer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func parse(data []byte) (*Tokenizer, error) {
	var file struct {
		AddedTokens []struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
		} `json:"added_tokens"`
		PreTokenizer json.RawMessage `json:"pre_tokenizer"`
		Model        struct {
			Type     string            `json:"type"`
			Suffix   *string           `json:"end_of_word_suffix"`
			Prefix   *string           `json:"continuing_subword_prefix"`
			Fallback bool              `json:"byte_fallback"`
			Vocab    map[string]int    `json:"vocab"`
			Merges   []json.RawMessage `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("not a tokenizer.json: %w", err)
	}
	m := &file.Model
	if m.Type != "BPE" || m.Fallback || m.Prefix != nil && *m.Prefix != "" {
		return nil, fmt.Errorf("model of type %q: only byte-level BPE is understood; train one with `gouache tokenizer train`", m.Type)
	}
	convention, suffix := SpacePrefix, ""
	if m.Suffix != nil && *m.Suffix != "" {
		convention, suffix = WordSuffix, *m.Suffix
	} else if !bytes.Contains(file.PreTokenizer, []byte(`"ByteLevel"`)) {
		return nil, fmt.Errorf("pre_tokenizer is not ByteLevel; train a tokenizer with `gouache tokenizer train`")
	}
	for _, a := range file.AddedTokens {
		delete(m.Vocab, a.Content)
	}
	vocab := make([]token, len(m.Vocab))
	ids := make(map[string]int32, len(m.Vocab))
	for text, id := range m.Vocab {
		if id < 0 || id >= len(vocab) || vocab[id].bytes != "" {
			return nil, fmt.Errorf("vocab: id %d of %q: %d ids must run from 0 without gaps or repeats", id, text, len(vocab))
		}
		tok, err := parseToken(text, suffix)
		if err != nil {
			return nil, fmt.Errorf("vocab: id %d: %w", id, err)
		}
		vocab[id], ids[text] = tok, int32(id)
	}
	merges := make([][2]int32, len(m.Merges))
	for i, raw := range m.Merges {
		var two [2]string
		var one string
		if json.Unmarshal(raw, &one) == nil {
			var ok bool
			if two[0], two[1], ok = strings.Cut(one, " "); !ok {
				return nil, fmt.Errorf("merges: %d: %s is not a pair", i, raw)
			}
		} else if err := json.Unmarshal(raw, &two); err != nil {
			return nil, fmt.Errorf("merges: %d: %s is not a pair", i, raw)
		}
		for j, text := range two {
			id, ok := ids[text]
			if !ok {
				return nil, fmt.Errorf("merges: %d: %q is not in the vocabulary", i, text)
			}
			merges[i][j] = id
		}
	}
	return build(convention, vocab, merges)
}
