// Command classifier trains the network on drawn patterns and counts how many
// new ones it tells apart.
package main

import (
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/gouache-ml/gouache/runtime/exec"

	"example.com/mine/gen/classifier"
)

const (
	side  = 12
	batch = 16
	steps = 200
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	sys, err := classifier.Open(exec.Options{})
	if err != nil {
		return err
	}
	defer sys.Close()
	model, err := sys.Model("classifier")
	if err != nil {
		return err
	}
	if err := model.Init(1); err != nil {
		return err
	}
	train, err := model.Program("train")
	if err != nil {
		return err
	}
	update, err := train.InputI32("update")
	if err != nil {
		return err
	}
	in := map[string][]float32{}
	for _, x := range train.Inputs() {
		if x.DType == exec.F32 {
			if in[x.Name], err = x.F32(); err != nil {
				return err
			}
		}
	}
	classes, err := train.InputI32("classes")
	if err != nil {
		return err
	}
	loss, err := train.OutputF32("loss")
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	for step := 1; step <= steps; step++ {
		draw(r, in["pictures"], classes)
		in["lr"][0] = 2e-3
		update[0] = int32(step)
		in["clip"][0] = 0 // no limit
		train.Run()
		if step == 1 || step%50 == 0 {
			fmt.Printf("step %d loss %.4f\n", step, loss[0])
		}
	}

	classify, err := model.Program("classify")
	if err != nil {
		return err
	}
	pictures, err := classify.InputF32("pictures")
	if err != nil {
		return err
	}
	guess, err := classify.OutputI32("classes")
	if err != nil {
		return err
	}
	right, want := 0, make([]int32, batch)
	for range 20 {
		draw(r, pictures, want)
		classify.Run()
		for i := range want {
			if guess[i] == want[i] {
				right++
			}
		}
	}
	fmt.Printf("right: %d of %d\n", right, 20*batch)
	return nil
}

// draw fills a batch with noisy patterns and their classes.
func draw(r *rand.Rand, pictures []float32, classes []int32) {
	for b := range batch {
		c, shift := r.IntN(4), r.IntN(4)
		classes[b] = int32(c)
		for y := range side {
			for x := range side {
				on := [4]int{y + shift, x + shift, x + y + shift, x/2*2 + y/2*2 + shift&2}[c]%4 < 2
				v := 0.3 * r.NormFloat64()
				if on {
					v++
				}
				pictures[(b*side+y)*side+x] = float32(v)
			}
		}
	}
}
