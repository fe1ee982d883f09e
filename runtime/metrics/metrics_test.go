package metrics

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLogLinesAreJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	l, err := OpenLog(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(1, map[string]float64{"loss": 3.5, "a\"b": 1e-7, "grad": math.NaN(), "scale": math.Inf(1), "big": 65536})
	l.Close()
	got, _ := os.ReadFile(path)
	want := `{"step":1,"a\"b":1e-07,"big":65536,"grad":"NaN","loss":3.5,"scale":"+Inf"}` + "\n"
	if string(got) != want || !json.Valid(got) {
		t.Errorf("%s, want %s", got, want)
	}
	records, err := ReadLog(path)
	if err != nil || len(records) != 1 {
		t.Fatalf("%v %v", records, err)
	}
	v := records[0].Values
	if records[0].Step != 1 || v["loss"] != 3.5 || v["a\"b"] != 1e-7 || !math.IsNaN(v["grad"]) || !math.IsInf(v["scale"], 1) || v["big"] != 65536 {
		t.Errorf("%v", records[0])
	}
}

func TestResumedLogHasEveryStepOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	run := func(resume int64, from, to int64, torn string) {
		l, err := OpenLog(path, resume)
		if err != nil {
			t.Fatal(err)
		}
		for s := from; s <= to; s++ {
			if err := l.Write(s, map[string]float64{"loss": float64(s)}); err != nil {
				t.Fatal(err)
			}
		}
		l.f.WriteString(torn)
		l.Close()
	}
	steps := func() (out []int64) {
		records, err := ReadLog(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			out = append(out, r.Step)
		}
		return out
	}
	run(-1, 1, 5, `{"step":6,"lo`)
	if got := steps(); !slices.Equal(got, []int64{1, 2, 3, 4, 5}) {
		t.Errorf("torn: %v", got)
	}
	run(3, 4, 6, "")
	if got := steps(); !slices.Equal(got, []int64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("resumed at 3: %v", got)
	}
	run(10, 11, 11, "")
	run(-1, 1, 1, "")
	if got := steps(); !slices.Equal(got, []int64{1}) {
		t.Errorf("begun again: %v", got)
	}
}

func TestResumedHistogramsAreThereOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exponents.jsonl")
	all := []Exponents{
		{Step: 100, Block: "attn0", DType: "f16", Zero: 1, NonFinite: 2, First: -20, Counts: []int64{3, 0, 4}},
		{Step: 100, Block: "mlp0", DType: "f16", Zero: 6},
		{Step: 200, Block: "attn0", DType: "f32", First: 1, Counts: []int64{7}},
	}
	write := func(resume int64, es ...Exponents) {
		l, err := OpenExponents(path, resume)
		if err == nil {
			err = l.Write(es)
		}
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(-1, all...)
	write(150, all[2])
	got, err := ReadExponents(path)
	if err != nil || len(got) != 3 || !slices.Equal(got[0].Counts, all[0].Counts) || got[2].Step != 200 || got[1].Block != "mlp0" {
		t.Errorf("%v, %+v", err, got)
	}
	if e := got[0]; e.Len() != 10 || e.Below(-18) != 3 || e.Below(-17) != 7 || e.Below(-20) != 0 {
		t.Errorf("%d numbers, below 2^-18 %d, 2^-17 %d, 2^-20 %d", e.Len(), e.Below(-18), e.Below(-17), e.Below(-20))
	}
	os.WriteFile(path, []byte("{\"step\":3}\n"), 0o644)
	if _, err := ReadExponents(path); err == nil || !strings.HasPrefix(err.Error(), path+":1: not a histogram: no step or no block") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedLogNamesTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	for text, want := range map[string]string{
		"{\"step\":1}\nxx\n":      ":2: not a JSON object",
		"{\"loss\":1}\n":          ":1: no step",
		"{\"step\":1.5}\n":        ":1: step 1.5 is not a whole number",
		"{\"step\":1,\"a\":[]}\n": `:1: "a": [] is not a number`,
	} {
		os.WriteFile(path, []byte(text), 0o644)
		_, err := OpenLog(path, 5)
		if err == nil || !strings.HasPrefix(err.Error(), path+want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestAverages(t *testing.T) {
	w := NewWindow(3)
	if !math.IsNaN(w.Mean()) {
		t.Errorf("empty: %g", w.Mean())
	}
	for _, v := range []float64{100, 1, math.NaN(), 2, 3} {
		w.Add(v)
	}
	if w.Mean() != 2 {
		t.Errorf("mean %g, want 2", w.Mean())
	}
	line := Series{}
	for i := range 100 {
		line.X, line.Y = append(line.X, float64(i)), append(line.Y, 5+0.5*float64(i))
	}
	for i, y := range Smooth(line, 21).Y {
		if math.Abs(y-line.Y[i]) > 1e-9 {
			t.Errorf("a straight line smoothed is %g at %d, not %g", y, i, line.Y[i])
		}
	}
	s := Smooth(Series{X: []float64{1, 2, 3, 4, 5}, Y: []float64{0, 3, 6, math.NaN(), 1}}, 3)
	if s.Y[1] != 3 || s.Y[2] != 4.5 || !math.IsNaN(s.Y[3]) || s.Y[4] != 1 {
		t.Errorf("%v", s.Y)
	}
}

// clock makes a Progress run on a time of its own.
func clock(p *Progress) func(time.Duration) {
	at := time.Unix(0, 0)
	p.now = func() time.Time { return at }
	p.begin()
	return func(d time.Duration) { at = at.Add(d) }
}

func TestProgressPrintsALineEveryFewSeconds(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, "prior", "tokens", 0, 1000)
	wait := clock(p)
	for step := int64(1); step <= 12; step++ {
		wait(time.Second)
		p.Update(step, 2048, Stat{"loss", 3.25})
	}
	p.Done()
	want := `prior 1/1000   0% | loss 3.2500 | 2048 tokens/s | 16m39s left
prior 6/1000   0% | loss 3.2500 | 2048 tokens/s | 16m34s left
prior 11/1000   1% | loss 3.2500 | 2048 tokens/s | 16m29s left
prior 12/1000   1% | loss 3.2500 | 2048 tokens/s | took 12s
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestProgressRewritesTheTerminalLine(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, "dvae", "images", 10, 20)
	p.width, p.every = 24, 0
	wait := clock(p)
	wait(time.Second)
	p.Update(11, 8, Stat{"loss", 0.5})
	p.Note("saved %d", 11)
	wait(time.Second)
	p.Update(12, 8, Stat{"loss", 0.25})
	p.Done()
	want := "\rdvae 11/20  55% | loss \x1b[K" + "\r\x1b[Ksaved 11\n" + "\rdvae 11/20  55% | loss \x1b[K" +
		"\rdvae 12/20  60% | loss \x1b[K" + "\rdvae 12/20  60% | loss \x1b[K\n"
	if b.String() != want {
		t.Errorf("%q, want\n%q", b.String(), want)
	}
}

func TestRateFollowsTheLastHalfMinute(t *testing.T) {
	p := NewProgress(&bytes.Buffer{}, "x", "images", 0, 100000)
	wait := clock(p)
	for step := int64(1); step <= 200; step++ {
		units := 1.0
		if step > 100 {
			units = 10
		}
		wait(time.Second)
		p.Update(step, units)
	}
	if !strings.Contains(p.line, "| 10.0 images/s") {
		t.Errorf("%s", p.line)
	}
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500 * time.Millisecond: "1.5s", 12 * time.Second: "12s", 192 * time.Second: "3m12s",
		3725 * time.Second: "1h02m", 183600 * time.Second: "2d03h",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{5: "5 B", 1536: "1.50 KiB", 812 << 20: "812 MiB", 12 << 30: "12.0 GiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// The published check value of CRC-32C is e3069283, of "123456789"; rotated by 15
// and offset as TFRecord does it, that is c78ab0e5.
func TestTFRecordFraming(t *testing.T) {
	b := frame([]byte("123456789"))
	if len(b) != 8+4+9+4 || binary.LittleEndian.Uint64(b) != 9 || string(b[12:21]) != "123456789" {
		t.Errorf("%x", b)
	}
	if got := binary.LittleEndian.Uint32(b[21:]); got != 0xc78ab0e5 {
		t.Errorf("data checksum %08x", got)
	}
}

// wire is a protobuf message decoded without a schema: field number to values.
func wire(t *testing.T, b []byte) map[int][]any {
	t.Helper()
	out := map[int][]any{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		b = b[n:]
		f := int(tag >> 3)
		switch tag & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			b, out[f] = b[n:], append(out[f], v)
		case 1:
			out[f] = append(out[f], math.Float64frombits(binary.LittleEndian.Uint64(b)))
			b = b[8:]
		case 5:
			out[f] = append(out[f], math.Float32frombits(binary.LittleEndian.Uint32(b)))
			b = b[4:]
		case 2:
			l, n := binary.Uvarint(b)
			out[f] = append(out[f], b[n:n+int(l)])
			b = b[n+int(l):]
		default:
			t.Fatalf("wire type %d", tag&7)
		}
	}
	return out
}

func TestEventFileHoldsTheScalars(t *testing.T) {
	dir := t.TempDir()
	e, err := openEvents(dir, 41, func() time.Time { return time.Unix(1000, 5e8) })
	if err != nil {
		t.Fatal(err)
	}
	e.Scalars(42, map[string]float64{"loss": 3.5, "acc": 0.25})
	e.Image(43, "sample", []byte("png"), 4, 6)
	e.Exponents(44, []Exponents{{Step: 44, Block: "mlp1", DType: "f16", Zero: 5, First: -3, Counts: []int64{2, 0, 1}}, {Step: 44, Block: "mlp2", DType: "f16", Zero: 9}})
	e.Close()
	if again, err := openEvents(dir, -1, func() time.Time { return time.Unix(1000, 0) }); err != nil {
		t.Errorf("second file in the same second: %v", err)
	} else {
		again.Close()
	}
	files, _ := filepath.Glob(filepath.Join(dir, "events.out.tfevents.0000001000.*.0"))
	if len(files) != 1 {
		t.Fatalf("%v", files)
	}
	b, _ := os.ReadFile(files[0])
	var events []map[int][]any
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		if binary.LittleEndian.Uint32(b[8:]) != maskedCRC(b[:8]) || binary.LittleEndian.Uint32(b[12+n:]) != maskedCRC(b[12:12+n]) {
			t.Fatal("checksum")
		}
		events = append(events, wire(t, b[12:12+n]))
		b = b[16+n:]
	}
	if len(events) != 5 {
		t.Fatalf("%d events, want 5", len(events))
	}
	if got := string(events[0][3][0].([]byte)); got != "brain.Event:2" || events[0][1][0] != 1000.5 {
		t.Errorf("first event: %q at %v", got, events[0][1][0])
	}
	if status := wire(t, events[1][7][0].([]byte)); status[1][0] != uint64(1) || events[1][2][0] != uint64(42) {
		t.Errorf("session log %v at step %v, want START at 42", status, events[1][2][0])
	}
	values := wire(t, events[2][5][0].([]byte))[1]
	want := []map[int][]any{{1: {[]byte("acc")}, 2: {float32(0.25)}}, {1: {[]byte("loss")}, 2: {float32(3.5)}}}
	for i, v := range values {
		if got := wire(t, v.([]byte)); !reflect.DeepEqual(got, want[i]) {
			t.Errorf("value %d: %v, want %v", i, got, want[i])
		}
	}
	img := wire(t, wire(t, wire(t, events[3][5][0].([]byte))[1][0].([]byte))[4][0].([]byte))
	if img[1][0] != uint64(6) || img[2][0] != uint64(4) || string(img[4][0].([]byte)) != "png" {
		t.Errorf("image %v", img)
	}
	histograms := wire(t, events[4][5][0].([]byte))[1]
	if len(histograms) != 1 {
		t.Fatalf("%d histograms, want that of mlp1 alone: mlp2 has no exponents", len(histograms))
	}
	v := wire(t, histograms[0].([]byte))
	h := wire(t, v[5][0].([]byte))
	doubles := func(b []byte) (x []float64) {
		for ; len(b) > 0; b = b[8:] {
			x = append(x, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		return x
	}
	if string(v[1][0].([]byte)) != "exponents/mlp1 f16" || h[1][0] != -3. || h[2][0] != -1. || h[3][0] != 3. || h[4][0] != -7. || h[5][0] != 19. ||
		!slices.Equal(doubles(h[6][0].([]byte)), []float64{-2.5, -1.5, -0.5}) || !slices.Equal(doubles(h[7][0].([]byte)), []float64{2, 0, 1}) {
		t.Errorf("histogram %v of %s", h, v[1][0])
	}
}

func TestHardwareIsPlausible(t *testing.T) {
	h := ReadHardware()
	if h.CPU == "" || h.Cores < 1 || runtime.GOOS == "linux" && h.MemoryBytes < 64<<20 {
		t.Errorf("%+v", h)
	}
	before := PeakMemory()
	block := make([]byte, 64<<20)
	for i := range block {
		block[i] = byte(i)
	}
	if after := PeakMemory(); after < before || after < 64<<20 {
		t.Errorf("peak %d before and %d after touching 64 MiB", before, after)
	}
	runtime.KeepAlive(block)
	if a, b := PeakMemory(), peakUsage(); runtime.GOOS == "linux" && math.Abs(float64(a-b)) > 0.2*float64(a) {
		t.Errorf("the two sources of the peak differ: %d and %d", a, b)
	}
}

func sampleReport() Report {
	var loss, val Series
	loss.Name, val.Name, loss.Smooth = "training", "validation <&>", 60
	for i := range 3000 {
		x := float64(i)
		loss.X = append(loss.X, x)
		loss.Y = append(loss.Y, 2.8+5*math.Exp(-x/400)+0.25*math.Sin(x*12.9898)*math.Cos(x*4.1))
		if i%250 == 0 {
			val.X = append(val.X, x)
			val.Y = append(val.Y, 2.9+5*math.Exp(-x/400))
		}
	}
	img := image.NewNRGBA(image.Rect(0, 0, 16, 16))
	for i := range img.Pix {
		img.Pix[i] = byte(i*7 | 0x80)
	}
	pixels, _ := EncodePNG(img)
	var items []Image
	for i := range 6 {
		items = append(items, Image{pixels, fmt.Sprintf("a tapir made of accordion, sample %d <script>", i), []Badge{{"rank 1", Verdict(i % 4)}, {"0.31", Plain}}})
	}
	return Report{"Gouache demo", "dVAE, prior and reranking, from scratch", []Section{
		{"Summary", []Block{Figures{{"validation loss", "2.912", "nats per token"}, {"time", "4m12s", ""}}, Text{Body: "First.\n\nSecond <b>."}}},
		{"Training", []Block{
			Chart{Title: "Loss of the prior", X: "step", Y: "nats", Series: []Series{loss, val}, Caption: "Faint: every step."},
			Chart{X: "step", Y: "learning rate", LogY: true, Series: []Series{{Name: "lr", X: []float64{1, 2, 3}, Y: []float64{1e-6, 1e-4, 3e-4}}}}}},
		{"Samples", []Block{Images{Title: "Captions", Items: items}}},
		{"Time", []Block{Table{Title: "Stages", Columns: []string{"stage", "time", "peak"}, Rows: [][]string{{"dvae", "1m02s", "812 MiB"}, {"prior", "3m10s"}}}, Text{Body: "steps = 1\n", Mono: true}}},
	}}
}

func TestReportIsSelfContained(t *testing.T) {
	var b, again bytes.Buffer
	if err := sampleReport().Write(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, bad := range []string{"http:", "https:", "<script", "ZgotmplZ", "NaN", "@import", "<no value>"} {
		if strings.Contains(page, bad) {
			t.Errorf("page contains %q", bad)
		}
	}
	for _, want := range []string{"data:image/png;base64,iVBOR", "validation &lt;&amp;&gt;", "<p>Second &lt;b&gt;.</p>", `class="badge good"`, `<th class="number">time</th>`, "<pre>steps = 1", "prefers-color-scheme: dark"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	sampleReport().Write(&again)
	if again.String() != page {
		t.Error("the same report gives other bytes")
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := sampleReport().Save(path); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, b.Bytes()) {
		t.Error("saved page differs")
	}
}

func TestChartsKeepSpikesAndGaps(t *testing.T) {
	s := Series{Name: "x"}
	for i := range 10000 {
		s.X, s.Y = append(s.X, float64(i)), append(s.Y, 1)
	}
	s.Y[5003] = 50
	s.Y[7007] = math.NaN()
	svg := string(Chart{Series: []Series{s}}.SVG())
	if !strings.Contains(svg, fmt.Sprintf(" %.1f", plotTop)) {
		t.Error("the spike is gone")
	}
	if n := strings.Count(svg[strings.Index(svg, ` d="`):], "M"); n != 2 {
		t.Errorf("%d strokes, want 2: one on either side of the gap", n)
	}
	if n := strings.Count(svg, "L"); n > maxPoints {
		t.Errorf("%d points", n)
	}
}

func TestHeatMapsHaveACellForEveryShare(t *testing.T) {
	h := HeatMap{Title: "a <b>", First: -3, Rows: [][]float64{{0, 0.5, 0}, {1, 0, 0.001}}, Dark: 0.5, Marks: []Mark{{-1, "edge"}}}
	svg := string(h.SVG())
	if n := strings.Count(svg, "<rect"); n != 3 {
		t.Errorf("%d cells, want 3", n)
	}
	for _, want := range []string{`fill-opacity="1"`, `fill-opacity="0.02"`, "a &lt;b&gt;", ">edge<", ">-3<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in %s", want, svg)
		}
	}
	if svg := string((HeatMap{}).SVG()); strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("an empty map: %s", svg)
	}
}

func TestChartsOfOddDataStayFinite(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]Chart{
		"no series":       {},
		"empty series":    {Series: []Series{{Name: "x"}}},
		"one point":       {Series: []Series{{Name: "x", X: []float64{3}, Y: []float64{4}}}},
		"constant zero":   {Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{0, 0}}}},
		"all NaN":         {Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{nan, nan}}}},
		"infinite":        {Series: []Series{{Name: "x", X: []float64{1, 2, 3}, Y: []float64{1, math.Inf(1), 2}}}},
		"log of negative": {LogY: true, Series: []Series{{Name: "x", X: []float64{1, 2, 3}, Y: []float64{-1, 0, 2}}}},
		"log of nothing":  {LogY: true, Series: []Series{{Name: "x", X: []float64{1}, Y: []float64{-1}}}},
		"log of constant": {LogY: true, Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{10, 10}}}},
		"tiny":            {Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{1e-300, 2e-300}}}},
		"huge":            {Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{1e300, -1e300}}}},
		"close":           {Series: []Series{{Name: "x", X: []float64{1, 2}, Y: []float64{1, 1 + 1e-15}}}},
		"uneven":          {Series: []Series{{Name: "x", X: []float64{1, 2, 3}, Y: []float64{1}}}},
	} {
		svg := string(c.SVG())
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: %s", name, svg)
		}
	}
}

func TestTicksAreRoundAndCoverTheData(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		log    bool
		want   string
	}{
		{2.9, 7.8, false, "2 3 4 5 6 7 8"},
		{0, 0.031, false, "0 0.01 0.02 0.03 0.04"},
		{0, 12000, false, "0 2500 5000 7500 10k 12.5k"},
		{1e-6, 3e-4, true, "1e-6 1e-5 1e-4 0.001"},
		{2.9, 7.8, true, "2 3 5 7 10"},
	} {
		a, ticks := fit([][]float64{{c.lo, c.hi}}, c.log, 0, 1)
		var got []string
		for _, v := range ticks {
			got = append(got, tickText(v, ticks))
		}
		if strings.Join(got, " ") != c.want || a.min > c.lo || a.max < c.hi {
			t.Errorf("%g to %g: %v, from %g to %g; want %s", c.lo, c.hi, got, a.min, a.max, c.want)
		}
	}
}
