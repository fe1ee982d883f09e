package bpe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

var clip = sync.OnceValues(func() (*Tokenizer, error) { return LoadCLIP("testdata/bpe_simple_vocab_16e6.txt.gz") })

type golden struct {
	Text string  `json:"text"`
	IDs  []int32 `json:"ids"`
}

func goldens(t testing.TB) []golden {
	f, err := os.Open("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []golden
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var g golden
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		out = append(out, g)
	}
	if len(out) < 1500 {
		t.Fatalf("%d goldens, want 1515", len(out))
	}
	return out
}

func captions(t testing.TB) []string {
	var out []string
	for _, g := range goldens(t) {
		out = append(out, g.Text)
	}
	return out
}

func mustTrain(t testing.TB, captions []string, size int) *Tokenizer {
	tok, err := Train(slices.Values(captions), size)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestCLIPEncodesEveryGolden(t *testing.T) {
	tok, err := clip()
	if err != nil {
		t.Fatal(err)
	}
	if tok.VocabSize() != 49406 || tok.PadBase() != 49408 {
		t.Errorf("vocabulary %d, pads from %d; want 49406 and 49408", tok.VocabSize(), tok.PadBase())
	}
	for _, g := range goldens(t) {
		if got := tok.Encode(g.Text); !slices.Equal(got, g.IDs) {
			t.Errorf("%q: %v, want %v", g.Text, got, g.IDs)
		}
	}
}

func TestSpelledOutSpecialTokensStayText(t *testing.T) {
	tok, _ := clip()
	for _, id := range tok.Encode("a <|endoftext|> b") {
		if id >= CLIPStart {
			t.Errorf("a caption's text became the special id %d", id)
		}
	}
}

func TestCLIPDecodeIsStableUnderEncode(t *testing.T) {
	tok, _ := clip()
	for _, g := range goldens(t) {
		text := tok.Decode(g.IDs)
		if strings.Contains(text, "&") {
			continue // decoding may spell a new HTML entity
		}
		if again := tok.Encode(text); !slices.Equal(again, g.IDs) {
			t.Errorf("%q decodes to %q, which encodes to %v, not %v", g.Text, text, again, g.IDs)
		}
	}
}

func TestSaveLoadGivesTheSameTokenizer(t *testing.T) {
	c, err := clip()
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range map[string]*Tokenizer{"clip": c, "trained": mustTrain(t, captions(t), 700)} {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		if err := tok.Save(path); err != nil {
			t.Fatal(err)
		}
		back, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if back.VocabSize() != tok.VocabSize() || back.Convention() != tok.Convention() {
			t.Errorf("%s: %d %s came back as %d %s", name, tok.VocabSize(), tok.Convention(), back.VocabSize(), back.Convention())
		}
		var one, two bytes.Buffer
		tok.Write(&one)
		back.Write(&two)
		if !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Errorf("%s: written again it differs", name)
		}
		for _, text := range captions(t) {
			if a, b := tok.Encode(text), back.Encode(text); !slices.Equal(a, b) {
				t.Errorf("%s: %q: %v, then %v", name, text, a, b)
			}
		}
	}
}

func TestTrainedTokenizerDecodesToCleanText(t *testing.T) {
	tok := mustTrain(t, captions(t), 1024)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`[a-zA-Z0-9 ,.'!?&\t-]{0,40}`),
			rapid.String(),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		).Draw(t, "text")
		ids := tok.Encode(text)
		if got, want := tok.Decode(ids), SpacePrefix.Clean(text); got != want {
			t.Fatalf("%q: decodes to %q, want %q", text, got, want)
		}
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		if got := tok.Decode(tok.EncodeDropout(text, p, NewSource(1, 2))); got != SpacePrefix.Clean(text) {
			t.Fatalf("%q: with dropout %g decodes to %q", text, p, got)
		}
	})
}

func TestCleanIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		once := SpacePrefix.Clean(rapid.String().Draw(t, "text"))
		if twice := SpacePrefix.Clean(once); twice != once {
			t.Fatalf("%q, cleaned again %q", once, twice)
		}
	})
}

func TestTrainingIgnoresTheOrderOfCaptions(t *testing.T) {
	list := captions(t)
	var want bytes.Buffer
	mustTrain(t, list, 800).Write(&want)
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 0))
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		var got bytes.Buffer
		mustTrain(t, list, 800).Write(&got)
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("shuffled with seed %d the vocabulary differs", seed)
		}
	}
}

// naiveMerges is the textbook algorithm: count every pair, merge the best, repeat.
func naiveMerges(captions []string, size int) []string {
	counts := map[string]int64{}
	for _, c := range captions {
		SpacePrefix.eachWord(c, func(w string) { counts[w]++ })
	}
	vocab := make([]string, 0, size)
	var id [256]int32
	for i, b := range byteOrder {
		id[b] = int32(i)
		vocab = append(vocab, string([]byte{b}))
	}
	words := map[string][]int32{}
	for w := range counts {
		for i := range len(w) {
			words[w] = append(words[w], id[w[i]])
		}
	}
	for len(vocab) < size {
		pairs := map[[2]int32]int64{}
		for w, ids := range words {
			for i := 0; i+1 < len(ids); i++ {
				pairs[[2]int32{ids[i], ids[i+1]}] += counts[w]
			}
		}
		var best [2]int32
		var most int64 = 1
		for p, n := range pairs {
			if n > most || n == most && n > 1 && (p[0] < best[0] || p[0] == best[0] && p[1] < best[1]) {
				best, most = p, n
			}
		}
		if most < 2 {
			break
		}
		vocab = append(vocab, vocab[best[0]]+vocab[best[1]])
		for w, ids := range words {
			var out []int32
			for i := 0; i < len(ids); i++ {
				if i+1 < len(ids) && [2]int32{ids[i], ids[i+1]} == best {
					out = append(out, int32(len(vocab)-1))
					i++
				} else {
					out = append(out, ids[i])
				}
			}
			words[w] = out
		}
	}
	return vocab
}

func TestTrainAgreesWithTheTextbookAlgorithm(t *testing.T) {
	list := append(captions(t)[:200], "aaaa aaa aaaaaaa", "banana bananas", "ananas ananas")
	tok := mustTrain(t, list, 500)
	want := naiveMerges(list, 500)
	if len(want) != tok.VocabSize() {
		t.Fatalf("%d tokens, want %d", tok.VocabSize(), len(want))
	}
	for i, w := range want {
		if got := tok.Token(int32(i)); got != w {
			t.Fatalf("token %d is %q, want %q", i, got, w)
		}
	}
}

func TestFrequentWordsAreSingleTokens(t *testing.T) {
	list := captions(t)
	tok := mustTrain(t, list, 16384)
	counts := map[string]int{}
	for _, c := range list {
		SpacePrefix.eachWord(c, func(w string) { counts[w]++ })
	}
	for w, n := range counts {
		if ids := tok.encodeWord(w); n >= 2 && len(ids) != 1 {
			t.Errorf("%q occurs %d times and has %d tokens", w, n, len(ids))
		}
	}
	if tok.VocabSize() >= 16384 {
		t.Errorf("%d tokens from 1515 captions", tok.VocabSize())
	}
}

func TestDropoutDependsOnSeedAndSampleOnly(t *testing.T) {
	tok := mustTrain(t, captions(t), 1024)
	text := "a woman in a motorized wheelchair with medium-light skin tone facing right"
	whole := tok.Encode(text)
	if got := tok.EncodeDropout(text, 0, nil); !slices.Equal(got, whole) {
		t.Errorf("p=0: %v, want %v", got, whole)
	}
	if got := tok.EncodeDropout(text, 1, NewSource(0, 0)); len(got) != len(text)+1 {
		t.Errorf("p=1: %d tokens, want one a byte: %d", len(got), len(text)+1)
	}
	different, tokens := 0, 0
	for sample := range uint64(200) {
		a := tok.EncodeDropout(text, 0.1, NewSource(7, sample))
		b := tok.EncodeDropout(text, 0.1, NewSource(7, sample))
		if !slices.Equal(a, b) {
			t.Fatalf("sample %d: %v, then %v", sample, a, b)
		}
		if !slices.Equal(a, whole) {
			different++
		}
		tokens += len(a)
	}
	if different < 100 {
		t.Errorf("p=0.1 changed %d of 200 encodings", different)
	}
	if mean := float64(tokens) / 200; mean <= float64(len(whole)) || mean > 2*float64(len(whole)) {
		t.Errorf("p=0.1: %.1f tokens on average, without dropout %d", mean, len(whole))
	}
}

func TestEncodePaddedUsesThePadIdOfEachPosition(t *testing.T) {
	tok := mustTrain(t, []string{"a cat", "a cat", "a dog", "a dog"}, 300)
	if err := tok.Reserve(512); err != nil {
		t.Fatal(err)
	}
	ids, n, cut := tok.EncodePadded("A  cat", 5)
	want := append(tok.Encode("a cat"), 514, 515, 516)
	if n != 2 || cut || !slices.Equal(ids, want) {
		t.Errorf("%v %d %t, want %v 2 false", ids, n, cut, want)
	}
	if ids, n, cut = tok.EncodePadded("a cat a dog", 3); len(ids) != 3 || n != 3 || !cut {
		t.Errorf("overlong: %v %d %t, want 3 tokens, cut", ids, n, cut)
	}
	if ids, n, cut = tok.EncodePadded("", 2); !slices.Equal(ids, []int32{512, 513}) || n != 0 || cut {
		t.Errorf("empty: %v %d %t", ids, n, cut)
	}
	if got := tok.Decode([]int32{514, 515, 600, -1}); got != "" {
		t.Errorf("pads decode to %q", got)
	}
	err := tok.Reserve(100)
	if err == nil || !strings.Contains(err.Error(), "text vocabulary 100") {
		t.Errorf("Reserve(100): %v", err)
	}
}

func TestLongWordsMergeLikeShortOnes(t *testing.T) {
	c, _ := clip()
	for _, tok := range []*Tokenizer{c, mustTrain(t, captions(t), 900)} {
		rapid.Check(t, func(t *rapid.T) {
			word := rapid.StringMatching(`[a-f]{129,400}|(ab|ha|e){70,200}|a{129,300}`).Draw(t, "word")
			long := tok.encodeWord(word)
			ids := tok.bytesOf(nil, word)
			for { // encodeWord's loop, without its limit
				best, at := merge{rank: 1<<31 - 1}, -1
				for i := 0; i+1 < len(ids); i++ {
					if m, ok := tok.table[pairKey(ids[i], ids[i+1])]; ok && m.rank < best.rank {
						best, at = m, i
					}
				}
				if at < 0 {
					break
				}
				ids[at] = best.id
				ids = append(ids[:at+1], ids[at+2:]...)
			}
			if !slices.Equal(long, ids) {
				t.Fatalf("%q: %v, want %v", word, long, ids)
			}
		})
	}
}

func TestWordsSplitLikeTheRegularExpressions(t *testing.T) {
	for _, c := range []struct {
		convention Convention
		text       string
		want       []string
	}{
		{SpacePrefix, "It's 12345 o'clock -- isn't it?!", []string{" it", "'s", " 12345", " o", "'", "clock", " --", " isn", "'t", " it", "?!"}},
		{SpacePrefix, "we'll they've 'rest 'd", []string{" we", "'ll", " they", "'ve", " '", "rest", " '", "d"}},
		{SpacePrefix, "ab1c №5 ½", []string{" ab", "1", "c", " №", "5", " ½"}},
		{WordSuffix, "It's 123 o'clock -- isn't it?!", []string{"it", "'s", "1", "2", "3", "o", "'", "clock", "--", "isn", "'t", "it", "?!"}},
		{WordSuffix, "a &amp;lt; b", []string{"a", "<", "b"}},
	} {
		var got []string
		c.convention.eachWord(c.text, func(w string) { got = append(got, w) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q: %q, want %q", c.convention, c.text, got, c.want)
		}
	}
}

func TestDamagedFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	tok := mustTrain(t, []string{"a cat", "a cat"}, 260)
	var good bytes.Buffer
	tok.Write(&good)
	for want, text := range map[string]string{
		"not a tokenizer.json":      good.String()[:good.Len()/2],
		"only byte-level BPE":       strings.Replace(good.String(), `"BPE"`, `"WordPiece"`, 1),
		"without gaps or repeats":   strings.Replace(good.String(), `"!": 0`, `"!": 1`, 1),
		"is not in the vocabulary":  strings.Replace(good.String(), `"merges": [`, `"merges": ["q zz",`, 1),
		"makes no token":            strings.Replace(good.String(), `"merges": [`, `"merges": ["q z",`, 1),
		"pre_tokenizer is not Byte": strings.Replace(good.String(), `"type": "ByteLevel"`, `"type": "Whitespace"`, 1),
	} {
		path := filepath.Join(dir, "tokenizer.json")
		os.WriteFile(path, []byte(text), 0o644)
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want one line with %q, got: %v", want, err)
		}
	}
	path := filepath.Join(dir, "clip.txt")
	os.WriteFile(path, []byte("#version: 0.2\ni n\nt h\n"), 0o644)
	if _, err := LoadCLIP(path); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("short CLIP file: %v", err)
	}
	if _, err := Train(slices.Values([]string{" ", ""}), 300); err == nil {
		t.Error("no words: no error")
	}
	if _, err := Train(slices.Values([]string{"a"}), 255); err == nil {
		t.Error("255 tokens: no error")
	}
}

func TestTokenizerIsSafeForConcurrentUse(t *testing.T) {
	tok := mustTrain(t, captions(t)[:100], 400)
	list := captions(t)[:300]
	want := make([][]int32, len(list))
	fresh := mustTrain(t, captions(t)[:100], 400)
	for i, c := range list {
		want[i] = fresh.Encode(c)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, c := range list {
				if got := tok.Encode(c); !slices.Equal(got, want[i]) {
					t.Errorf("%q: %v, want %v", c, got, want[i])
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEncode(b *testing.B) {
	list := captions(b)
	tok := mustTrain(b, list, 1024)
	n := 0
	for _, c := range list {
		n += len(c)
	}
	b.SetBytes(int64(n))
	var dst []int32
	for b.Loop() {
		for _, c := range list {
			dst = tok.AppendEncode(dst[:0], c)
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	list := captions(b)
	for b.Loop() {
		mustTrain(b, list, 4096)
	}
}

func ExampleTrain() {
	tok, err := Train(slices.Values([]string{"a red cat", "a red dog", "a black cat"}), 280)
	if err != nil {
		fmt.Println(err)
		return
	}
	ids, n, _ := tok.EncodePadded("A red cat", 6)
	fmt.Println(n, tok.Decode(ids))
	// Output: 3 a red cat
}
