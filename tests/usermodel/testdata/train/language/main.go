// Command language trains the GPT on a verse and then recites it.
package main

import (
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/gouache-ml/gouache/runtime/exec"

	"example.com/mine/gen/language"
)

const verse = "a flea and a fly in a flue were imprisoned so what could they do said the fly let us flee said the flea let us fly so they flew through a flaw in the flue "

const steps = 300

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	sys, err := language.Open(exec.Options{})
	if err != nil {
		return err
	}
	defer sys.Close()
	gpt, err := sys.Model("gpt")
	if err != nil {
		return err
	}
	if err := gpt.Init(1); err != nil {
		return err
	}
	train, err := gpt.Program("train")
	if err != nil {
		return err
	}
	text, err := train.InputI32("text")
	if err != nil {
		return err
	}
	update, err := train.InputI32("update")
	if err != nil {
		return err
	}
	set := func(name string, x float64) {
		in, e := train.InputF32(name)
		if e != nil {
			err = e
			return
		}
		in[0] = float32(x)
	}
	loss, err := train.OutputF32("loss")
	if err != nil {
		return err
	}
	batch, length := 8, 33
	r := rand.New(rand.NewPCG(1, 2))
	for step := 1; step <= steps; step++ {
		for b := range batch {
			copy(text[b*length:(b+1)*length], encode(verse, r.IntN(len(verse)), length))
		}
		set("lr", 3e-3*math.Min(1, float64(step)/20))
		update[0] = int32(step)
		set("clip", 1)
		if err != nil {
			return err
		}
		train.Run()
		if step == 1 || step%100 == 0 {
			fmt.Printf("step %d loss %.4f\n", step, loss[0])
		}
	}

	// Recite: start with 32 characters, then feed each guess back.
	predict, err := gpt.Program("predict")
	if err != nil {
		return err
	}
	text, err = predict.InputI32("text")
	if err != nil {
		return err
	}
	next, err := predict.OutputI32("next")
	if err != nil {
		return err
	}
	window := encode(verse, 0, len(text))
	var said strings.Builder
	for range 60 {
		copy(text, window) // outputs may lie where inputs were
		predict.Run()
		c := next[len(text)-1]
		said.WriteByte(letters[c])
		window = append(window[1:], c)
	}
	fmt.Printf("recites: %s\n", said.String())
	return nil
}

const letters = " abcdefghijklmnopqrstuvwxyz"

// encode gives n characters of s from position at on, going round.
func encode(s string, at, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(strings.IndexByte(letters, s[(at+i)%len(s)]))
	}
	return out
}
