package train

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/runtime/bpe"
)

// A caption that fits without dropout is never cut, and dropout still tells it in
// different tokens wherever there is room for more of them.
func TestDropoutCutsNoCaption(t *testing.T) {
	const caption, slots = "a small red circle above a large blue square", 300
	learned, err := bpe.Train(slices.Values([]string{caption, caption, caption}), 400)
	if err != nil {
		t.Fatal(err)
	}
	if err := learned.Reserve(400); err != nil {
		t.Fatal(err)
	}
	tok := &Tokenizer{Tokenizer: learned}
	whole := learned.Encode(caption)
	for room, fewest := range map[int]int{0: 1, 2: 10, 20: 100} { // ways of telling it
		ways := map[string]bool{}
		for slot := range uint64(slots) {
			ids := make([]int32, len(whole)+room)
			n := tok.encodeCaption(ids, caption, 0.1, 1, slot)
			if got := learned.Decode(ids[:n]); got != caption {
				t.Fatalf("room for %d tokens more, slot %d: %q", room, slot, got)
			}
			ways[fmt.Sprint(ids[:n])] = true
		}
		if len(ways) < fewest {
			t.Errorf("room for %d tokens more: %d ways in %d slots, want %d", room, len(ways), slots, fewest)
		}
	}
	ids := make([]int32, len(whole)-1)
	if n := tok.encodeCaption(ids, caption, 0.1, 1, 0); n != len(ids) || !slices.Equal(ids, whole[:n]) {
		t.Errorf("a caption of %d tokens in %d positions: %v", len(whole), len(ids), ids)
	}
}
