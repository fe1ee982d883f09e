package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/gouache-ml/gouache/models/systems"
)

// duel is some work done by us and by peers, in turns.
type duel struct {
	name  string
	more  int         // how many times as many steps as others take, for what is over in milliseconds
	ours  []string    // arguments of our command
	peers []contender // whose fastest counts
}

// contender is one way of a peer to do it.
type contender struct {
	name    string
	command string // "" for a script in torch/, the first of args
	args    []string
	once    bool // it takes minutes: one step, in the first round alone
}

// Row is one line of the table.
type Row struct {
	Name    string  `json:"name"`
	Ours    float64 `json:"ours"`
	Peer    float64 `json:"peer"`
	Ratio   float64 `json:"ratio"` // ours to peer
	Goal    string  `json:"goal"`  // what the ratio should be, such as "<=0.60"; "" for none
	Unit    string  `json:"unit"`
	Against string  `json:"against"`
}

// met tells whether the ratio reaches the goal.
func (r Row) met() bool {
	var limit float64
	if _, err := fmt.Sscanf(strings.TrimLeft(r.Goal, "<>="), "%g", &limit); err != nil {
		return true
	}
	if strings.HasPrefix(r.Goal, "<=") {
		return r.Ratio <= limit
	}
	return r.Ratio >= limit
}

// inputs of our programs: limits of token ids, and what the optimiser of a first step gets.
func inputs(of string) []string {
	optimizer := "-in lr=1e-4 -in update=1 -in clip=0"
	return strings.Fields(map[string]string{
		"s":     fmt.Sprintf("-in text=%d -in image=%d %s", systems.PeerS.TextVocab, systems.PeerS.ImageVocab, optimizer),
		"t":     fmt.Sprintf("-in text=%d -in image=%d %s", systems.PeerT.TextVocab, systems.PeerT.ImageVocab, optimizer),
		"emoji": fmt.Sprintf("-in text=%d -in image=%d %s", systems.Emoji.Prior.TextVocab, systems.Emoji.Prior.ImageVocab, optimizer),
		"gpt2":  "-in tokens=8192 -in targets=8192 " + optimizer,
		"dvae":  "-in seed=1 -in step=1 -in tau=1 -in beta=6.6 " + optimizer,
	}[of])
}

// duels is everything that is compared. llmc and gomlx are the commands of these peers, "" where there is none.
func duels(llmc, gomlx string) []duel {
	var all []duel
	add := func(name, ours string, in []string, peers ...contender) {
		more := 1
		switch {
		case strings.HasPrefix(name, "GEMM"):
			more = 10
		case strings.HasPrefix(name, "attention"):
			more = 4
		}
		all = append(all, duel{name, more, append(strings.Fields(ours), in...), peers})
	}
	peer := func(name, args string) contender { return contender{name: name, args: strings.Fields(args)} }
	for _, c := range []string{"S", "T"} {
		for _, threads := range []int{2, 1} {
			var ways []contender
			for _, masks := range []string{"smart", "dense"} {
				for _, dtype := range []string{"fp32", "bf16"} {
					ways = append(ways, peer("PyTorch "+masks+" "+dtype, fmt.Sprintf("transformer.py --config %s --masks %s --dtype %s --threads %d", c, masks, dtype, threads)))
				}
			}
			m := strings.ToLower(c)
			add(fmt.Sprintf("%s step, %s", c, plural(threads)), fmt.Sprintf("-program %s.train -threads %d", m, threads), inputs(m), ways...)
		}
	}
	add("S step, recomputing", "-program lean.train -threads 2", inputs("s"), peer("PyTorch smart fp32", "transformer.py --config S --masks smart --dtype fp32 --threads 2"))
	for _, c := range []struct {
		config, model string
		batch, vocab  int
	}{{"S", "s", 1, systems.PeerS.TextVocab}, {"S", "s8", 8, systems.PeerS.TextVocab}, {"T", "t", 1, systems.PeerT.TextVocab}, {"T", "t8", 8, systems.PeerT.TextVocab},
		{"S", "half", 1, systems.PeerS.TextVocab}, {"S", "half8", 8, systems.PeerS.TextVocab}} {
		name := fmt.Sprintf("%s sampling, batch %d", c.config, c.batch)
		if strings.HasPrefix(c.model, "half") {
			name = "16-bit " + name
		}
		add(name, fmt.Sprintf("-sample %s -tokens 128 -threads 2 -in text=%d", c.model, c.vocab), nil,
			peer("PyTorch", fmt.Sprintf("sample.py --config %s --batch %d --tokens 128 --threads 2", c.config, c.batch)))
	}
	add("dVAE step", "-program dvae.train -threads 2", inputs("dvae"), peer("PyTorch NHWC", "dvae.py --format nhwc --threads 2"), peer("PyTorch NCHW", "dvae.py --format nchw --threads 2"))
	add("GPT-2 step", "-program gpt2.train -threads 2", inputs("gpt2"), peer("PyTorch", "gpt2.py --threads 2"))
	if llmc != "" {
		add("GPT-2 step beside llm.c", "-program gpt2.train -threads 2", inputs("gpt2"), contender{name: "llm.c", command: llmc, args: strings.Fields("--threads 2"), once: true})
	}
	if gomlx != "" {
		add("T step beside GoMLX", "-program t.train -threads 2", inputs("t"), contender{name: "GoMLX, Go backend", command: gomlx, args: strings.Fields("--threads 2"), once: true})
	}
	for _, kind := range []string{"row", "column", "conv"} {
		add("attention "+kind+", forward", "-program attention."+kind+" -threads 2", nil, peer("dense OpenBLAS", "masked.py --kind "+kind+" --threads 2"))
		add("attention "+kind+", forward and backward", "-program attention."+kind+"_train -threads 2", nil, peer("dense OpenBLAS", "masked.py --backward --kind "+kind+" --threads 2"))
	}
	for _, s := range systems.PeerGEMM {
		size := fmt.Sprintf("%dx%dx%d", s[0], s[1], s[2])
		for _, product := range []string{"forward", "input", "weight"} {
			args := fmt.Sprintf("gemm.py --product %s --size %s --threads 2 --library ", product, size)
			add("GEMM "+product+" "+size, fmt.Sprintf("-program gemm.%s_%s -kernels -threads 2", product, size), nil, peer("OpenBLAS", args+"openblas"), peer("oneDNN", args+"onednn"))
		}
	}
	return all
}

func plural(threads int) string {
	if threads == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", threads)
}

// startUpLimit is in seconds.
const startUpLimit = 0.3

// goals of the rows of seconds, by the beginning of their name; the first that fits.
var goals = []struct{ name, goal string }{
	{"S step, 2 ", "<=0.60"}, {"S step, 1 ", "<=0.65"}, {"T step, 2 ", "<=0.60"}, {"T step, 1 ", "<=0.65"},
	{"GPT-2 step beside", "<=0.67"}, {"T step beside", "<=0.02"},
	{"S sampling", "<=0.25"}, {"T sampling", "<=0.25"}, {"dVAE step", "<=0.60"},
	{"attention row, forward and", "<=0.25"}, {"attention column, forward and", "<=0.25"}, {"attention conv, forward and", "<=0.25"}, {"attention", "<=0.20"},
}

func goal(name string) string {
	for _, g := range goals {
		if strings.HasPrefix(name, g.name) {
			return g.goal
		}
	}
	return ""
}

// table makes the rows of duels that were fought; peak is the measured peak of multiply-adds on two threads in
// GFLOP/s, 0 where it wasn't measured.
func table(fought []outcome, peak float64) []Row {
	var rows []Row
	add := func(name string, ours, peer float64, goal, unit, against string) {
		rows = append(rows, Row{name, ours, peer, ours / peer, goal, unit, against})
	}
	products := map[string][]float64{} // ratios by library
	for _, o := range fought {
		if strings.HasPrefix(o.name, "GEMM ") {
			for _, p := range o.peers {
				add(o.name, o.ours.gflops, p.gflops, "", "GFLOP/s", p.name)
				products[p.name] = append(products[p.name], o.ours.gflops/p.gflops)
			}
			continue
		}
		best := o.best()
		add(o.name, o.ours.seconds, best.seconds, goal(o.name), "s", best.name)
		least := o.leastMemory()
		switch o.name {
		case "S step, 2 threads":
			add("S step, FLOPs", o.ours.gflops, peak, ">=0.80", "GFLOP/s", "measured FMA peak")
			add("S step, peak memory", o.ours.peakMB, least.peakMB, "<=0.50", "MB", least.name)
		case "S step, recomputing":
			add("S step, recomputing, peak memory", o.ours.peakMB, least.peakMB, "<=0.50", "MB", least.name)
		}
	}
	worst := math.Inf(1)
	for _, library := range []struct{ name, goal string }{{"OpenBLAS", ">=1.05"}, {"oneDNN", ">=1.00"}} {
		ratios := products[library.name]
		if len(ratios) == 0 {
			continue
		}
		logs := 0.0
		for _, r := range ratios {
			logs += math.Log(r)
			worst = min(worst, r)
		}
		add(fmt.Sprintf("GEMM, geometric mean of %d", len(ratios)), math.Exp(logs/float64(len(ratios))), 1, library.goal, "of the peer's rate", library.name)
	}
	if !math.IsInf(worst, 1) {
		add("GEMM, worst", worst, 1, ">=0.95", "of the peer's rate", "either")
	}
	return rows
}
